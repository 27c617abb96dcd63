//! Which pods the gates of a namespace set conditions on. Pure: reads what is known of the cluster.

use std::{cmp::Reverse, collections::HashSet, sync::Arc};

use crate::{
    check::{Check, GateKind, GateMode, ObjectKey, Place, PodSelector, Text},
    cluster::{
        index::{
            Sources,
            facts::{PodFacts, SliceFacts},
        },
        reconcile::Reconciler,
    },
};

/// What one gate claims.
pub struct Claim<'a> {
    pub check: &'a Arc<Check>,
    /// The type of the condition.
    pub kind: &'a Text,
    pub mode: GateMode,
    /// What is claimed can be told; not so while something is being listed for the first time.
    pub ready: bool,
    selectors: Vec<&'a PodSelector>,
    /// Of pods behind `service` targets.
    uids: HashSet<&'a str>,
}

impl Claim<'_> {
    #[must_use]
    pub fn has(&self, pod: &PodFacts) -> bool {
        self.selectors.iter().any(|selector| selector.matches(&pod.labels)) || self.uids.contains(&*pod.uid)
    }

    /// Less comes first: one that enforces before one that only shows; then the older check; then the lower UID.
    #[must_use]
    pub fn rank(&self, reconciler: &Reconciler) -> impl Ord + use<> {
        let enforces = self.mode == GateMode::Enforce;
        (Reverse(enforces), reconciler.created(&self.check.key), self.check.uid.clone())
    }
}

/// What every gate of `namespace` claims.
#[must_use]
pub fn claims<'a>(namespace: &str, reconciler: &'a Reconciler) -> Vec<Claim<'a>> {
    let index = &reconciler.index;
    let checks = index.checks_with_pod_gates(namespace).filter_map(|key| reconciler.accepted(key));
    let of = |check: &'a Arc<Check>| {
        check.gates.iter().filter_map(move |gate| match &gate.kind {
            GateKind::PodReadiness { condition_type, selector } => {
                let ready = index.is_ready(check);
                let mut claim = Claim {
                    check,
                    kind: condition_type,
                    mode: gate.mode,
                    ready,
                    selectors: selector.iter().collect(),
                    uids: HashSet::new(),
                };
                if selector.is_none() {
                    claim_targets(&mut claim, check, &index.sources);
                }
                Some(claim)
            }
            GateKind::EndpointSlice { .. } | GateKind::Annotation => None,
        })
    };
    checks.flat_map(of).collect()
}

fn claim_targets<'a>(claim: &mut Claim<'a>, check: &'a Check, sources: &'a Sources) {
    for target in &check.targets {
        match &target.place {
            Place::Pods { selector } => claim.selectors.push(selector),
            Place::Service { name } => {
                let service = ObjectKey::of(check.key.namespace.clone(), name.clone());
                let slices = sources.slices.get(&service).into_iter().flatten();
                let uids = |(_, slice): (_, &'a SliceFacts)| {
                    slice.endpoints.iter().filter_map(|endpoint| endpoint.pod_uid.as_deref())
                };
                claim.uids.extend(slices.flat_map(uids));
            }
            Place::Host(_) | Place::Check { .. } | Place::Nowhere => {}
        }
    }
}

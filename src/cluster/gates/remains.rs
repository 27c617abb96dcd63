//! What is published of a gate that does nothing. Pure: reads what is known of the cluster.

use super::{
    Evaluated, GateReport, KindCtx, listed,
    pod_claims::claims,
    pod_readiness::said_by,
    slice::{Entry, Owner},
    slices::{Existing, Publisher, let_go},
    standing::{Fate, fate},
    write::{GateKey, GateWrite},
};
use crate::{
    check::{Check, Gate, GateKind, GateReason, Host, ObjectKey, Place, Text},
    cluster::{
        index::{Sources, facts::PodFacts},
        reconcile::Reconciler,
    },
};

/// How many endpoints are published as ready, and which are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remains {
    pub ready: u32,
    pub withheld: Vec<Text>,
}

impl Remains {
    #[must_use]
    pub fn total(&self) -> u32 {
        self.ready.saturating_add(u32::try_from(self.withheld.len()).unwrap_or(u32::MAX))
    }

    fn add(&mut self, ready: bool, label: impl FnOnce() -> Text) {
        if ready {
            self.ready += 1;
        } else {
            self.withheld.push(label());
        }
    }

    /// Adds it to what is said of the gate.
    fn tell(&self, report: &mut GateReport) {
        if self.total() == 0 {
            return;
        }
        (report.published, report.withheld) = (self.ready, self.total() - self.ready);
        let mut message = format!("what is published stays: {} of {} ready", self.ready, self.total());
        if !self.withheld.is_empty() {
            message = format!("{message}; withheld: {}", listed(&self.withheld));
        }
        report.message = format!("{message}; {}", report.message);
    }
}

/// The slices of `owner` for one Service.
pub fn own<'a>(service: &ObjectKey, owner: &Owner, sources: &'a Sources) -> Vec<Existing<'a>> {
    let slices = sources.slices.get(service).into_iter().flatten();
    let ours = slices.filter_map(|(name, facts)| {
        let owned = facts.owned.as_deref()?;
        let existing = Existing { name, resource_version: &facts.resource_version, owned };
        (owned.owner.as_ref() == Some(owner)).then_some(existing)
    });
    ours.collect()
}

fn owner(check: &Check) -> Owner {
    Owner { name: check.key.name.clone(), uid: check.uid.clone() }
}

fn service_of(check: &Check, service: &Text) -> ObjectKey {
    ObjectKey::of(check.key.namespace.clone(), service.clone())
}

/// The target at an address, or the address.
fn label(check: &Check, entry: &Entry) -> Text {
    let at = |place: &Place| matches!(place, Place::Host(Host::Address(address)) if *address == entry.address);
    let target = check.targets.iter().find(|target| at(&target.place)).map(|target| target.name.clone());
    target.or_else(|| entry.name_of.clone()).unwrap_or_else(|| entry.address.to_string().into())
}

fn slices(check: &Check, service: &Text, reconciler: &Reconciler, keeps: impl Fn(&Existing<'_>) -> bool) -> Remains {
    let mut remains = Remains::default();
    for slice in own(&service_of(check, service), &owner(check), &reconciler.index.sources) {
        if keeps(&slice) {
            for entry in slice.owned.body.iter().flat_map(|body| &body.entries) {
                remains.add(entry.ready, || label(check, entry));
            }
        }
    }
    remains
}

fn pods(check: &Check, kind: &str, reconciler: &Reconciler, counts: impl Fn(&PodFacts) -> bool) -> Remains {
    let mut remains = Remains::default();
    let pods = reconciler.index.sources.pods.get(&check.key.namespace).into_iter().flatten();
    for (_, pod) in pods.filter(|(_, pod)| !pod.ends && pod.waits_for(kind) && counts(pod)) {
        let ready = pod.condition(kind).is_some_and(|condition| condition.status == Some(true));
        remains.add(ready, || pod.key.name.clone());
    }
    remains
}

/// What `gate` publishes, whether or not it still acts.
#[must_use]
pub fn all(check: &Check, gate: &Gate, reconciler: &Reconciler) -> Remains {
    match &gate.kind {
        GateKind::EndpointSlice { service, .. } => slices(check, service, reconciler, |_| true),
        GateKind::PodReadiness { condition_type, .. } => {
            let claims = claims(&check.key.namespace, reconciler);
            let ours = claims.iter().find(|claim| claim.check.key == check.key && claim.kind == condition_type);
            pods(check, condition_type, reconciler, |pod| ours.is_some_and(|claim| claim.has(pod)))
        }
        GateKind::Annotation => Remains::default(),
    }
}

impl KindCtx<'_> {
    /// Adds to what is said of a gate that does nothing what it has left: nobody looks after it.
    pub(super) fn tell_remains(&self, evaluated: &mut Evaluated) {
        let report = &mut evaluated.report;
        if !matches!(report.effective, GateReason::Conflict | GateReason::Forbidden | GateReason::NotFound) {
            return;
        }
        let (check, features) = (self.check, self.features);
        let remains = match &self.gate.kind {
            GateKind::EndpointSlice { service, .. } => {
                let key = service_of(check, service);
                // What goes is not told of, and where gates are switched off nothing does.
                let keeps = |slice: &Existing<'_>| {
                    !features.endpoint_slices || fate(&key, slice.owned, self.reconciler) != Fate::Goes
                };
                slices(check, service, self.reconciler, keeps)
            }
            GateKind::PodReadiness { condition_type, .. } if report.published == 0 => {
                let ours = (&*check.key.name, &*self.gate.name);
                pods(check, condition_type, self.reconciler, |pod| {
                    pod.condition(condition_type).and_then(|condition| said_by(&condition.message)) == Some(ours)
                })
            }
            // It acts on some of the pods.
            GateKind::PodReadiness { .. } | GateKind::Annotation => return,
        };
        remains.tell(report);
    }

    /// What an `endpointSlice` gate does that is switched off: it lets go of what it held, where it still may.
    pub(super) fn slices_off(&self, service: &Text) -> Evaluated {
        const OFF: &str =
            "endpointSlice gates are switched off here; whoever installs may turn them on (features.endpointSlices)";
        let (service, owner) = (service_of(self.check, service), owner(self.check));
        let existing = own(&service, &owner, &self.reconciler.index.sources);
        let publisher =
            Publisher { service: &service, gate: &self.gate.name, owner: &owner, port_name: &Text::default() };
        let writes: Vec<_> = let_go(&publisher, &existing)
            .into_iter()
            .map(|(key, write)| (GateKey::Slice(key), GateWrite::Slice(write)))
            .collect();
        let refused = writes.iter().find_map(|(key, _)| self.book.failure(key));
        let message = refused.map_or_else(|| OFF.to_owned(), |(_, why)| format!("{OFF}; nor can it be let go: {why}"));
        Evaluated { writes, ..Evaluated::idle(&self.gate.name, GateReason::Forbidden, message) }
    }
}

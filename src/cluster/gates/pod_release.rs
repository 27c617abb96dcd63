//! Conditions of ours that no gate wants any more are set True: nothing of a HealthCheck that is gone, of a gate that was
//! taken away or of a pod that is no target any more keeps a pod from being ready.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, api::ListParams};
use tokio::time::Instant;

use super::{
    GateEnded, Gates, Scene, Turn,
    pod_claims::{Claim, claims},
    pod_readiness::{RELEASED, release, said_by},
    pod_search::PodSearch,
    slice::Owner,
    write::{GateKey, GateWrite, Written},
};
use crate::{
    check::{GateMode, ObjectKey, Text},
    cluster::{
        checks::Selection,
        client::{CallError, list_all},
        index::facts::{PodFacts, ReadinessCondition},
    },
};

/// How long a pod that is no target any more is left alone: it may be between two slices.
const GRACE: Duration = Duration::from_secs(5);

/// What is remembered of conditions without a gate.
#[derive(Debug, Default)]
pub struct PodRelease {
    /// What was last to be written in each namespace.
    releasing: HashMap<Text, HashSet<GateKey>>,
    /// Conditions whose gate is there and does not claim the pod, and since when.
    unclaimed: HashMap<GateKey, Instant>,
    /// Pods as they were found by a search, by namespace and name. Those that are watched are better known.
    strays: HashMap<Text, BTreeMap<Text, PodFacts>>,
    pub(super) search: PodSearch,
}

impl PodRelease {
    /// Whether something is left to be let go.
    pub fn is_unfinished(&self) -> bool {
        !self.strays.is_empty() || !self.releasing.is_empty()
    }

    /// Takes in what a search has found.
    fn found(&mut self, pods: Vec<PodFacts>, now: Instant) {
        self.search.ended(now);
        self.strays.clear();
        for pod in pods {
            self.strays.entry(pod.key.namespace.clone()).or_default().insert(pod.key.name.clone(), pod);
        }
    }

    /// Namespaces in which a wait is over.
    pub fn due(&self, now: Instant) -> BTreeSet<Text> {
        let over = |(_, since): &(&GateKey, &Instant)| now.duration_since(**since) >= GRACE;
        self.unclaimed.iter().filter(over).map(|(key, _)| key.object().namespace.clone()).collect()
    }
}

/// What is to become of a condition.
enum PodFate {
    Stays,
    Goes,
    /// It goes if it is still so after a while.
    Unclaimed,
}

impl Gates {
    /// Releases the pods of `namespace` that no gate holds.
    pub(super) fn release_pods(&mut self, namespace: &Text, scene: Scene<'_>, now: Instant, turn: &mut Turn) {
        if !self.features.pod_readiness {
            return;
        }
        let claims = claims(namespace, scene.reconciler);
        let watched = scene.reconciler.index.sources.pods.get(namespace);
        let strays = self.pods.strays.get(namespace).cloned().unwrap_or_default();
        let unwatched = |pod: &&PodFacts| watched.is_none_or(|pods| !pods.contains_key(&pod.key.name));
        let pods = watched.into_iter().flat_map(BTreeMap::values).chain(strays.values().filter(unwatched));
        let (mut writes, mut unclaimed) = (vec![], HashSet::new());
        for pod in pods {
            writes.extend(self.judge_pod(pod, &claims, scene, now, turn, &mut unclaimed));
        }
        self.pods.unclaimed.retain(|key, _| key.object().namespace != *namespace || unclaimed.contains(key));
        let former = self.pods.releasing.remove(namespace).unwrap_or_default();
        let outstanding = self.write_all(writes, former, now, turn);
        if !outstanding.is_empty() {
            self.pods.releasing.insert(namespace.clone(), outstanding);
        }
    }

    /// Takes in every pod with conditions of ours, wherever: those in namespaces that nobody watches are judged too.
    pub fn found_pods(&mut self, pods: Vec<PodFacts>, now: Instant) {
        self.namespaces.extend(pods.iter().map(|pod| pod.key.namespace.clone()));
        self.pods.found(pods, now);
    }

    /// A write to a pod has ended: what was found of it is as old as that.
    pub(super) fn pod_ended(&mut self, ended: &GateEnded, now: Instant) {
        let pod = ended.key.object();
        let Some(strays) = self.pods.strays.get_mut(&pod.namespace) else { return };
        if strays.remove(&pod.name).is_none() {
            return;
        }
        match &ended.result {
            Ok(Written::Pod(facts)) => {
                strays.insert(pod.name.clone(), (**facts).clone());
            }
            Err(CallError::NotFound(_)) => {}
            _ => self.pods.search.hasten(now + GRACE),
        }
    }

    fn judge_pod(
        &mut self,
        pod: &PodFacts,
        claims: &[Claim<'_>],
        scene: Scene<'_>,
        now: Instant,
        turn: &mut Turn,
        unclaimed: &mut HashSet<GateKey>,
    ) -> Vec<(GateKey, GateWrite)> {
        let conditions = pod.readiness.iter().flat_map(|readiness| &readiness.conditions);
        let mut writes = vec![];
        for condition in conditions.filter(|_| !pod.ends) {
            let goes = match self.fate_of(pod, condition, claims, scene, turn) {
                PodFate::Stays => false,
                PodFate::Goes => true,
                PodFate::Unclaimed => {
                    let key = GateKey::Pod(pod.key.clone(), condition.kind.clone());
                    let since = *self.pods.unclaimed.entry(key.clone()).or_insert(now);
                    unclaimed.insert(key);
                    now.duration_since(since) >= GRACE
                }
            };
            writes.extend(goes.then(|| release(pod, &condition.kind)).flatten());
        }
        writes
    }

    fn fate_of(
        &mut self,
        pod: &PodFacts,
        condition: &ReadinessCondition,
        claims: &[Claim<'_>],
        scene: Scene<'_>,
        turn: &mut Turn,
    ) -> PodFate {
        let released = condition.status == Some(true) && condition.reason == RELEASED;
        // One that only shows what it would do holds nothing.
        let mut same = claims.iter().filter(|claim| *claim.kind == condition.kind && claim.mode == GateMode::Enforce);
        if released || same.clone().any(|claim| !claim.ready || claim.has(pod)) {
            return PodFate::Stays;
        }
        let Some((name, _)) = said_by(&condition.message) else { return PodFate::Unclaimed };
        let key = ObjectKey::new(&pod.key.namespace, name);
        if !scene.reconciler.knows(&key) {
            // Perhaps one that this replica was told not to look at. A condition does not say the UID.
            let owner = Owner { name: name.into(), uid: "".into() };
            return if self.is_gone(&pod.key.namespace, &owner, turn) { PodFate::Goes } else { PodFate::Stays };
        }
        if scene.reconciler.accepted(&key).is_none() {
            // Nobody can read what it wants.
            return PodFate::Stays;
        }
        if same.any(|claim| claim.check.key == key) { PodFate::Unclaimed } else { PodFate::Goes }
    }
}

/// Every pod with a condition of ours in the namespaces of `selection`; nothing where they cannot be listed.
pub async fn find(client: &Client, selection: &Selection) -> Vec<PodFacts> {
    let mut found = vec![];
    let keep = |pod: Pod| found.extend(bearing(&pod));
    if let Err(error) = list_all(&selection.apis(client), &ListParams::default(), keep).await {
        tracing::debug!(%error, "pods without a gate not searched for; later again");
    }
    found
}

/// `pod`, if it bears a condition of ours.
#[must_use]
pub fn bearing(pod: &Pod) -> Option<PodFacts> {
    let facts = PodFacts::of(pod);
    let bears = facts.readiness.as_ref().is_some_and(|each| !each.conditions.is_empty());
    bears.then_some(facts)
}

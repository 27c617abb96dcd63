//! What is known of the cluster, as far as a check refers to it. Plain and synchronous: events in, endpoints out.

pub mod facts;
mod problem;
mod resolve;
mod sources;
#[cfg(test)]
mod tests;

pub use facts::ServicePort;
pub use problem::{Problem, ProblemKind};
pub use resolve::{pod_uid, resolve, service_port};
use sources::Touched;
pub use sources::{Scope, SourceChange, SourceKind, Sources};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::check::{Check, GateKind, ObjectKey, Place, Text};

/// What gates are to look at.
#[derive(Debug, Default)]
pub struct GatesTouched {
    /// The checks whose gates are to be looked at.
    pub checks: BTreeSet<ObjectKey>,
    /// The Services whose slices are.
    pub services: BTreeSet<ObjectKey>,
    /// The namespaces whose pods' conditions are.
    pub namespaces: BTreeSet<Text>,
}

/// The checks, and for each kind of object which of them an object concerns.
#[derive(Debug, Default)]
pub struct Index {
    checks: BTreeMap<ObjectKey, Arc<Check>>,
    /// Which checks refer to a Service.
    by_service: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Which checks of a namespace refer to pods.
    by_pods: HashMap<Text, BTreeSet<ObjectKey>>,
    /// Which checks have a gate that publishes endpoints of a Service.
    by_gated: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Which checks of a namespace have a gate that sets conditions on pods.
    by_pod_gate: HashMap<Text, BTreeSet<ObjectKey>>,
    gated: GatesTouched,
    pub sources: Sources,
    /// Rises with every check that comes or goes.
    version: u64,
}

impl Index {
    /// Puts `check` in place of what is under its key.
    pub fn insert(&mut self, check: Arc<Check>) {
        self.remove(&check.key);
        self.version += 1;
        for target in &check.targets {
            match &target.place {
                Place::Service { name } => {
                    let service = ObjectKey::of(check.key.namespace.clone(), name.clone());
                    self.by_service.entry(service).or_default().insert(check.key.clone());
                }
                Place::Pods { .. } => {
                    self.by_pods.entry(check.key.namespace.clone()).or_default().insert(check.key.clone());
                }
                Place::Host(_) | Place::Check { .. } | Place::Nowhere => {}
            }
        }
        for service in gated_by(&check) {
            self.by_gated.entry(service).or_default().insert(check.key.clone());
        }
        if has_pod_gate(&check) {
            self.by_pod_gate.entry(check.key.namespace.clone()).or_default().insert(check.key.clone());
        }
        self.touch_gates(&check);
        self.checks.insert(check.key.clone(), check);
    }

    /// Forgets a check.
    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Check>> {
        let check = self.checks.remove(key)?;
        self.version += 1;
        for service in services_of(&check) {
            if let Some(checks) = self.by_service.get_mut(&service) {
                checks.remove(key);
                if checks.is_empty() {
                    self.by_service.remove(&service);
                }
            }
        }
        if let Some(checks) = self.by_pods.get_mut(&key.namespace) {
            checks.remove(key);
            if checks.is_empty() {
                self.by_pods.remove(&key.namespace);
            }
        }
        for service in gated_by(&check) {
            if let Some(checks) = self.by_gated.get_mut(&service) {
                checks.remove(key);
                if checks.is_empty() {
                    self.by_gated.remove(&service);
                }
            }
        }
        if let Some(checks) = self.by_pod_gate.get_mut(&key.namespace) {
            checks.remove(key);
            if checks.is_empty() {
                self.by_pod_gate.remove(&key.namespace);
            }
        }
        self.touch_gates(&check);
        Some(check)
    }

    /// The gates of `check` may be others, and with it who holds the Services that they gate.
    fn touch_gates(&mut self, check: &Check) {
        for service in gated_by(check) {
            self.gated.checks.extend(self.by_gated.get(&service).into_iter().flatten().cloned());
            self.gated.services.insert(service);
        }
        if has_pod_gate(check) {
            let others = self.by_pod_gate.get(&check.key.namespace);
            self.gated.checks.extend(others.into_iter().flatten().cloned());
            self.gated.namespaces.insert(check.key.namespace.clone());
        }
        self.gated.checks.insert(check.key.clone());
    }

    /// What gates are to look at since this was last asked.
    pub fn take_gated(&mut self) -> GatesTouched {
        std::mem::take(&mut self.gated)
    }

    /// The gates of `key` are to be looked at.
    pub fn look_at_gates(&mut self, key: &ObjectKey) {
        self.gated.checks.insert(key.clone());
    }

    /// The checks of `namespace` that have a gate which sets conditions on pods.
    pub fn checks_with_pod_gates(&self, namespace: &str) -> impl Iterator<Item = &ObjectKey> {
        self.by_pod_gate.get(namespace).into_iter().flatten()
    }

    /// The checks that have a gate which publishes endpoints of `service`.
    pub fn checks_of_gated(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_gated.get(service).into_iter().flatten()
    }

    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Check>> {
        self.checks.get(key)
    }

    /// All checks of one namespace.
    pub fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Check>> {
        let namespace = namespace.to_owned();
        self.checks
            .range(ObjectKey::new(&namespace, "")..)
            .take_while(move |(key, _)| *key.namespace == *namespace)
            .map(|(_, check)| check)
    }

    /// The checks that refer to `service`.
    pub fn checks_of_service(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_service.get(service).into_iter().flatten()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.checks.len()
    }

    /// A number that changes with [`Self::scopes`].
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What must be watched for the checks there are.
    #[must_use]
    pub fn scopes(&self) -> BTreeSet<Scope> {
        let services = self.by_service.keys().chain(self.by_gated.keys()).flat_map(|service| {
            [SourceKind::Services, SourceKind::Slices].map(|kind| Scope { kind, namespace: service.namespace.clone() })
        });
        let pods = self.by_pods.keys().chain(self.by_pod_gate.keys());
        let pods = pods.map(|namespace| Scope { kind: SourceKind::Pods, namespace: namespace.clone() });
        services.chain(pods).collect()
    }

    /// Whether everything `check` refers to has been listed, or is known to be out of reach.
    #[must_use]
    pub fn is_ready(&self, check: &Check) -> bool {
        scopes_of(check).iter().all(|scope| self.sources.is_settled(scope))
    }

    /// Takes a change of a source in, and says which checks it concerns.
    pub fn apply(&mut self, change: SourceChange) -> BTreeSet<ObjectKey> {
        let touched = self.sources.apply(change);
        self.concerned(touched)
    }

    /// Takes in what we ourselves wrote to a slice, and says which checks it concerns: see [`Sources::wrote`].
    pub fn wrote(
        &mut self,
        key: &ObjectKey,
        base: Option<&str>,
        now_there: Option<facts::SliceFacts>,
    ) -> BTreeSet<ObjectKey> {
        let touched = self.sources.wrote(key, base, now_there);
        self.concerned(touched)
    }

    /// Takes in what we ourselves wrote to a pod: see [`Sources::wrote_pod`].
    pub fn wrote_pod(&mut self, base: &str, now_there: facts::PodFacts) -> BTreeSet<ObjectKey> {
        let touched = self.sources.wrote_pod(base, now_there);
        self.concerned(touched)
    }

    fn concerned(&mut self, touched: Touched) -> BTreeSet<ObjectKey> {
        let mut checks = BTreeSet::new();
        for service in &touched.services {
            checks.extend(self.by_service.get(service).into_iter().flatten().cloned());
        }
        for service in touched.gated {
            self.gated.checks.extend(self.by_gated.get(&service).into_iter().flatten().cloned());
            self.gated.services.insert(service);
        }
        for namespace in touched.gated_pods {
            self.gated.checks.extend(self.by_pod_gate.get(&namespace).into_iter().flatten().cloned());
            self.gated.namespaces.insert(namespace);
        }
        for namespace in &touched.pods {
            checks.extend(self.by_pods.get(namespace).into_iter().flatten().cloned());
        }
        if let Some(scope) = &touched.scope {
            let gated = self.by_gated.iter().filter(|(service, _)| service.namespace == scope.namespace);
            let pods = self.by_pod_gate.get(&scope.namespace).into_iter().flatten();
            self.gated.checks.extend(gated.flat_map(|(_, checks)| checks).chain(pods).cloned());
            self.gated.namespaces.insert(scope.namespace.clone());
            checks.extend(
                self.namespace(&scope.namespace)
                    .filter(|check| scopes_of(check).contains(scope))
                    .map(|check| check.key.clone()),
            );
        }
        checks
    }
}

/// The Services a check refers to.
pub fn services_of(check: &Check) -> BTreeSet<ObjectKey> {
    check
        .targets
        .iter()
        .filter_map(|target| match &target.place {
            Place::Service { name } => Some(ObjectKey::of(check.key.namespace.clone(), name.clone())),
            _ => None,
        })
        .collect()
}

/// The Services of which a check publishes endpoints.
pub fn gated_by(check: &Check) -> BTreeSet<ObjectKey> {
    check
        .gates
        .iter()
        .filter_map(|gate| match &gate.kind {
            GateKind::EndpointSlice { service, .. } => {
                Some(ObjectKey::of(check.key.namespace.clone(), service.clone()))
            }
            GateKind::PodReadiness { .. } | GateKind::Annotation => None,
        })
        .collect()
}

/// Whether a gate of `check` sets conditions on pods.
fn has_pod_gate(check: &Check) -> bool {
    check.gates.iter().any(|gate| matches!(gate.kind, GateKind::PodReadiness { .. }))
}

/// What must be watched for one check.
pub fn scopes_of(check: &Check) -> BTreeSet<Scope> {
    let of = |kind| Scope { kind, namespace: check.key.namespace.clone() };
    let gates = check.gates.iter().flat_map(|gate| match &gate.kind {
        GateKind::EndpointSlice { .. } => vec![of(SourceKind::Services), of(SourceKind::Slices)],
        GateKind::PodReadiness { .. } => vec![of(SourceKind::Pods)],
        GateKind::Annotation => vec![],
    });
    check
        .targets
        .iter()
        .flat_map(|target| match &target.place {
            Place::Service { .. } => vec![of(SourceKind::Services), of(SourceKind::Slices)],
            Place::Pods { .. } => vec![of(SourceKind::Pods)],
            Place::Host(_) | Place::Check { .. } | Place::Nowhere => vec![],
        })
        .chain(gates)
        .collect()
}

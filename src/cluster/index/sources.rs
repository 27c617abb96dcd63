//! Services, EndpointSlices and pods of the namespaces that checks refer to, and how far each watch has come.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::facts::{PodFacts, ServiceFacts, SliceFacts};
use crate::{
    check::{ObjectKey, Text},
    cluster::{client::CallError, watch::Told},
};

/// A kind of object that targets refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceKind {
    Services,
    Slices,
    Pods,
}

impl SourceKind {
    /// The plural resource name of the Kubernetes API.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Slices => "endpointslices",
            Self::Pods => "pods",
        }
    }
}

/// One watch: a kind in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    pub kind: SourceKind,
    pub namespace: Text,
}

/// What a watch of a source told.
#[derive(Debug)]
pub enum SourceChange {
    Service(Scope, Told<ServiceFacts>),
    Slice(Scope, Told<SliceFacts>),
    Pod(Scope, Told<PodFacts>),
    /// The watch has ended; nobody refers to it any more.
    Dropped(Scope),
}

/// What a change touched.
#[derive(Debug, Default)]
pub struct Touched {
    /// Services that changed, or whose slices did.
    pub services: BTreeSet<ObjectKey>,
    /// Services that changed, or whose slices did, be it in what moves no endpoint.
    pub gated: BTreeSet<ObjectKey>,
    /// Namespaces whose pods changed.
    pub pods: BTreeSet<Text>,
    /// Namespaces whose pods changed, be it in what moves no endpoint.
    pub gated_pods: BTreeSet<Text>,
    /// A scope that has just become known, or out of reach.
    pub scope: Option<Scope>,
}

impl Touched {
    fn service(&mut self, key: &ObjectKey) {
        self.services.insert(key.clone());
        self.gated.insert(key.clone());
    }
}

#[derive(Debug, Default)]
struct Progress {
    /// Names seen by the list that is under way.
    listed: Option<BTreeSet<Text>>,
    complete: bool,
    /// Why nothing can be known, for as long as that is so.
    refused: Option<String>,
}

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Sources {
    pub services: HashMap<ObjectKey, ServiceFacts>,
    /// By Service, then by name of the slice.
    pub slices: HashMap<ObjectKey, BTreeMap<Text, SliceFacts>>,
    /// The Service of each slice.
    slice_service: HashMap<ObjectKey, Text>,
    pub pods: HashMap<Text, BTreeMap<Text, PodFacts>>,
    progress: HashMap<Scope, Progress>,
}

impl Sources {
    /// Whether `scope` was listed once, or cannot be.
    #[must_use]
    pub fn is_settled(&self, scope: &Scope) -> bool {
        self.progress.get(scope).is_some_and(|progress| progress.complete || progress.refused.is_some())
    }

    /// Why nothing is known of `kind` in `namespace`, where we may not look.
    #[must_use]
    pub fn refusal(&self, kind: SourceKind, namespace: &Text) -> Option<&str> {
        let progress = self.progress.get(&Scope { kind, namespace: namespace.clone() })?;
        progress.refused.as_deref().filter(|_| !progress.complete)
    }

    /// The slice of this name.
    #[must_use]
    pub fn slice(&self, key: &ObjectKey) -> Option<&SliceFacts> {
        let service = ObjectKey::of(key.namespace.clone(), self.slice_service.get(key)?.clone());
        self.slices.get(&service)?.get(&key.name)
    }

    /// Notes what we ourselves wrote to a slice, unless it has changed since `base`.
    pub fn annotated(
        &mut self,
        key: &ObjectKey,
        base: &str,
        version: &str,
        changes: &BTreeMap<String, Option<String>>,
    ) {
        let Some(service) = self.slice_service.get(key) else { return };
        let service = ObjectKey::of(key.namespace.clone(), service.clone());
        let Some(slice) = self.slices.get_mut(&service).and_then(|slices| slices.get_mut(&key.name)) else { return };
        if slice.resource_version != base {
            return;
        }
        slice.resource_version = version.to_owned();
        for (name, value) in changes {
            match value {
                Some(value) => slice.annotations.insert(name.clone(), value.clone()),
                None => slice.annotations.remove(name),
            };
        }
    }

    /// Notes what we ourselves wrote to a slice (`None`: it is gone), unless it has changed since `base`, the version it was
    /// computed from (`None`: it was not there).
    pub(super) fn wrote(&mut self, key: &ObjectKey, base: Option<&str>, now_there: Option<SliceFacts>) -> Touched {
        let known = self.slice(key).map(|slice| slice.resource_version.as_str());
        let mut touched = Touched::default();
        match now_there {
            _ if known != base => {}
            Some(slice) => self.put_slice(slice, &mut touched),
            None => self.drop_slice(key, &mut touched),
        }
        touched
    }

    pub(super) fn apply(&mut self, change: SourceChange) -> Touched {
        let mut touched = Touched::default();
        match change {
            SourceChange::Service(scope, told) => match told {
                Told::Is(service) => {
                    self.note(&scope, &service.key.name);
                    if self.services.get(&service.key) != Some(&service) {
                        touched.service(&service.key);
                        self.services.insert(service.key.clone(), service);
                    }
                }
                Told::Gone(service) => self.drop_service(&service.key, &mut touched),
                told => self.advance(&scope, &told, &mut touched),
            },
            SourceChange::Slice(scope, told) => match told {
                // It may have lost the label that said whose it is.
                Told::Is(slice) if slice.service.is_empty() => self.drop_slice(&slice.key, &mut touched),
                Told::Is(slice) => {
                    self.note(&scope, &slice.key.name);
                    self.put_slice(slice, &mut touched);
                }
                Told::Gone(slice) => self.drop_slice(&slice.key, &mut touched),
                told => self.advance(&scope, &told, &mut touched),
            },
            SourceChange::Pod(scope, told) => match told {
                Told::Is(pod) => {
                    self.note(&scope, &pod.key.name);
                    self.put_pod(pod, &mut touched);
                }
                Told::Gone(pod) => self.drop_pod(&pod.key, &mut touched),
                told => self.advance(&scope, &told, &mut touched),
            },
            SourceChange::Dropped(scope) => self.forget(&scope),
        }
        touched
    }

    fn note(&mut self, scope: &Scope, name: &Text) {
        if let Some(listed) = self.progress.entry(scope.clone()).or_default().listed.as_mut() {
            listed.insert(name.clone());
        }
    }

    fn put_slice(&mut self, slice: SliceFacts, touched: &mut Touched) {
        let service = ObjectKey::of(slice.key.namespace.clone(), slice.service.clone());
        let former = self.slice_service.insert(slice.key.clone(), slice.service.clone());
        if let Some(former) = former.filter(|former| *former != slice.service) {
            let former = ObjectKey::of(slice.key.namespace.clone(), former);
            self.remove_slice_of(&former, &slice.key.name);
            touched.service(&former);
        }
        let slices = self.slices.entry(service.clone()).or_default();
        let same = slices.get(&slice.key.name).is_some_and(|known| {
            // A change of annotations or version alone moves no endpoint.
            known.ports == slice.ports && known.endpoints == slice.endpoints
        });
        slices.insert(slice.key.name.clone(), slice);
        touched.gated.insert(service.clone());
        if !same {
            touched.services.insert(service);
        }
    }

    /// Notes what we ourselves wrote to a pod, unless it has changed since `base`, the version it was computed from.
    pub(super) fn wrote_pod(&mut self, base: &str, now_there: PodFacts) -> Touched {
        let mut touched = Touched::default();
        let known = self.pods.get(&now_there.key.namespace).and_then(|pods| pods.get(&now_there.key.name));
        let version = known.and_then(|pod| pod.readiness.as_ref()).map(|readiness| &*readiness.resource_version);
        if version == Some(base) {
            self.put_pod(now_there, &mut touched);
        }
        touched
    }

    fn put_pod(&mut self, pod: PodFacts, touched: &mut Touched) {
        let pods = self.pods.entry(pod.key.namespace.clone()).or_default();
        let known = pods.get(&pod.key.name);
        if known == Some(&pod) {
            return;
        }
        touched.gated_pods.insert(pod.key.namespace.clone());
        if !known.is_some_and(|known| known.is_same_but_readiness(&pod)) {
            touched.pods.insert(pod.key.namespace.clone());
        }
        pods.insert(pod.key.name.clone(), pod);
    }

    fn remove_slice_of(&mut self, service: &ObjectKey, slice: &str) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }

    fn drop_service(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if self.services.remove(key).is_some() {
            touched.service(key);
        }
    }

    fn drop_slice(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if let Some(service) = self.slice_service.remove(key) {
            let service = ObjectKey::of(key.namespace.clone(), service);
            self.remove_slice_of(&service, &key.name);
            touched.service(&service);
        }
    }

    fn drop_pod(&mut self, key: &ObjectKey, touched: &mut Touched) {
        if let Some(pods) = self.pods.get_mut(&key.namespace)
            && pods.remove(&key.name).is_some()
        {
            touched.pods.insert(key.namespace.clone());
            touched.gated_pods.insert(key.namespace.clone());
        }
    }

    fn advance<T>(&mut self, scope: &Scope, told: &Told<T>, touched: &mut Touched) {
        let progress = self.progress.entry(scope.clone()).or_default();
        match told {
            Told::Begin => progress.listed = Some(BTreeSet::new()),
            Told::Complete => {
                let listed = progress.listed.take().unwrap_or_default();
                if !progress.complete || progress.refused.is_some() {
                    touched.scope = Some(scope.clone());
                }
                progress.complete = true;
                progress.refused = None;
                for key in self.known(scope) {
                    if !listed.contains(&key.name) {
                        self.drop_one(scope.kind, &key, touched);
                    }
                }
            }
            Told::Failed(error @ (CallError::Forbidden(_) | CallError::Unauthorized(_))) if !progress.complete => {
                if progress.refused.is_none() {
                    touched.scope = Some(scope.clone());
                }
                progress.refused = Some(format!("cannot watch {}: {error}", scope.kind.resource()));
            }
            Told::Failed(_) | Told::Is(_) | Told::Gone(_) => {}
        }
    }

    /// The keys of everything that is known in `scope`.
    fn known(&self, scope: &Scope) -> Vec<ObjectKey> {
        let here = |key: &&ObjectKey| key.namespace == scope.namespace;
        match scope.kind {
            SourceKind::Services => self.services.keys().filter(here).cloned().collect(),
            SourceKind::Slices => self.slice_service.keys().filter(here).cloned().collect(),
            SourceKind::Pods => self
                .pods
                .get(&scope.namespace)
                .into_iter()
                .flat_map(|pods| pods.values().map(|pod| pod.key.clone()))
                .collect(),
        }
    }

    fn drop_one(&mut self, kind: SourceKind, key: &ObjectKey, touched: &mut Touched) {
        match kind {
            SourceKind::Services => self.drop_service(key, touched),
            SourceKind::Slices => self.drop_slice(key, touched),
            SourceKind::Pods => self.drop_pod(key, touched),
        }
    }

    /// Nobody refers to `scope` any more: what is known of it would only grow old.
    fn forget(&mut self, scope: &Scope) {
        let mut touched = Touched::default();
        for key in self.known(scope) {
            self.drop_one(scope.kind, &key, &mut touched);
        }
        self.progress.remove(scope);
    }
}

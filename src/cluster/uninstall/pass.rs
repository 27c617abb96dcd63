//! One look at everything that gates write to: page by page, what is known to be gated first, and several writes at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::Pod,
        discovery::v1::{EndpointConditions, EndpointSlice},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;

use super::{Checks, Release, Report, WRITES};
use crate::{
    check::{ObjectKey, Text},
    cluster::{
        client::{CallError, Pages, call},
        gates::{
            bearing_pod, release_pod, said_by,
            slice::{MANAGED_BY, MANAGER, Owned},
            write::{GateKey, GateWrite, send_pod},
        },
        index::facts::PodFacts,
        patch::FIELD_MANAGER,
    },
};

/// Up to so many namespaces are looked at one by one: where there are more, one list of everything is sooner through.
const FEW: usize = 50;

/// Of a HealthCheck the objects that one of its gates writes to, and how many endpoints each of them has.
pub type Tally = BTreeMap<(ObjectKey, String), BTreeMap<String, u32>>;

/// What is known from one pass to the next.
#[derive(Default)]
pub struct Sweep {
    /// Namespaces where there is a gate, or something of ours was found.
    known: BTreeSet<String>,
    /// Everything has been looked at once: what is found from then on is in known namespaces, where replicas write.
    everywhere: bool,
    /// The longest that an answer took.
    pub slowest: Duration,
    pub tally: Tally,
}

impl Sweep {
    /// `slowest` is the longest that an answer took so far.
    pub fn new(slowest: Duration) -> Self {
        Self { slowest, ..Self::default() }
    }
}

/// One look at everything.
#[derive(Default)]
pub struct Pass {
    pub wrote: bool,
    /// Something failed that may succeed the next time.
    pub again: bool,
    pub left: Vec<String>,
    /// Namespaces where something could not be written.
    failed_in: BTreeSet<String>,
    /// Something could not even be looked at.
    blind: bool,
}

impl Pass {
    /// Whether everything of `namespace` is let go.
    pub fn is_done(&self, namespace: &str) -> bool {
        !self.blind && !self.failed_in.contains(namespace)
    }

    /// It was not looked at everything within the time.
    pub fn cut_short(&mut self, within: Duration) {
        self.blind = true;
        self.left.push(format!("whatever could not be looked at within {within:?}"));
    }

    pub fn unlisted(&mut self, what: &str, error: &CallError) {
        self.blind = true;
        self.failed(&format!("{what}, which cannot be listed"), error);
    }

    pub fn unwritten(&mut self, what: &str, of: &ObjectKey, error: &CallError) {
        if !matches!(error, CallError::NotFound(_)) {
            self.failed_in.insert(of.namespace.to_string());
        }
        self.failed(&format!("{what} {of}"), error);
    }

    fn failed(&mut self, what: &str, error: &CallError) {
        self.again |= error.is_outage() || matches!(error, CallError::Conflict(_));
        // What is gone holds nothing.
        if !matches!(error, CallError::NotFound(_)) {
            self.left.push(format!("{what}: {error}"));
        }
    }
}

/// What a look works with.
struct Look<'a> {
    client: &'a Client,
    release: &'a Release,
    checks: Checks,
    sweep: &'a mut Sweep,
    report: &'a mut Report,
    pass: &'a mut Pass,
}

/// Looks at everything, and writes what has to be written.
pub async fn look(client: &Client, release: &Release, sweep: &mut Sweep, report: &mut Report, pass: &mut Pass) {
    let sent = Instant::now();
    let checks = match Checks::list(client, &release.selection).await {
        Ok(checks) => checks,
        // All of them are ours: it only takes longer.
        Err(_) if release.selection.labels.is_none() => Checks::default(),
        Err(error) => return pass.unlisted("HealthChecks", &error),
    };
    sweep.slowest = sweep.slowest.max(sent.elapsed());
    let watched = &release.selection.namespaces;
    let is_watched = |namespace: &&String| watched.is_empty() || watched.contains(*namespace);
    sweep.known.extend(checks.gated.iter().filter(is_watched).cloned());
    let few = sweep.known.len() <= FEW;
    let known: Vec<_> = sweep.known.iter().filter(|_| few).cloned().collect();
    let everywhere = sweep.everywhere && few;
    let mut look = Look { client, release, checks, sweep, report, pass };
    for namespace in known {
        look.at(&[Api::namespaced(client.clone(), &namespace)], &[Api::namespaced(client.clone(), &namespace)]).await;
    }
    if !everywhere {
        let listed = look.at(&release.selection.apis(client), &release.selection.apis(client)).await;
        look.sweep.everywhere = listed;
    }
}

impl Look<'_> {
    /// Whether everything there could be listed.
    async fn at(&mut self, slices: &[Api<EndpointSlice>], pods: &[Api<Pod>]) -> bool {
        let mut listed = true;
        if self.release.features.endpoint_slices {
            for api in slices {
                let done = self.slices(api).await;
                listed &= self.listed("EndpointSlices", done);
            }
        }
        if self.release.features.pod_readiness {
            for api in pods {
                let done = self.pods(api).await;
                listed &= self.listed("pods", done);
            }
        }
        listed
    }

    fn listed(&mut self, what: &str, done: Result<(), CallError>) -> bool {
        if let Err(error) = &done {
            self.pass.unlisted(what, error);
        }
        done.is_ok()
    }

    async fn page<K>(&mut self, pages: &mut Pages<'_, K>) -> Result<Option<Vec<K>>, CallError>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let sent = Instant::now();
        let page = pages.next().await;
        self.sweep.slowest = self.sweep.slowest.max(sent.elapsed());
        page
    }

    /// Publishes every endpoint of the slices of ours as ready.
    async fn slices(&mut self, api: &Api<EndpointSlice>) -> Result<(), CallError> {
        let mut pages = Pages::new(api, ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}")));
        while let Some(page) = self.page(&mut pages).await? {
            let client = self.client;
            let mut writes = vec![];
            for slice in page {
                let owned = Owned::of(&slice);
                let owner = owned.as_ref().and_then(|owned| owned.owner.as_ref()).map(|owner| owner.name.clone());
                let key = ObjectKey::new(&slice.namespace().unwrap_or_default(), &slice.name_any());
                if !self.checks.own(&key.namespace, owner.as_deref()) {
                    continue;
                }
                if let (Some(owner), Some(owned)) = (&owner, &owned) {
                    let count = u32::try_from(slice.endpoints.len()).unwrap_or(u32::MAX);
                    self.found(&key, owner, &owned.gate, count);
                }
                writes.push(async move { (key, publish(client, slice).await) });
            }
            let mut ended = stream::iter(writes).buffer_unordered(WRITES);
            while let Some((key, result)) = ended.next().await {
                match result {
                    Ok(false) => {}
                    Ok(true) => {
                        self.pass.wrote = true;
                        self.report.slices.insert(key.to_string());
                    }
                    Err(error) => self.pass.unwritten("EndpointSlice", &key, &error),
                }
            }
        }
        Ok(())
    }

    /// Sets the conditions of ours True.
    async fn pods(&mut self, api: &Api<Pod>) -> Result<(), CallError> {
        let mut pages = Pages::new(api, ListParams::default());
        while let Some(page) = self.page(&mut pages).await? {
            let client = self.client;
            let mut writes = vec![];
            for (pod, facts) in page.iter().filter_map(|pod| Some((pod, bearing_pod(pod)?))) {
                if facts.ends {
                    continue;
                }
                let kinds = self.held(&facts);
                if !kinds.is_empty() && facts.readiness.as_ref().is_some_and(|each| !each.gates.is_empty()) {
                    self.report.waiting.insert(maker(pod, &facts.key));
                }
                let pod = facts;
                if !kinds.is_empty() {
                    writes.push(release_conditions(client, pod, kinds));
                }
            }
            let mut ended = stream::iter(writes).buffer_unordered(WRITES);
            while let Some(released) = ended.next().await {
                self.pass.wrote |= released.wrote;
                if released.wrote {
                    self.report.pods.insert(released.pod.to_string());
                }
                for (kind, error) in released.failed {
                    self.pass.unwritten(&format!("condition {kind} of pod"), &released.pod, &error);
                }
            }
        }
        Ok(())
    }

    /// The conditions of `pod` that are ours to let go.
    fn held(&mut self, pod: &PodFacts) -> Vec<Text> {
        let mut kinds = vec![];
        for condition in pod.readiness.iter().flat_map(|each| &each.conditions) {
            let said = said_by(&condition.message);
            if self.checks.own(&pod.key.namespace, said.map(|(check, _)| check)) {
                kinds.push(condition.kind.clone());
            }
            if let Some((check, gate)) = said {
                self.found(&pod.key, check, gate, 1);
            }
        }
        kinds
    }

    fn found(&mut self, object: &ObjectKey, check: &str, gate: &str, endpoints: u32) {
        self.sweep.known.insert(object.namespace.to_string());
        let gate = (ObjectKey::new(&object.namespace, check), gate.to_owned());
        self.sweep.tally.entry(gate).or_default().insert(object.name.to_string(), endpoints);
    }
}

/// What makes pods like this one: each that it makes from now on waits for its condition.
fn maker(pod: &Pod, key: &ObjectKey) -> String {
    let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    match owner {
        Some(owner) => format!("{} {}/{}", owner.kind, key.namespace, owner.name),
        None => format!("Pod {key}"),
    }
}

/// Whether anything had to be written.
async fn publish(client: &Client, mut slice: EndpointSlice) -> Result<bool, CallError> {
    let ready = EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
    if slice.endpoints.iter().all(|endpoint| endpoint.conditions.as_ref() == Some(&ready)) {
        return Ok(false);
    }
    for endpoint in &mut slice.endpoints {
        endpoint.conditions = Some(ready.clone());
    }
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &slice.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"resourceVersion": slice.resource_version()}, "endpoints": slice.endpoints});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    call(api.patch(&slice.name_any(), &params, &Patch::Merge(&patch))).await?;
    Ok(true)
}

/// What became of one pod.
struct Released {
    pod: ObjectKey,
    wrote: bool,
    failed: Vec<(Text, CallError)>,
}

/// One condition after the other: each write makes another version of the pod.
async fn release_conditions(client: &Client, mut pod: PodFacts, kinds: Vec<Text>) -> Released {
    let mut released = Released { pod: pod.key.clone(), wrote: false, failed: vec![] };
    for kind in kinds {
        let Some((GateKey::Pod(key, kind), GateWrite::Pod(write))) = release_pod(&pod, &kind) else { continue };
        match send_pod(client, &key, &kind, &write).await {
            Ok(now_there) => {
                released.wrote = true;
                pod = now_there;
            }
            Err(error) => released.failed.push((kind, error)),
        }
    }
    released
}

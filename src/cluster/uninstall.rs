//! What is done before the operator goes: no gate acts any more, and whatever one held is let go.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::Pod,
    discovery::v1::{EndpointConditions, EndpointSlice},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PartialObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    checks::Selection,
    client::{CALL_DEADLINE, CallError, call},
    gates::{
        Features, find_pods_in, release_pod, said_by,
        slice::{MANAGED_BY, MANAGER, Owned},
        write::{GateKey, GateWrite, send_pod},
    },
    index::facts::PodFacts,
    lease::{LOOK, installation, release_marker},
    patch::FIELD_MANAGER,
};
use crate::{api::HealthCheck, check::ObjectKey};

/// How many objects are read at once.
const PAGE: u32 = 250;
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_secs(1);
/// After this no replica writes what it decided before it saw the marker: it has looked, and its last write has ended.
const SEEN: Duration = LOOK.saturating_add(CALL_DEADLINE);
/// After this every replica that reaches the API server has seen the marker: it has looked, with some time for the answer.
const HEEDED: Duration = LOOK.saturating_add(Duration::from_secs(1));
/// The marker where nobody says which installation this is.
const UNNAMED: &str = "released";

/// What is to be released.
#[derive(Clone, Debug)]
pub struct Release {
    /// The namespace of the Lease.
    pub namespace: String,
    pub lease: String,
    pub selection: Selection,
    /// What the operator was allowed to do.
    pub features: Features,
    /// How long it may take.
    pub within: Duration,
}

/// What was done, and what was not.
#[derive(Debug, Default)]
pub struct Report {
    pub marked: bool,
    pub slices: BTreeSet<String>,
    pub pods: BTreeSet<String>,
    /// For people.
    pub left: Vec<String>,
}

/// One look at everything.
#[derive(Default)]
struct Pass {
    wrote: bool,
    /// Something failed that may succeed the next time.
    again: bool,
    left: Vec<String>,
}

impl Pass {
    fn failed(&mut self, what: &str, error: &CallError) {
        self.again |= error.is_outage() || matches!(error, CallError::Conflict(_));
        // What is gone holds nothing.
        if !matches!(error, CallError::NotFound(_)) {
            self.left.push(format!("{what}: {error}"));
        }
    }
}

/// Sets the release marker, publishes every endpoint of our slices as ready and sets our conditions on pods True. Goes
/// on until nothing is left to be done and no replica can undo it any more, or the time is over.
pub async fn release(client: &Client, release: &Release) -> Report {
    let deadline = Instant::now() + release.within;
    let mut report = Report::default();
    while let Err(error) = mark(client, release).await {
        if !(error.is_outage() || matches!(error, CallError::Conflict(_))) || Instant::now() + PAUSE >= deadline {
            let lease = format!("{}/{}", release.namespace, release.lease);
            report.left.push(format!("release marker on lease {lease}, so that a replica may gate again: {error}"));
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    report.marked = report.left.is_empty();
    let since = Instant::now();
    if report.marked {
        // Who has not seen the marker yet would take back what is released, and so on in turn.
        tokio::time::sleep_until(deadline.min(since + HEEDED)).await;
    }
    loop {
        let mut pass = Pass::default();
        let whole = tokio::time::timeout_at(deadline, look(client, release, &mut report, &mut pass)).await.is_ok();
        let done = whole && !pass.wrote && !pass.again && (!report.marked || since.elapsed() >= SEEN);
        if done || Instant::now() + PAUSE >= deadline {
            report.left.append(&mut pass.left);
            if !whole {
                report.left.push(format!("whatever could not be looked at within {:?}", release.within));
            }
            return report;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Sets the marker on the Lease, which is made where there is none: a replica may be about to start.
async fn mark(client: &Client, release: &Release) -> Result<(), CallError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), &release.namespace);
    let marker = installation(&leases, &release.lease).await?.unwrap_or_else(|| UNNAMED.to_owned());
    let annotation = (release_marker(), marker);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match call(leases.get_opt(&release.lease)).await? {
        Some(mut lease) => {
            let (key, value) = annotation;
            if lease.annotations().get(&key) == Some(&value) {
                return Ok(());
            }
            lease.annotations_mut().insert(key, value);
            call(leases.replace(&release.lease, &params, &lease)).await?;
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(release.lease.clone()),
                annotations: Some([annotation].into()),
                ..ObjectMeta::default()
            };
            call(leases.create(&params, &Lease { metadata, spec: None })).await?;
        }
    }
    Ok(())
}

/// The HealthChecks that are ours, where not all of a namespace are: what another release holds is none of our business.
type Ours = Option<BTreeSet<ObjectKey>>;

async fn ours(client: &Client, release: &Release) -> Result<Ours, CallError> {
    let Some(labels) = &release.selection.labels else { return Ok(None) };
    let mut found = BTreeSet::new();
    for api in release.selection.apis::<HealthCheck>(client) {
        let mut page = ListParams::default().labels(labels).limit(PAGE);
        loop {
            let list = call(api.list_metadata(&page)).await?;
            let key = |object: &PartialObjectMeta<HealthCheck>| {
                ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
            };
            found.extend(list.items.iter().map(key));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
    }
    Ok(Some(found))
}

fn is_ours(ours: &Ours, namespace: &str, name: Option<&str>) -> bool {
    match (ours, name) {
        (None, _) => true,
        (Some(ours), Some(name)) => ours.contains(&ObjectKey::new(namespace, name)),
        (Some(_), None) => false,
    }
}

async fn look(client: &Client, release: &Release, report: &mut Report, pass: &mut Pass) {
    let ours = match ours(client, release).await {
        Ok(ours) => ours,
        Err(error) => return pass.failed("HealthChecks, which cannot be listed", &error),
    };
    if release.features.endpoint_slices {
        for api in release.selection.apis::<EndpointSlice>(client) {
            if let Err(error) = publish_all(client, &api, &ours, report, pass).await {
                pass.failed("EndpointSlices, which cannot be listed", &error);
            }
        }
    }
    if release.features.pod_readiness {
        for api in release.selection.apis::<Pod>(client) {
            let mut pods = vec![];
            if let Err(error) = find_pods_in(&api, &mut pods).await {
                pass.failed("pods, which cannot be listed", &error);
            }
            for pod in pods.into_iter().filter(|pod| !pod.ends) {
                release_conditions(client, pod, &ours, report, pass).await;
            }
        }
    }
}

/// Publishes every endpoint of the slices of ours as ready.
async fn publish_all(
    client: &Client,
    api: &Api<EndpointSlice>,
    ours: &Ours,
    report: &mut Report,
    pass: &mut Pass,
) -> Result<(), CallError> {
    let mut page = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}")).limit(PAGE);
    loop {
        let list = call(api.list(&page)).await?;
        for slice in list.items {
            let owner = Owned::of(&slice).and_then(|owned| owned.owner);
            let namespace = slice.namespace().unwrap_or_default();
            if !is_ours(ours, &namespace, owner.as_ref().map(|owner| &*owner.name)) {
                continue;
            }
            let name = format!("{namespace}/{}", slice.name_any());
            match publish(client, slice).await {
                Ok(false) => {}
                Ok(true) => {
                    pass.wrote = true;
                    report.slices.insert(name);
                }
                Err(error) => pass.failed(&format!("EndpointSlice {name}"), &error),
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(()),
        }
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

async fn release_conditions(client: &Client, mut pod: PodFacts, ours: &Ours, report: &mut Report, pass: &mut Pass) {
    let conditions = pod.readiness.iter().flat_map(|each| &each.conditions);
    let held = conditions.filter(|condition| is_ours(ours, &pod.key.namespace, said_by(&condition.message)));
    let kinds: Vec<_> = held.map(|condition| condition.kind.clone()).collect();
    for kind in kinds {
        let Some((GateKey::Pod(key, kind), GateWrite::Pod(write))) = release_pod(&pod, &kind) else { continue };
        match send_pod(client, &key, &kind, &write).await {
            Ok(now_there) => {
                pass.wrote = true;
                report.pods.insert(key.to_string());
                pod = now_there;
            }
            Err(error) => pass.failed(&format!("condition {kind} of pod {key}"), &error),
        }
    }
}

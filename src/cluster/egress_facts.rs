//! What only the cluster knows of the addresses that are never probed: the API server's, the nodes', our own pods'.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    client::{CallError, call},
    watch::{Told, watch},
};
use crate::{
    probe::{DeniedDynamic, EgressGuard},
    server::Readiness,
    telemetry::Metrics,
};

/// How often the API server's own endpoints are read.
const API_SERVERS: Duration = Duration::from_secs(60);
/// How soon what could not be read is asked for again.
const RETRY: Duration = Duration::from_secs(3);
/// How long probing waits for the first answers: an operator that never begins protects nobody.
const PATIENCE: Duration = Duration::from_secs(10);
/// The labels by which the pods of one release know each other (`chart.md`).
const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

enum Fact {
    Node(Told<(String, Vec<IpAddr>)>),
    Pod(Told<(String, Vec<IpAddr>)>),
    Servers(Result<HashSet<SocketAddr>, CallError>),
    /// The labels of our release.
    Own(Result<Option<String>, CallError>),
}

/// Where our own pods are.
#[derive(Clone, Debug)]
pub struct OwnPods {
    pub namespace: String,
    pub pod: String,
}

/// The addresses of one kind of object, by name.
#[derive(Debug, Default)]
struct Addresses {
    by_name: HashMap<String, Vec<IpAddr>>,
    listed: Option<HashSet<String>>,
}

impl Addresses {
    fn take(&mut self, told: Told<(String, Vec<IpAddr>)>) {
        match told {
            Told::Begin => self.listed = Some(HashSet::new()),
            Told::Is((name, addresses)) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.by_name.insert(name, addresses);
            }
            Told::Gone((name, _)) => {
                self.by_name.remove(&name);
            }
            Told::Complete => {
                if let Some(listed) = self.listed.take() {
                    self.by_name.retain(|name, _| listed.contains(name));
                }
            }
            Told::Failed(_) => {}
        }
    }

    fn all(&self) -> HashSet<IpAddr> {
        self.by_name.values().flatten().copied().collect()
    }
}

/// What keeps a guard up to date.
pub struct Parts {
    pub client: Client,
    pub cluster_url: http::Uri,
    pub own: Option<OwnPods>,
    pub guard: Arc<EgressGuard>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Cancelled when the guard knows all there is to know, or has waited long enough: nothing is to be probed before.
    pub known: CancellationToken,
}

/// How far the first answer to a question is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Awaited,
    Given,
    /// We may not ask, and said so.
    Refused,
}

struct Keeper {
    parts: Parts,
    sender: mpsc::Sender<Fact>,
    tasks: JoinSet<()>,
    servers: HashSet<SocketAddr>,
    nodes: Addresses,
    pods: Addresses,
    servers_answer: Answer,
    nodes_answer: Answer,
    pods_answer: Answer,
    /// When the API server's endpoints are read next; `None` while they are being read.
    servers_due: Option<Instant>,
    /// Our own pod is being read.
    reading_own: bool,
}

/// Keeps the guard of `parts` up to date until `stop`.
pub async fn keep(parts: Parts, stop: CancellationToken) {
    let (sender, mut facts) = mpsc::channel(64);
    parts.readiness.not_ready("egress", "the addresses that must not be probed are being looked up");
    let mut keeper = Keeper::new(parts, sender);
    let mut again = tokio::time::interval(RETRY);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = tokio::time::sleep(PATIENCE);
    let mut patience = std::pin::pin!(patience);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => keeper.ask(),
            fact = facts.recv() => match fact {
                Some(fact) => keeper.take(fact),
                None => return,
            },
            () = &mut patience, if !keeper.parts.known.is_cancelled() => keeper.give_up_waiting(),
        }
    }
}

impl Keeper {
    fn new(parts: Parts, sender: mpsc::Sender<Fact>) -> Self {
        let mut tasks = JoinSet::new();
        let nodes: Api<Node> = Api::all(parts.client.clone());
        let keep = |node| Some(node_addresses(&node));
        tasks.spawn(watch("nodes", nodes, None, parts.metrics.clone(), keep, Fact::Node, sender.clone()));
        Self {
            servers: without_asking(&parts.cluster_url),
            pods_answer: if parts.own.is_some() { Answer::Awaited } else { Answer::Given },
            parts,
            sender,
            tasks,
            nodes: Addresses::default(),
            pods: Addresses::default(),
            servers_answer: Answer::Awaited,
            nodes_answer: Answer::Awaited,
            servers_due: Some(Instant::now()),
            reading_own: false,
        }
    }

    /// Asks what is due.
    fn ask(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.servers_due.is_some_and(|due| due <= Instant::now()) {
            self.servers_due = None;
            let (client, sender) = (self.parts.client.clone(), self.sender.clone());
            self.tasks.spawn(async move {
                let _ = sender.send(Fact::Servers(api_servers(&client).await)).await;
            });
        }
        if let Some(own) = self.parts.own.clone()
            && !std::mem::replace(&mut self.reading_own, true)
        {
            let (client, sender) = (self.parts.client.clone(), self.sender.clone());
            self.tasks.spawn(async move {
                let _ = sender.send(Fact::Own(release_labels(&client, &own).await)).await;
            });
        }
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Node(told) => {
                let lost = "the kubelet ports of nodes are not protected from probes; grant list and watch on nodes";
                note(&mut self.nodes_answer, &told, lost);
                self.nodes.take(told);
            }
            Fact::Pod(told) => {
                let lost = "the operator's own pods are not protected from probes; grant list and watch on pods in its namespace";
                note(&mut self.pods_answer, &told, lost);
                self.pods.take(told);
            }
            Fact::Servers(Ok(found)) => {
                self.servers = without_asking(&self.parts.cluster_url);
                self.servers.extend(found);
                self.servers_answer = Answer::Given;
                self.servers_due = Some(Instant::now() + API_SERVERS);
            }
            Fact::Servers(Err(error)) => {
                let lost = "the API server's own addresses are not protected from probes; grant list on endpointslices in the namespace default";
                refused(&mut self.servers_answer, &error, lost);
                self.servers_due = Some(Instant::now() + RETRY);
            }
            Fact::Own(Ok(labels)) => self.watch_own(labels),
            Fact::Own(Err(error)) => {
                let lost = "the operator's own pods are not protected from probes; grant get, list and watch on pods in its namespace";
                refused(&mut self.pods_answer, &error, lost);
                self.reading_own = false;
            }
        }
        self.parts.guard.update(DeniedDynamic {
            api_servers: self.servers.clone(),
            nodes: self.nodes.all(),
            own_pods: self.pods.all(),
        });
        if self.awaited().is_empty() {
            self.become_known();
        }
    }

    fn watch_own(&mut self, labels: Option<String>) {
        let Some(place) = self.parts.own.take() else { return };
        let Some(labels) = labels else {
            // Not in a pod after all, or not one of a release.
            self.pods_answer = Answer::Given;
            return;
        };
        let api: Api<Pod> = Api::namespaced(self.parts.client.clone(), &place.namespace);
        let keep = |pod: Pod| Some(pod_addresses(&pod));
        let (metrics, sender) = (self.parts.metrics.clone(), self.sender.clone());
        self.tasks.spawn(watch("pods", api, Some(labels), metrics, keep, Fact::Pod, sender));
    }

    /// What was not answered even once.
    fn awaited(&self) -> Vec<&'static str> {
        let answers =
            [("API servers", self.servers_answer), ("nodes", self.nodes_answer), ("own pods", self.pods_answer)];
        answers.into_iter().filter(|(_, answer)| *answer == Answer::Awaited).map(|(name, _)| name).collect()
    }

    fn give_up_waiting(&self) {
        tracing::warn!(
            unknown = self.awaited().join(", "),
            "not all addresses that must not be probed are known after {PATIENCE:?}; probing without them until they are"
        );
        self.become_known();
    }

    fn become_known(&self) {
        if !self.parts.known.is_cancelled() {
            self.parts.readiness.ready("egress");
            self.parts.known.cancel();
        }
    }
}

/// Takes in how the watch of a kind fares.
fn note<T>(answer: &mut Answer, told: &Told<T>, lost: &str) {
    match told {
        Told::Complete => *answer = Answer::Given,
        Told::Failed(error) => refused(answer, error, lost),
        Told::Begin | Told::Is(_) | Told::Gone(_) => {}
    }
}

/// Says once what is `lost` by a refusal. Any other failure is waited for.
fn refused(answer: &mut Answer, error: &CallError, lost: &str) {
    match error {
        CallError::Forbidden(_) if *answer == Answer::Refused => {}
        CallError::Forbidden(_) => {
            *answer = Answer::Refused;
            tracing::warn!(%error, "{lost}");
        }
        _ => tracing::debug!(%error, "addresses that must not be probed cannot be read; trying again"),
    }
}

fn node_addresses(node: &Node) -> (String, Vec<IpAddr>) {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let addresses = addresses.filter_map(|address| address.address.parse().ok());
    // The node's own end of the network of its pods, where a bridge joins them: the kubelet listens there too.
    let ranges = node.spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr));
    let gateways = ranges.filter_map(|range| first_address(range.parse().ok()?));
    (node.name_any(), addresses.chain(gateways).collect())
}

/// The one after the address of the network itself; `None` where `range` is too narrow to have one.
fn first_address(range: IpNet) -> Option<IpAddr> {
    let first = match range.network() {
        IpAddr::V4(network) => IpAddr::V4(network.to_bits().checked_add(1)?.into()),
        IpAddr::V6(network) => IpAddr::V6(network.to_bits().checked_add(1)?.into()),
    };
    range.contains(&first).then_some(first)
}

fn pod_addresses(pod: &Pod) -> (String, Vec<IpAddr>) {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    (pod.name_any(), addresses.filter_map(|address| address.ip.parse().ok()).collect())
}

/// The labels that all pods of our release bear; `None` where there is no such pod.
async fn release_labels(client: &Client, own: &OwnPods) -> Result<Option<String>, CallError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &own.namespace);
    let pod = call(api.get_opt(&own.pod)).await?;
    let labels: BTreeMap<String, String> = pod.map(|pod| pod.labels().clone()).unwrap_or_default();
    let pair = |name: &str| labels.get(name).map(|value| format!("{name}={value}"));
    Ok(pair(NAME_LABEL).zip(pair(INSTANCE_LABEL)).map(|(name, instance)| format!("{name},{instance}")))
}

/// The API server as pods reach it and as we reach it: known, and denied, before anybody is asked.
#[must_use]
pub fn without_asking(cluster_url: &http::Uri) -> HashSet<SocketAddr> {
    let mut servers = HashSet::new();
    let host = env::var("KUBERNETES_SERVICE_HOST").ok().and_then(|host| host.parse::<IpAddr>().ok());
    if let Some(host) = host {
        let ports = [env::var("KUBERNETES_SERVICE_PORT").ok(), env::var("KUBERNETES_SERVICE_PORT_HTTPS").ok()];
        servers.extend(ports.into_iter().flatten().filter_map(|port| Some(SocketAddr::new(host, port.parse().ok()?))));
    }
    let ours = cluster_url.host().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if let Some(ours) = ours {
        servers.insert(SocketAddr::new(ours, cluster_url.port_u16().unwrap_or(443)));
    }
    servers
}

/// The API server behind its Service.
async fn api_servers(client: &Client) -> Result<HashSet<SocketAddr>, CallError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let labels = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let mut servers = published(client).await;
    for slice in call(api.list(&labels)).await? {
        let ports: Vec<_> = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
        for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            servers.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
        }
    }
    Ok(servers)
}

/// The Service of the API server, which our environment may give as a name. Whoever may not read it goes without.
async fn published(client: &Client) -> HashSet<SocketAddr> {
    let api: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = match call(api.list(&ListParams::default().fields("metadata.name=kubernetes"))).await {
        Ok(services) => services.items.into_iter().find_map(|service| service.spec),
        Err(error) => {
            tracing::debug!(%error, "the Service of the API server cannot be read");
            None
        }
    };
    service.iter().flat_map(service_addresses).collect()
}

fn service_addresses(service: &ServiceSpec) -> impl Iterator<Item = SocketAddr> {
    let addresses = service.cluster_ips.iter().flatten().chain(&service.cluster_ip);
    let ports: Vec<_> = service.ports.iter().flatten().filter_map(|port| u16::try_from(port.port).ok()).collect();
    let addresses = addresses.filter_map(|address| address.parse().ok());
    addresses.flat_map(move |address: IpAddr| ports.clone().into_iter().map(move |port| SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A keeper whose API server gives every request this answer, or none.
    fn parts(status: Option<StatusCode>) -> Parts {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let Some(status) = status else { return std::future::pending().await };
            let body = if status == StatusCode::OK {
                let kind = match request.uri().path().rsplit('/').next() {
                    Some("nodes") => "NodeList",
                    Some("services") => "ServiceList",
                    _ => "EndpointSliceList",
                };
                let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}});
                let items = if kind == "NodeList" { vec![node] } else { vec![] };
                json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
            } else {
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no",
                    "reason": "x", "code": status.as_u16()})
            };
            let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
            Ok::<_, tower::BoxError>(response.expect("valid"))
        });
        let cluster_url = http::Uri::from_static("https://192.0.2.1:6443");
        let denied = DeniedDynamic { api_servers: without_asking(&cluster_url), ..DeniedDynamic::default() };
        Parts {
            client: Client::new(service, "default"),
            cluster_url,
            own: None,
            guard: Arc::new(EgressGuard::cluster(denied, vec![])),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            known: CancellationToken::new(),
        }
    }

    fn denies(guard: &EgressGuard, address: &str) -> bool {
        guard.check(address.parse().expect("an address")).is_err()
    }

    /// Runs a keeper until it lets probing begin; how long that took.
    async fn wait(status: Option<StatusCode>) -> (Arc<EgressGuard>, Duration) {
        let parts = parts(status);
        let (guard, known, stop) = (parts.guard.clone(), parts.known.clone(), CancellationToken::new());
        assert!(denies(&guard, "192.0.2.1:6443"), "denied before anybody was asked");
        let begun = Instant::now();
        let keeper = tokio::spawn(keep(parts, stop.clone()));
        known.cancelled().await;
        let took = begun.elapsed();
        stop.cancel();
        keeper.await.expect("no panic");
        assert!(denies(&guard, "192.0.2.1:6443"));
        (guard, took)
    }

    #[tokio::test(start_paused = true)]
    async fn probing_waits_for_the_first_answers() {
        let (guard, took) = wait(Some(StatusCode::OK)).await;
        assert!(denies(&guard, "192.0.2.7:10250") && !denies(&guard, "192.0.2.7:80"));
        assert!(took < PATIENCE);
    }

    #[test]
    fn a_node_is_also_the_first_address_of_its_pods() {
        let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.3.0/24",
            "podCIDRs": ["10.244.3.0/24", "fd00:10:244:3::/64", "10.0.0.9/32", "what?"]}});
        let (_, addresses) = node_addresses(&serde_json::from_value(node).expect("a node"));
        let expected: HashSet<IpAddr> =
            ["10.244.3.1", "fd00:10:244:3::1"].map(|ip| ip.parse().expect("an address")).into();
        assert_eq!(addresses.into_iter().collect::<HashSet<_>>(), expected);
    }

    #[test]
    fn the_service_of_the_api_server_has_all_its_addresses() {
        let spec = json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "ports": [{"port": 443}]});
        let found: HashSet<_> = service_addresses(&serde_json::from_value(spec).expect("a Service")).collect();
        let expected = ["10.96.0.1:443", "[fd00::1]:443"].map(|address| address.parse().expect("an address"));
        assert_eq!(found, expected.into());
        let headless = json!({"clusterIP": "None", "ports": [{"port": 443}]});
        assert_eq!(service_addresses(&serde_json::from_value(headless).expect("a Service")).count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer_too() {
        let (guard, took) = wait(Some(StatusCode::FORBIDDEN)).await;
        assert!(!denies(&guard, "192.0.2.7:10250"));
        assert!(took < PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let (_, took) = wait(None).await;
        assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
    }
}

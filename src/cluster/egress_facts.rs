//! What only the cluster knows of the addresses that are never probed: the API server's, the nodes', our own pods'.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Node, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    client::call,
    watch::{Told, watch},
};
use crate::{
    probe::{DeniedDynamic, EgressGuard},
    telemetry::Metrics,
};

/// How often the API server's own endpoints are read.
const API_SERVERS: Duration = Duration::from_secs(60);
/// The labels by which the pods of one release know each other (`chart.md`).
const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

enum Fact {
    Node(Told<(String, Vec<IpAddr>)>),
    Pod(Told<(String, Vec<IpAddr>)>),
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

/// Keeps `guard` up to date until `stop`.
pub async fn keep(
    client: Client,
    cluster_url: http::Uri,
    own: Option<OwnPods>,
    guard: Arc<EgressGuard>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let (sender, mut facts) = mpsc::channel(64);
    let mut watches = tokio::task::JoinSet::new();
    let nodes: Api<Node> = Api::all(client.clone());
    watches.spawn(watch(
        "nodes",
        nodes,
        None,
        metrics.clone(),
        |node| Some(node_addresses(&node)),
        Fact::Node,
        sender.clone(),
    ));
    let mut own = own;
    let mut servers = HashSet::new();
    let (mut nodes, mut pods) = (Addresses::default(), Addresses::default());
    let mut again = tokio::time::interval(API_SERVERS);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => {
                servers = api_servers(&client, &cluster_url).await.unwrap_or(servers);
                if let Some(place) = own.take() {
                    match release_labels(&client, &place).await {
                        Ok(Some(labels)) => {
                            let api: Api<Pod> = Api::namespaced(client.clone(), &place.namespace);
                            let keep = |pod: Pod| Some(pod_addresses(&pod));
                            watches.spawn(watch("pods", api, Some(labels), metrics.clone(), keep, Fact::Pod, sender.clone()));
                        }
                        // Not in a pod after all, or not one of a release.
                        Ok(None) => {}
                        Err(()) => own = Some(place),
                    }
                }
            }
            fact = facts.recv() => match fact {
                Some(Fact::Node(told)) => nodes.take(told),
                Some(Fact::Pod(told)) => pods.take(told),
                None => return,
            }
        }
        guard.update(DeniedDynamic { api_servers: servers.clone(), nodes: nodes.all(), own_pods: pods.all() });
    }
}

fn node_addresses(node: &Node) -> (String, Vec<IpAddr>) {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    (node.name_any(), addresses.filter_map(|address| address.address.parse().ok()).collect())
}

fn pod_addresses(pod: &Pod) -> (String, Vec<IpAddr>) {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    (pod.name_any(), addresses.filter_map(|address| address.ip.parse().ok()).collect())
}

/// The labels that all pods of our release bear; `None` where there is no such pod.
async fn release_labels(client: &Client, own: &OwnPods) -> Result<Option<String>, ()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &own.namespace);
    let pod = call(api.get_opt(&own.pod)).await.map_err(|error| {
        tracing::debug!(%error, "own pod cannot be read yet");
    })?;
    let labels: BTreeMap<String, String> = pod.map(|pod| pod.labels().clone()).unwrap_or_default();
    let pair = |name: &str| labels.get(name).map(|value| format!("{name}={value}"));
    Ok(pair(NAME_LABEL).zip(pair(INSTANCE_LABEL)).map(|(name, instance)| format!("{name},{instance}")))
}

/// The API server as pods reach it, as we reach it, and behind its Service.
async fn api_servers(client: &Client, cluster_url: &http::Uri) -> Option<HashSet<SocketAddr>> {
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
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let labels = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    match call(api.list(&labels)).await {
        Ok(slices) => {
            for slice in slices {
                let ports: Vec<_> =
                    slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
                for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
                    let Ok(address) = address.parse::<IpAddr>() else { continue };
                    servers.extend(ports.iter().map(|port| SocketAddr::new(address, *port)));
                }
            }
            Some(servers)
        }
        Err(error) => {
            tracing::debug!(%error, "endpoints of the API server not read");
            // What is known without asking is denied from the start.
            (!servers.is_empty()).then_some(servers)
        }
    }
}

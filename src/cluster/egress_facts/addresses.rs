//! Which addresses the objects of the cluster, and our own environment, say are the API server's, a node's or a pod's.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::OwnPods;
use crate::cluster::client::{CallError, call};

/// The labels by which the pods of one release know each other (`chart.md`).
const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";

pub(super) fn node_addresses(node: &Node) -> (String, Vec<IpAddr>) {
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

pub(super) fn pod_addresses(pod: &Pod) -> (String, Vec<IpAddr>) {
    let addresses = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
    (pod.name_any(), addresses.filter_map(|address| address.ip.parse().ok()).collect())
}

/// The labels that all pods of our release bear; `None` where there is no such pod.
pub(super) async fn release_labels(client: &Client, own: &OwnPods) -> Result<Option<String>, CallError> {
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
pub(super) async fn api_servers(client: &Client) -> Result<HashSet<SocketAddr>, CallError> {
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
    use serde_json::json;

    use super::*;

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
}

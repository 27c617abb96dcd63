//! What may not be a target: the addresses that only the cluster knows.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::operator::{self, Command};
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// The kubelet's API.
const KUBELET: u16 = 10250;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("denied::the_kubelets_ports_on_a_node", kubelet),
        suite.trial("denied::the_api_server_wherever_it_is_reached", api_server),
    ]
}

/// As a stage's own, with no range allowed.
fn strict(stage: &Stage) -> anyhow::Result<Command> {
    Ok(operator::command("controller")
        .arg("--kubeconfig")
        .arg(stage.kubeconfig(None)?)
        .args(["--watch-namespace", &stage.namespace])
        .env("POD_NAME", "hco-0")
        .env("POD_NAMESPACE", &stage.namespace))
}

/// Waits until a check says that its target is not dialed, and why.
async fn wait_denied(stage: &Stage, name: &str, why: &str) -> anyhow::Result<()> {
    let denied = |check: &healthcheck_operator::api::HealthCheck| {
        condition(check, "Healthy") == "Unknown/ProbeError" && message(check, "Healthy").contains(why)
    };
    let check = stage.wait(name, &format!("{name} to be denied"), denied).await?;
    ensure!(message(&check, "Healthy").contains("--egress-allow"), "no way out: {:?}", check.status);
    let rows: Vec<_> = check.status.iter().flat_map(|status| &status.targets).map(|row| &row.reason).collect();
    ensure!(rows == [&Some("EgressDenied".to_owned())], "{:?}", check.status);
    Ok(())
}

/// A node of the test's own in the cluster that all share; gone at the end.
async fn make_node(cluster: &ControlPlane, name: &str, address: Ipv4Addr) -> anyhow::Result<Api<Node>> {
    let api: Api<Node> = Api::all(cluster.client());
    let node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    api.create(&PostParams::default(), &node).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(api)
}

async fn kubelet(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "kubelet").await?;
    let (address, later) = (fresh_address(), fresh_address());
    let [kubelet, other, third] = [(address, KUBELET), (address, free_port()), (later, KUBELET)];
    let kubelet = HttpTarget::start_on(kubelet.into()).await?;
    let other = HttpTarget::start_on(other.into()).await?;
    let third = HttpTarget::start_on(third.into()).await?;
    let nodes = make_node(&cluster, &stage.namespace, address).await?;
    let _operator = stage.serve(strict(&stage)?).await?;
    for (name, web) in [("kubelet", &kubelet), ("other", &other), ("third", &third)] {
        stage.apply(name, fast(&[target("a", web.address())])).await?;
    }
    wait_denied(&stage, "kubelet", "the kubelet port 10250 of a node is denied").await?;
    // Near misses: another port of the node, and the port where no node is.
    stage.wait_health("other", "Healthy").await?;
    stage.wait_health("third", "Healthy").await?;
    ensure!(kubelet.hits() == 0, "dialed all the same");

    // A node that joins is protected too, and what was denied for a node that has left is not.
    let joined = format!("{}-joined", stage.namespace);
    make_node(&cluster, &joined, later).await?;
    nodes.delete(&stage.namespace, &DeleteParams::default()).await?;
    stage.wait_health("kubelet", "Healthy").await?;
    wait_until("probes of the node that joined to end", SOON, || async {
        let before = third.hits();
        other.wait_hits(10, SOON).await?;
        ensure!(third.hits() == before, "still dialed");
        anyhow::Ok(())
    })
    .await?;
    ensure!(health(&stage.get("third").await?) == "Healthy", "what is not looked at is no failure");
    nodes.delete(&joined, &DeleteParams::default()).await?;
    third.wait_hits(1, SOON).await?;
    Ok(())
}

async fn api_server(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "api-server").await?;
    let (behind, told) = (fresh_address(), fresh_address());
    let endpoint = HttpTarget::start_on((behind, free_port()).into()).await?;
    let beside = HttpTarget::start_on((behind, free_port()).into()).await?;
    let from_environment = HttpTarget::start_on((told, free_port()).into()).await?;
    // A server behind default/kubernetes, as the API server writes it where it is let.
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client(), "default");
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": stage.namespace, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [behind]}],
        "ports": [{"name": "https", "port": endpoint.port(), "protocol": "TCP"}],
    }))?;
    slices.create(&PostParams::default(), &slice).await?;
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let service = services.get("kubernetes").await?.spec.and_then(|spec| spec.cluster_ip).unwrap_or_default();

    let command = strict(&stage)?
        .env("KUBERNETES_SERVICE_HOST", told.to_string())
        .env("KUBERNETES_SERVICE_PORT", from_environment.port().to_string());
    let _operator = stage.serve(command).await?;
    let host = |ip: &str, port: u16| -> Value { json!({"name": "a", "host": ip, "port": port}) };
    stage.apply("endpoint", fast(&[target("a", endpoint.address())])).await?;
    stage.apply("environment", fast(&[target("a", from_environment.address())])).await?;
    stage.apply("service", fast(&[host(&service, 443)])).await?;
    stage.apply("beside", fast(&[target("a", beside.address())])).await?;
    for (name, address) in [
        ("endpoint", endpoint.address().to_string()),
        ("environment", from_environment.address().to_string()),
        ("service", format!("{service}:443")),
    ] {
        wait_denied(&stage, name, &format!("the API server ({address}) is denied")).await?;
    }
    // A near miss: another port of the same address.
    stage.wait_health("beside", "Healthy").await?;
    beside.wait_hits(5, SOON).await?;
    ensure!(endpoint.hits() == 0 && from_environment.hits() == 0, "dialed all the same");
    slices.delete(&stage.namespace, &DeleteParams::default()).await?;
    Ok(())
}

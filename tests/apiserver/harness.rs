//! The harness itself: that its cluster is a real one and its reports are true.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::operator;
use crate::support::targets::{HttpTarget, TcpTarget};
use crate::support::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("harness::rbac_denies_a_token_until_it_is_granted", rbac),
        suite.trial("harness::kubectl_is_real", kubectl),
        suite.trial("harness::slices_come_from_the_real_controller", slices),
        suite.trial("harness::audit_log_tells_writes", audit),
        suite.trial_alone("harness::api_server_freezes_dies_and_keeps_its_data", false, stops),
        suite.trial_without("harness::targets_switch", targets),
        suite.trial_without("harness::the_binary_under_test_runs", binary),
    ]
}

/// A ConfigMap to be written by tests.
pub fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name } })).expect("a valid ConfigMap")
}

/// The HTTP status of a refusal by the API server.
pub fn refused_with<T>(answer: Result<T, kube::Error>) -> anyhow::Result<u16> {
    match answer {
        Ok(_) => bail!("answered, though it should have been refused"),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error).context("no answer of the API server's"),
    }
}

async fn rbac(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("rbac").await?;
    let token = cluster.service_account(&namespace, "reader").await?;
    let pods: Api<Pod> = Api::namespaced(cluster.client_as(&token).await?, &namespace);
    let answer = refused_with(pods.list(&ListParams::default()).await)?;
    ensure!(answer == 403, "a token without rights got {answer}");
    let rule: PolicyRule =
        serde_json::from_value(json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }))?;
    cluster.grant(&namespace, "reader", vec![rule]).await?;
    wait_until("the grant to hold", SOON, async || pods.list(&ListParams::default()).await).await?;
    let answer = refused_with(pods.get("any").await)?;
    ensure!(answer == 403, "a verb that was not granted got {answer}");
    Ok(())
}

async fn kubectl(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let nodes = cluster.kubectl_ok(&["get", "nodes", "--output=name"]).await?;
    ensure!(nodes == "node/node-1\n", "{nodes:?}");
    let missing = cluster.kubectl(&["get", "node", "node-2"]).await?;
    let said = String::from_utf8_lossy(&missing.stderr);
    ensure!(missing.status.code() == Some(1), "{missing:?}");
    ensure!(said.contains("nodes \"node-2\" not found"), "{said}");
    Ok(())
}

async fn slices(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("slices").await?;
    cluster.service(&namespace, "web", json!({ "name": "http", "port": 80, "targetPort": 8080 })).await?;
    let (one, two) = (IpAddr::from(fresh_address()), IpAddr::from(fresh_address()));
    cluster.pod(&namespace, "one", "web", one, true).await?;
    cluster.pod(&namespace, "two", "web", two, false).await?;
    let slices = cluster.wait_endpoints(&namespace, "web", &[(one, true), (two, false)]).await?;
    let maker =
        slices.iter().filter_map(|slice| slice.metadata.labels.as_ref()?.get("endpointslice.kubernetes.io/managed-by"));
    ensure!(maker.eq(["endpointslice-controller.k8s.io"]), "made by somebody else: {slices:?}");
    cluster.set_pod_ready(&namespace, "two", true).await?;
    cluster.wait_endpoints(&namespace, "web", &[(one, true), (two, true)]).await?;
    cluster.delete_pod(&namespace, "one").await?;
    cluster.wait_endpoints(&namespace, "web", &[(two, true)]).await?;
    // The pod's address is one of this machine: who probes it meets a real listener.
    let target = HttpTarget::start_on((two, 8080).into()).await?;
    let answer = reqwest::get(format!("http://{two}:8080/")).await?;
    ensure!(answer.status() == 200 && target.hits() == 1, "{answer:?}");
    Ok(())
}

async fn audit(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("audit").await?;
    let token = cluster.service_account(&namespace, "writer").await?;
    cluster.bind(&namespace, "writer", "cluster-admin").await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client_as(&token).await?, &namespace);
    wait_until("the grant to hold", SOON, async || maps.list(&ListParams::default()).await).await?;
    let user = format!("system:serviceaccount:{namespace}:writer");
    let log = cluster.audit();
    let mark = log.mark()?;
    maps.create(&PostParams::default(), &config_map("written")).await?;
    maps.get("written").await?;
    refused_with(maps.create(&PostParams::default(), &config_map("written")).await)?;
    let entries = wait_until("both writes in the audit log", SOON, || {
        let seen = log.writes_by(&user, mark);
        std::future::ready(match seen {
            Ok(seen) if seen.len() == 2 => Ok(seen),
            seen => Err(format!("{seen:?}")),
        })
    })
    .await?;
    let told: Vec<_> = entries.iter().map(|entry| (entry.verb.as_str(), entry.resource.as_str(), entry.code)).collect();
    ensure!(told == [("create", "configmaps", 201), ("create", "configmaps", 409)], "{told:?}");
    ensure!(entries[0].name == "written" && entries[0].namespace == namespace, "{entries:?}");
    let read = log.since(mark)?.into_iter().filter(|entry| entry.user == user && entry.verb == "get").count();
    ensure!(read == 1, "{read} reads in the log, wanted 1");
    Ok(())
}

async fn stops(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("stops").await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), &namespace);
    maps.create(&PostParams::default(), &config_map("kept")).await?;
    let url = cluster.url();

    cluster.freeze_api_server()?;
    let asked = tokio::time::timeout(Duration::from_secs(2), maps.get("kept")).await;
    ensure!(asked.is_err(), "a frozen API server answered: {asked:?}");
    cluster.thaw_api_server()?;
    wait_until("an answer after the thaw", SOON, || maps.get("kept")).await?;

    cluster.kill_api_server()?;
    let asked = maps.get("kept").await;
    ensure!(asked.is_err(), "a dead API server answered: {asked:?}");
    cluster.restart_api_server().await?;
    ensure!(cluster.url() == url, "{} is not {url}", cluster.url());
    maps.get("kept").await.context("the data of before")?;
    Ok(())
}

async fn targets() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let url = format!("http://{}/path", target.address());
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
    ensure!(client.get(&url).send().await?.status() == 200);
    target.set_status(503);
    ensure!(client.get(&url).send().await?.status() == 503);
    ensure!(target.hits() == 2, "{} hits", target.hits());
    ensure!(target.last_request().is_some_and(|head| head.uri.path() == "/path"));
    target.set_hangs(true);
    ensure!(client.get(&url).send().await.is_err_and(|error| error.is_timeout()), "a hanging target answered");
    target.set_hangs(false);
    target.close().await;
    ensure!(client.get(&url).send().await.is_err_and(|error| error.is_connect()), "a closed target answered");
    target.reopen().await?;
    ensure!(client.get(&url).send().await?.status() == 503);

    let listener = TcpTarget::start().await?;
    let stream = tokio::net::TcpStream::connect(listener.address()).await?;
    wait_until("the connection to be counted", SOON, || {
        std::future::ready(if listener.connections() == 1 { Ok(()) } else { Err(listener.connections()) })
    })
    .await?;
    listener.close().await;
    let mut end = [0];
    let ended = tokio::io::AsyncReadExt::read(&mut { stream }, &mut end).await;
    ensure!(!matches!(ended, Ok(1..)), "a closed listener sent {end:?}");
    ensure!(tokio::net::TcpStream::connect(listener.address()).await.is_err(), "a closed listener accepted");
    Ok(())
}

async fn binary() -> anyhow::Result<()> {
    let help = operator::command("--help").run(SOON).await?;
    ensure!(help.status.success() && !help.stdout.is_empty(), "{help:?}");
    let wrong = operator::command("--no-such-flag").run(SOON).await?;
    ensure!(wrong.status.code() == Some(2), "{wrong:?}");
    ensure!(String::from_utf8(wrong.stderr)?.contains("--no-such-flag"), "the flag is not named");
    Ok(())
}

//! The harness itself: that its cluster is a real one and its reports are true.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::operator;
use crate::support::process::{Process, was_killed};
use crate::support::recorder::{Change, Recorder};
use crate::support::run_dir::sub_dir;
use crate::support::targets::{HttpTarget, TcpTarget};
use crate::support::wait::{wait_for, wait_until};

const SOON: Duration = Duration::from_secs(30);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("harness::rbac_denies_a_token_until_it_is_granted", rbac),
        suite.trial("harness::kubectl_is_real", kubectl),
        suite.trial("harness::slices_come_from_the_real_controller", slices),
        suite.trial("harness::audit_log_tells_writes", audit),
        suite.trial_alone("harness::api_server_freezes_dies_and_keeps_its_data", false, stops),
        suite.trial("harness::crds_are_accepted_and_established", crds),
        suite.trial("harness::a_recorder_sees_every_change", recorder),
        suite.trial_without("harness::programs_die_with_a_killed_test", orphans),
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

async fn crds(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    cluster.install_crds().await?;
    let served =
        cluster.kubectl_ok(&["api-resources", "--api-group=healthcheck-operator.dev", "--output=name"]).await?;
    ensure!(served.contains("healthchecks.healthcheck-operator.dev"), "{served:?}");
    Ok(())
}

async fn recorder(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("recorder").await?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), &namespace);
    let recorder = Recorder::start(maps.clone()).await?;
    let map = |value: &str| {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: flips}}, data: {{value: {value}}}}}")
    };
    for value in ["up", "down", "up", "end"] {
        cluster.apply(&namespace, &map(value)).await?;
    }
    let value = |map: &ConfigMap| map.data.clone().unwrap_or_default().remove("value").unwrap_or_default();
    recorder.wait("flips", SOON, |map| value(map) == "end").await?;
    let seen = recorder.history("flips", value)?;
    ensure!(seen == ["up", "down", "up", "end"], "{seen:?}");
    maps.delete("flips", &DeleteParams::default()).await?;
    wait_until("the end of the object to be recorded", SOON, || async {
        let changes = recorder.changes()?;
        ensure!(
            changes.iter().any(|change| matches!(change, Change::Gone(map) if map.name_any() == "flips")),
            "{changes:?}"
        );
        Ok(())
    })
    .await
}

/// Set for a copy of this binary that starts a program and waits to be killed.
pub const ORPHAN_MAKER: &str = "HEALTHCHECK_TEST_ORPHAN_MAKER";

/// The copy's part: starts a program that would run for ever, says its pid, never ends.
pub fn make_orphan() -> ! {
    let sleep = ["infinity".to_owned()];
    let log = std::env::temp_dir().join(format!("orphan-{}.log", std::process::id()));
    let process = Process::start(Path::new("/bin/sleep"), &sleep, &[], &log).expect("sleep can be started");
    let _ = std::fs::remove_file(log);
    println!("{}", process.pid().as_raw_nonzero());
    loop {
        std::thread::park();
    }
}

async fn orphans() -> anyhow::Result<()> {
    let log = sub_dir("orphans").join("maker.log");
    let env = [(ORPHAN_MAKER.to_owned(), "1".to_owned())];
    let maker = Process::start(&std::env::current_exe()?, &[], &env, &log)?;
    let pid: u32 = wait_until("the copy to say a pid", SOON, || async { maker.output().trim().parse() }).await?;
    let command = Path::new("/proc").join(pid.to_string()).join("cmdline");
    // setpriv becomes sleep a moment after the pid is known.
    let runs = || std::fs::read_to_string(&command).is_ok_and(|command| command.starts_with("/bin/sleep"));
    wait_for("the program to run", SOON, runs, |runs| *runs).await?;
    let ended = maker.kill()?;
    ensure!(was_killed(ended), "{ended:?}");
    // The command line of a process that has ended is empty, reaped or not.
    wait_for("the program to die with who started it", SOON, runs, |runs| !runs).await?;
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

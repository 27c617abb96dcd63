//! Verdict → slice, and a wave: half of all endpoints flip within one second.
//!
//! The operator logs "health changed" in the turn in which the last failure that was needed ended, with microseconds; a
//! watch of our own notes when a slice says so. Both clocks are the same machine's. Writes are counted in the API server's
//! audit log.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::seen::{follow, lock, verdicts};
use super::stage::{Stage, stop, until};
use crate::common::{
    rounds, scaled,
    stats::{percentile, sorted},
    table::Table,
};
use crate::support::{audit::Mark, netns::fresh_address, targets::HttpTarget};

const DEATHS: usize = 30;
/// As many flip; as many others do not, or it would be a correlated loss, and change nothing.
const SERVICES: usize = 10;
const ENDPOINTS: usize = 100;
const PORT: u16 = 8080;

/// How many endpoints of each slice are ready, and since when.
pub type Ready = Arc<Mutex<BTreeMap<String, (usize, Timestamp)>>>;

pub async fn measure(stage: &Stage) -> anyhow::Result<()> {
    let seen = sorted(deaths(stage, rounds(DEATHS)).await?);
    let mut table = Table::new(["from → to", "times", "p50", "p99", "max", "goal"]);
    let at = |percent| format!("{:.1} ms", percentile(&seen, percent));
    let count = seen.len().to_string();
    table.row(["last failure → slice".to_owned(), count, at(50.0), at(99.0), at(100.0), "≤ 50 ms".to_owned()]);
    table.print("How soon a gate acts (idle, one check)");
    wave(stage).await
}

/// Milliseconds from each verdict on the board to the event of the slice that follows it.
async fn deaths(stage: &Stage, deaths: usize) -> anyhow::Result<Vec<f64>> {
    let namespace = stage.cluster.namespace("gate").await?;
    let hosts = [host().await?, host().await?];
    let targets: Vec<_> = (0..).zip(&hosts).map(|(index, host)| target(index, host)).collect();
    stage.service(&namespace, "gated").await?;
    stage.create(&namespace, "gated", json!({}), spec("200ms", json!(targets), "gated")).await?;
    let operator = stage.operator(&namespace, &["--log-format", "json"])?;
    stage.ready(&operator).await?;
    let ready = watch(slices(stage, &namespace)).await?;
    let mut seen = Vec::new();
    for death in 0..deaths {
        until("both to be published", async || Ok(total(&ready) == 2)).await?;
        // So seldom that nobody takes it for flapping.
        tokio::time::sleep(Duration::from_millis(1500 + 37 * (death as u64 % 8))).await;
        hosts[0].set_status(503);
        until("one to be withheld", async || Ok(total(&ready) == 1)).await?;
        let arrived = lock(&ready).values().next().context("no slice")?.1;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let told = verdicts(&operator)?;
        let last = told.iter().rfind(|verdict| verdict.health == "Unhealthy").context("no verdict was logged")?;
        seen.push(arrived.duration_since(last.at).as_secs_f64() * 1e3);
        hosts[0].set_status(200);
    }
    stop(operator)?;
    Ok(seen)
}

async fn wave(stage: &Stage) -> anyhow::Result<()> {
    let namespace = stage.cluster.namespace("wave").await?;
    let endpoints = scaled(ENDPOINTS);
    let mut hosts = Vec::new();
    for index in 0..2 * SERVICES {
        let mut behind = Vec::new();
        for _ in 0..endpoints {
            behind.push(host().await?);
        }
        let (name, gated) = (format!("backends-{index}"), format!("gated-{index}"));
        stage.service(&namespace, &name).await?;
        stage.service(&namespace, &gated).await?;
        let slice = json!({
            "addressType": "IPv4", "ports": [{ "name": "", "port": PORT }],
            "metadata": { "name": name, "labels": {
                "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "a-benchmark",
            }},
            "endpoints": behind.iter().map(|host| json!({ "addresses": [host.ip()] })).collect::<Vec<_>>(),
        });
        slices(stage, &namespace).create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
        let target = json!([{ "name": "all", "service": { "name": name } }]);
        stage.create(&namespace, &gated, json!({}), spec("1s", target, &gated)).await?;
        hosts.push(behind);
    }
    let operator = stage.operator(&namespace, &[])?;
    stage.ready(&operator).await?;
    let ready = watch(slices(stage, &namespace)).await?;
    until("all to be published", async || Ok(total(&ready) == 2 * SERVICES * endpoints)).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;

    let mut table =
        Table::new(["wave", "endpoints", "all slices right", "slice writes", "most for one slice", "most in 1 s"]);
    for (name, status, left) in [("half go", 503, SERVICES), ("they return", 200, 2 * SERVICES)] {
        let mark = stage.cluster.audit().mark()?;
        let begun = Timestamp::now();
        hosts[..SERVICES].iter().flatten().for_each(|host| host.set_status(status));
        until(name, async || Ok(total(&ready) == left * endpoints)).await?;
        let done = lock(&ready).values().map(|(_, at)| *at).max().context("no slice")?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let writes = writes(stage, mark)?;
        table.row([
            name.to_owned(),
            (SERVICES * endpoints).to_string(),
            format!("{:.2} s", done.duration_since(begun).as_secs_f64()),
            writes.slices.values().sum::<usize>().to_string(),
            writes.slices.values().max().copied().unwrap_or(0).to_string(),
            writes.most.to_string(),
        ]);
    }
    table.print("A wave within one second (goal: ≤ 5 s, 1 write a slice, 50 writes in a second)");

    let mark = stage.cluster.audit().mark()?;
    let window = crate::common::window(60);
    tokio::time::sleep(window).await;
    let steady = writes(stage, mark)?;
    println!("writes in {} s of steady state, the Lease aside: {}\n", window.as_secs(), steady.all);
    stop(operator)
}

/// What the operator has written, the Lease aside.
struct Writes {
    /// To each slice of ours.
    slices: BTreeMap<String, usize>,
    /// In the second in which there were most.
    most: usize,
    all: usize,
}

fn writes(stage: &Stage, mark: Mark) -> anyhow::Result<Writes> {
    let mut entries = stage.cluster.audit().writes_by(&stage.user(), mark)?;
    entries.retain(|entry| entry.resource != "leases");
    let (mut slices, mut seconds) = (BTreeMap::new(), BTreeMap::new());
    for entry in &entries {
        if entry.resource == "endpointslices" && entry.name.starts_with("gated-") {
            *slices.entry(entry.name.clone()).or_insert(0) += 1;
        }
        let at: Timestamp = entry.raw["requestReceivedTimestamp"].as_str().context("no time")?.parse()?;
        *seconds.entry(at.as_second()).or_insert(0) += 1;
    }
    Ok(Writes { slices, most: seconds.into_values().max().unwrap_or(0), all: entries.len() })
}

/// A verdict with each answer, a gate without a floor.
fn spec(interval: &str, targets: Value, service: &str) -> Value {
    json!({
        "interval": interval, "timeout": interval, "failureThreshold": 1, "successThreshold": 1, "annotations": "Off",
        "probe": { "http": { "path": "/" } }, "targets": targets,
        "gates": [{ "name": "traffic", "endpointSlice": { "service": service }, "minReady": 0 }],
    })
}

async fn host() -> anyhow::Result<HttpTarget> {
    let address: Ipv4Addr = fresh_address();
    Ok(HttpTarget::start_on((address, PORT).into()).await?)
}

fn target(index: usize, host: &HttpTarget) -> Value {
    json!({ "name": format!("t{index}"), "host": host.ip(), "port": host.port() })
}

pub fn slices(stage: &Stage, namespace: &str) -> Api<EndpointSlice> {
    Api::namespaced(stage.cluster.client(), namespace)
}

/// Notes what the slices of the gates say from now on.
pub async fn watch(api: Api<EndpointSlice>) -> anyhow::Result<Ready> {
    let ready = Ready::default();
    let noted = ready.clone();
    follow(api, move |slice| note(&noted, slice)).await?;
    Ok(ready)
}

fn note(ready: &Ready, slice: &EndpointSlice) {
    let now = Timestamp::now();
    if !slice.labels().contains_key("healthcheck-operator.dev/gate") {
        return;
    }
    let is_ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
    };
    let count = slice.endpoints.iter().filter(is_ready).count();
    lock(ready).insert(slice.name_any(), (count, now));
}

fn total(ready: &Ready) -> usize {
    lock(ready).values().map(|(count, _)| count).sum()
}

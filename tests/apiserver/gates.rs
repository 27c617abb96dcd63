//! The `endpointSlice` gate: what of the verdicts arrives in the slices of a Service without a selector.

mod freeze;
mod holders;
mod isolation;
mod letting_go;
mod overrides;
mod places;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::audit::Mark;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::recorder::{Change, Recorder};
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

const SERVICE: &str = "orders-db";
const CHECK: &str = "orders-db";
/// The port of every target: each has an address of its own.
const PORT: u16 = 8080;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("gates::slices_follow_the_verdicts_without_a_flap", follow),
        suite.trial("gates::when_all_die_the_gate_does_what_it_was_told", all_die),
        suite.trial("gates::a_dry_run_writes_no_slice", letting_go::dry_run),
        suite.trial("gates::a_conflict_writes_nothing_and_says_so", holders::conflicts),
        suite.trial("gates::an_edit_and_a_removal_release", letting_go::release),
        suite.trial("gates::slices_are_let_go_when_gates_are_switched_off", letting_go::switched_off),
        suite.trial("gates::a_restart_writes_no_slice", restart),
        suite.trial("gates::a_flip_of_one_of_250_rewrites_one_slice", many),
        suite.trial("gates::a_leader_woken_from_a_stop_writes_no_slice", woken),
        suite.trial("gates::the_release_marker_makes_gates_rest", letting_go::marked),
        // Without the cluster's own garbage collector.
        suite.trial_alone(
            "gates::an_orphan_nobody_watches_goes_and_a_strangers_slice_stays",
            false,
            letting_go::orphan,
        ),
        suite.trial("gates::an_operator_overrides_a_verdict_until_a_time", overrides::overrides),
        suite.trial("gates::an_operator_overrides_a_verdict_without_a_gate", overrides::without_gates),
        suite.trial("gates::an_event_says_what_is_true_at_its_time", overrides::events),
        suite.trial("gates::a_prober_that_is_cut_off_takes_nothing_out", isolation::isolated),
        suite.trial("gates::a_restart_in_the_midst_of_a_freeze_writes_no_slice", freeze::restarted),
        suite.trial("gates::an_api_server_that_is_away_freezes_gates_and_nothing_else", isolation::api_away),
        suite.trial("gates::families_and_ports_have_slices_of_their_own", places::families),
        suite.trial("gates::an_address_that_no_slice_holds_is_told_and_its_neighbours_published", places::refused),
        suite.trial("gates::a_namespace_that_goes_is_not_held_up", places::namespace_goes),
        suite.trial("gates::the_older_of_two_checks_holds_the_service", holders::two),
    ]
}

/// A Service without a selector, and outside hosts.
struct Shop {
    stage: Stage,
    hosts: Vec<HttpTarget>,
}

impl Shop {
    async fn new(cluster: Arc<ControlPlane>, test: &str, hosts: usize) -> anyhow::Result<Self> {
        let stage = Stage::new(cluster, test).await?;
        let mut targets = vec![];
        for _ in 0..hosts {
            targets.push(HttpTarget::start_on((fresh_address(), PORT).into()).await?);
        }
        let shop = Self { stage, hosts: targets };
        shop.service(SERVICE, json!({"ports": [{"name": "pg", "port": 5432}]})).await?;
        Ok(shop)
    }

    async fn service(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let manifest = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
        self.stage.cluster.apply(&self.stage.namespace, &manifest.to_string()).await.map(|_| ())
    }

    /// A check of all hosts, with one gate that says `more`.
    fn spec(&self, more: Value) -> Value {
        let hosts = self.hosts.iter().enumerate();
        let targets: Vec<_> = hosts.map(|(index, host)| target(&format!("t{index}"), host.address())).collect();
        let mut spec = fast(&targets);
        let mut gate = json!({"name": "traffic", "endpointSlice": {"service": SERVICE, "port": "pg"}});
        gate.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec["gates"] = json!([gate]);
        spec
    }

    fn api(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.stage.cluster.client(), &self.stage.namespace)
    }

    async fn record(&self) -> anyhow::Result<Recorder<EndpointSlice>> {
        Recorder::start(self.api()).await
    }

    /// What the slices of the Service say of each address.
    async fn published(&self) -> anyhow::Result<BTreeMap<IpAddr, bool>> {
        let slices = self.stage.cluster.slices(&self.stage.namespace, SERVICE).await?;
        slices.iter().flat_map(|slice| &slice.endpoints).map(said).collect()
    }

    /// Waits until the hosts are published like this, and nothing else is.
    async fn wait_published(&self, ready: &[bool]) -> anyhow::Result<()> {
        let wanted: BTreeMap<_, _> = self.hosts.iter().map(HttpTarget::ip).zip(ready.iter().copied()).collect();
        wait_until(&format!("the slices to say {ready:?}"), SOON, || async {
            let published = self.published().await?;
            ensure!(published == wanted, "{published:?}, wanted {wanted:?}");
            anyhow::Ok(())
        })
        .await
    }

    async fn wait_condition(&self, name: &str, wanted: &str) -> anyhow::Result<HealthCheck> {
        let what = format!("GatesApplied of {name} to be {wanted}");
        self.stage.wait(name, &what, |check| condition(check, "GatesApplied") == wanted).await
    }

    /// Waits until the gate enforces the verdicts, every host has one, and all are published.
    async fn wait_settled(&self) -> anyhow::Result<HealthCheck> {
        let count = self.hosts.len();
        let check = self
            .stage
            .wait(CHECK, "the gate to enforce the verdicts of all", |check| {
                let gate = gate(check);
                gate["effective"] == "Enforced" && gate["desiredReady"] == count && gate["publishedReady"] == count
            })
            .await?;
        self.wait_published(&vec![true; count]).await?;
        Ok(check)
    }

    /// Lets every target be asked a few times more.
    async fn live(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            host.wait_hits(5, SOON).await?;
        }
        Ok(())
    }

    fn mark(&self) -> anyhow::Result<Mark> {
        self.stage.cluster.audit().mark()
    }

    /// The operator's writes to slices since then.
    fn writes(&self, since: Mark) -> anyhow::Result<Vec<String>> {
        let writes = self.stage.cluster.audit().writes_by(&self.stage.user(), since)?;
        let slices = writes.iter().filter(|entry| entry.resource == "endpointslices");
        Ok(slices.map(|entry| format!("{} {} {}", entry.verb, entry.name, entry.code)).collect())
    }
}

fn said(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> anyhow::Result<(IpAddr, bool)> {
    let conditions = endpoint.conditions.as_ref().context("no conditions")?;
    ensure!(conditions.ready == conditions.serving, "{conditions:?}");
    Ok((endpoint.addresses.first().context("no address")?.parse()?, conditions.ready == Some(true)))
}

/// What became of one address, in any slice, without repetitions. One that is in no slice any more is not ready.
fn history(recorder: &Recorder<EndpointSlice>, address: IpAddr) -> anyhow::Result<Vec<bool>> {
    let mut slices: BTreeMap<String, bool> = BTreeMap::new();
    let mut states = vec![];
    for change in recorder.changes()? {
        let (slice, gone) = match &change {
            Change::Now(slice) => (slice, false),
            Change::Gone(slice) => (slice, true),
        };
        let name = slice.metadata.name.clone().unwrap_or_default();
        let mut there = None;
        for endpoint in slice.endpoints.iter().filter(|_| !gone) {
            let (ip, ready) = said(endpoint)?;
            there = there.or((ip == address).then_some(ready));
        }
        match there {
            Some(ready) => drop(slices.insert(name, ready)),
            None => drop(slices.remove(&name)),
        }
        if there.is_some() || !states.is_empty() {
            states.push(slices.values().any(|ready| *ready));
        }
    }
    states.dedup();
    Ok(states)
}

fn gate(check: &HealthCheck) -> Value {
    json!(check.status.as_ref().and_then(|status| status.gates.first()))
}

async fn follow(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "follow", 3).await?;
    let operator = shop.stage.operator("hco-0").await?;
    let mut spec = shop.spec(json!({}));
    spec["targets"][0]["zone"] = json!("hall-1");
    shop.stage.apply(CHECK, spec).await?;
    let check = shop.wait_settled().await?;
    ensure!(condition(&check, "GatesApplied") == "True/Enforced", "{:?}", check.status);
    let slices = shop.stage.cluster.slices(&shop.stage.namespace, SERVICE).await?;
    let [slice] = slices.as_slice() else { anyhow::bail!("{slices:?}") };
    ensure!(slice.labels()["endpointslice.kubernetes.io/managed-by"] == "healthcheck-operator.dev");
    let [owner] = slice.owner_references() else { anyhow::bail!("{:?}", slice.metadata) };
    ensure!(owner.uid == check.uid().unwrap_or_default() && owner.controller == Some(true), "{owner:?}");
    let ports = json!(slice.ports);
    ensure!(ports == json!([{"name": "pg", "port": PORT, "protocol": "TCP"}]), "{ports}");
    let zones: Vec<_> = slice.endpoints.iter().filter_map(|endpoint| endpoint.zone.as_deref()).collect();
    ensure!(zones == ["hall-1"], "{zones:?}");

    let record = shop.record().await?;
    shop.hosts[1].set_status(500);
    shop.wait_published(&[true, false, true]).await?;
    shop.stage
        .wait(CHECK, "the status to follow", |check| {
            let gate = gate(check);
            gate["desiredReady"] == 2 && gate["publishedReady"] == 2 && gate["effective"] == "Enforced"
        })
        .await?;
    let metrics = operator.admin_get("/metrics").await?.body;
    for line in [r#"gate="traffic"} 2"#, r#"rule="Enforced"} 1"#, r#"rule="FailOpen"} 0"#] {
        let of = metrics.lines().filter(|each| each.starts_with("healthcheck_gate_"));
        ensure!(of.clone().any(|each| each.ends_with(line)), "{line}: {}", of.collect::<Vec<_>>().join("\n"));
    }
    shop.hosts[1].set_status(200);
    shop.wait_published(&[true, true, true]).await?;
    shop.hosts[0].close().await;
    shop.wait_published(&[false, true, true]).await?;
    shop.hosts[2].wait_hits(10, SOON).await?;
    let histories: Vec<_> = shop.hosts.iter().map(|host| history(&record, host.ip())).collect::<anyhow::Result<_>>()?;
    ensure!(histories == [vec![true, false], vec![true, false, true], vec![true]], "{histories:?}");
    let names: std::collections::BTreeSet<_> = record.changes()?.iter().map(name_of).collect();
    ensure!(names.len() == 1, "one slice all along: {names:?}");
    Ok(())
}

fn name_of(change: &Change<EndpointSlice>) -> String {
    match change {
        Change::Now(slice) | Change::Gone(slice) => slice.name_any(),
    }
}

async fn all_die(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    for (policy, left) in
        [("FailOpen", [true, true, true]), ("FailStatic", [true, false, true]), ("FailClosed", [false, false, false])]
    {
        let shop = Shop::new(cluster.clone(), &policy.to_lowercase(), 3).await?;
        let _operator = shop.stage.operator("hco-0").await?;
        // One by one, so that what was published last is not everything. Two have to be ready.
        shop.stage.apply(CHECK, shop.spec(json!({"whenBelow": policy, "minReady": 2}))).await?;
        shop.wait_settled().await?;
        shop.hosts[1].set_status(500);
        shop.wait_published(&[true, false, true]).await?;
        shop.hosts[0].set_status(500);
        shop.hosts[2].set_status(500);
        let check = shop.wait_condition(CHECK, &format!("True/{policy}")).await?;
        ensure!(message(&check, "GatesApplied").contains("fewer than minReady 2"), "{check:?}");
        shop.stage.wait(CHECK, "none to be desired", |check| gate(check)["desiredReady"] == 0).await?;
        shop.wait_published(&left).await?;
        let told = shop.stage.get(CHECK).await?.status.and_then(|status| status.gate);
        ensure!(told == Some(format!("traffic: {policy}")), "{told:?}");
        wait_until("the event", SOON, || async {
            let events = shop.stage.events(CHECK).await?;
            ensure!(events.iter().any(|(reason, _)| *reason == format!("Gate{policy}")), "{events:?}");
            anyhow::Ok(())
        })
        .await?;
        shop.hosts[1].set_status(200);
        shop.hosts[2].set_status(200);
        shop.wait_published(&[false, true, true]).await?;
        shop.wait_condition(CHECK, "True/Enforced").await?;
    }
    Ok(())
}

async fn restart(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "gaterestart", 3).await?;
    let operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({"whenBelow": "FailStatic"}))).await?;
    shop.wait_settled().await?;
    shop.hosts[1].set_status(500);
    shop.wait_published(&[true, false, true]).await?;
    shop.stage.wait(CHECK, "the status to follow", |check| gate(check)["publishedReady"] == 2).await?;
    let before = gate(&shop.stage.get(CHECK).await?);
    let record = shop.record().await?;
    let mark = shop.mark()?;
    operator.process().kill()?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.live().await?;
    shop.live().await?;
    ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
    ensure!(gate(&shop.stage.get(CHECK).await?) == before, "{before}");
    ensure!(history(&record, shop.hosts[1].ip())? == [false], "no flap");
    // It goes on from there.
    shop.hosts[1].set_status(200);
    shop.wait_published(&[true, true, true]).await
}

async fn many(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    const COUNT: usize = 250;
    let shop = Shop::new(cluster, "many", 0).await?;
    // A check has at most 64 targets, so the endpoints are pods of another Service.
    let mut endpoints = vec![];
    let mut hosts = vec![];
    for _ in 0..COUNT {
        let host = HttpTarget::start_on((fresh_address(), PORT).into()).await?;
        endpoints.push(json!({"addresses": [host.ip().to_string()]}));
        hosts.push(host);
    }
    shop.service("backends", json!({"ports": [{"port": 80}]})).await?;
    for (index, chunk) in endpoints.chunks(100).enumerate() {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("backends-{index}"), "labels": {
                "kubernetes.io/service-name": "backends", "endpointslice.kubernetes.io/managed-by": "a-test",
            }},
            "endpoints": chunk, "ports": [{"name": "", "port": PORT}],
        });
        shop.stage.cluster.apply(&shop.stage.namespace, &slice.to_string()).await?;
    }
    let shop = Shop { hosts, ..shop };
    let operator = shop.stage.operator("hco-0").await?;
    let mut spec = shop.spec(json!({}));
    spec["interval"] = json!("500ms");
    // On the slices of the other Service, annotations would be written.
    spec["annotations"] = json!("Off");
    spec["targets"] = json!([{"name": "all", "service": {"name": "backends"}}]);
    shop.stage.apply(CHECK, spec).await?;
    shop.wait_settled().await?;
    let names = async || -> anyhow::Result<Vec<(String, usize)>> {
        let slices = shop.stage.cluster.slices(&shop.stage.namespace, SERVICE).await?;
        Ok(slices.iter().map(|slice| (slice.name_any(), slice.endpoints.len())).collect())
    };
    let made = names().await?;
    let mut sizes: Vec<_> = made.iter().map(|(_, size)| *size).collect();
    sizes.sort_unstable();
    ensure!(sizes == [50, 100, 100], "{made:?}");
    let mark = shop.mark()?;
    shop.hosts[123].set_status(500);
    let mut wanted = [true; COUNT];
    wanted[123] = false;
    shop.wait_published(&wanted).await?;
    shop.hosts[7].wait_hits(5, SOON).await?;
    let writes = shop.writes(mark)?;
    ensure!(writes.len() == 1 && writes[0].starts_with("patch"), "{writes:?}");
    ensure!(names().await? == made, "{made:?}");
    operator.process().stop()?;
    Ok(())
}

async fn woken(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "gatewoken", 2).await?;
    let leader = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_settled().await?;
    let standby = shop.stage.operator("hco-1").await?;
    let record = shop.record().await?;
    leader.process().freeze()?;
    shop.hosts[0].set_status(500);
    shop.wait_published(&[false, true]).await?;
    // The one that sleeps has seen the first host healthy, and would publish it.
    leader.process().thaw()?;
    wait_until("the former leader to stand by", SOON, || async {
        let metrics = leader.admin_get("/metrics").await?.body;
        ensure!(metrics.contains("healthcheck_operator_leader 0"), "still leading");
        ensure!(!metrics.contains("healthcheck_gate_ready{"), "it tells of gates that it does not decide");
        anyhow::Ok(())
    })
    .await?;
    shop.live().await?;
    ensure!(history(&record, shop.hosts[0].ip())? == [true, false], "{:?}", history(&record, shop.hosts[0].ip())?);
    ensure!(history(&record, shop.hosts[1].ip())? == [true], "{:?}", history(&record, shop.hosts[1].ip())?);
    drop(standby);
    Ok(())
}

//! The suite's own means: that its client sees what is lost, and nothing where nothing is broken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::hosts::HTTP_PORT;
use crate::published::Published;
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic::{GRACE, Record, Report, Traffic};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.show("harness::the_client_sees_each_way_of_dying", client),
        suite.show("harness::a_late_failure_and_a_short_flap_are_noticed", notices),
    ]
}

async fn client(room: Arc<Room>) -> anyhow::Result<()> {
    let hosts = room.http_hosts(&["only"]).await?;
    let host = &hosts[0];
    let traffic = Traffic::start(host.at(HTTP_PORT)).await?;
    traffic.more(50).await?;
    traffic.stop("harness: nothing broken").await?.lossless()?;

    let faults = ["500", "close", "hang", "dropped", "killed"];
    for fault in faults {
        let traffic = Traffic::start(host.at(HTTP_PORT)).await?;
        host.break_by(fault).await?;
        let broken = Instant::now();
        let failed = |seen: &[Record]| seen.iter().any(|record| record.result.is_err());
        traffic.until(&format!("a failure of a host that is {fault}"), broken, failed).await?;
        let report = traffic.stop(&format!("harness: {fault}")).await?;
        let well = report.answers(broken);
        ensure!(well.is_empty(), "{fault}, and yet answers: {well:?}");
        host.mend(fault).await?;
    }
    Ok(())
}

async fn notices(room: Arc<Room>) -> anyhow::Result<()> {
    late()?;
    let slice = |ready: bool, note: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "by-hand", "annotations": {"note": note}, "labels": {"kubernetes.io/service-name": "by-hand"},
            },
            "endpoints": [{"addresses": ["198.18.255.1"], "conditions": {"ready": ready}}],
            "ports": [{"name": "", "port": 80}],
        })
    };
    let slices = room.api::<EndpointSlice>();
    let write = async |ready: bool, note: &str| {
        let params = PatchParams::apply("e2e").force();
        slices.patch("by-hand", &params, &Patch::Apply(slice(ready, note))).await.map(|_| Instant::now())
    };
    write(true, "first").await?;
    let published = Published::watch(&room, "by-hand").await?;
    let begun = Instant::now();
    write(true, "the same endpoints").await?;
    published.unchanged(begun)?;
    // Shorter than anybody would poll.
    write(false, "a flap").await?;
    write(true, "and back").await?;
    published.turned("198.18.255.1".parse()?, false, begun).await?;
    ensure!(published.unchanged(begun).is_err(), "a flap was missed");
    Ok(())
}

/// Four hundred requests, one each 20 ms, of which those fail that `fails` names by when they ended.
fn report(title: &str, start: Instant, fails: impl Fn(Duration) -> bool) -> anyhow::Result<Report> {
    let record = |number: u32| {
        let took = Duration::from_millis(20) * number;
        let result = if fails(took) { Err(String::from("lost")) } else { Ok(String::from("host")) };
        Record { begun: start + took, ended: start + took, result }
    };
    Report::new(title, (0..400).map(record).collect())
}

fn late() -> anyhow::Result<()> {
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let (fault, verdict) = (start + second, start + 2 * second);
    let within = |took: Duration| (second..2 * second + GRACE).contains(&took);
    report("harness: in time", start, within)?.over_by(fault, verdict)?;
    let once_more = |took: Duration| within(took) || took == 2 * second + GRACE + Duration::from_millis(20);
    ensure!(report("harness: late", start, once_more)?.over_by(fault, verdict).is_err(), "a late failure was missed");
    let long_after = report("harness: nobody asks", start, |_| false)?.over_by(fault, start + 8 * second);
    ensure!(long_after.is_err(), "that nobody asked was missed");
    ensure!(
        report("harness: one lost", start, |took| took == second)?.lossless().is_err(),
        "a lost request was missed"
    );
    Ok(())
}

//! Less than a process is used to: CPU, memory, descriptors.

use anyhow::ensure;

use crate::harness::{
    Files, LONG, MOST_TARGETS, Target, alive_and_well, alone, answer, checks, failures, metric, peak_memory, skip,
    successes, wait_healthy, wait_metric, wait_more,
};
use crate::support::cgroup::Cgroup;

/// `None`, and a word on it, where this machine does not let us.
pub fn or_skip(group: anyhow::Result<Cgroup>) -> Option<Cgroup> {
    group.map_err(|error| skip(&format!("no control group can be made here (as root): {error:#}"))).ok()
}

/// More targets than descriptors: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_fifty_six_descriptors_are_enough_for_thousands_of_endpoints() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 3_000;
    let target = Target::start(answer);
    let spec = "interval: 3s; timeout: 3s; failureThreshold: 1; staleAfter: 10m";
    let kinds = ["{tcp: {}}", "{http: {}}", "{http: {connectionClose: Polite}}"];
    let place = |n: usize| (target.at(n), kinds[n % kinds.len()].to_owned());
    let files = Files::with(&checks("all", spec, (0..TARGETS).map(place)));
    let operator = files.standalone().under(["prlimit", "--nofile=256"]).serve()?;
    wait_healthy(&operator, TARGETS / MOST_TARGETS).await?;
    wait_more(&operator, TARGETS as f64).await?;
    ensure!(failures(&operator).await? == (0.0, 0.0), "{:?}", failures(&operator).await?);
    let answer = operator.admin_get("/v1/healthchecks").await?;
    ensure!(answer.status == 200, "there is a descriptor for who asks");
    alive_and_well(&operator)
}

/// A probe that may begin has a descriptor, whatever the lane of those before it has laid aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_the_fast_lane_laid_aside_are_no_longer_there_when_the_ordinary_lane_needs_their_room()
-> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 300;
    let target = Target::start(answer);
    let spec = "interval: 60s; timeout: 60s; failureThreshold: 1; staleAfter: 10m";
    let all = |probe: &str| checks("all", spec, (0..TARGETS).map(|n| (target.at(n), probe.to_owned())));
    target.hold(true);
    let files = Files::with(&all("{http: {path: /fast}}"));
    let operator = files.standalone().under(["prlimit", "--nofile=256"]).serve()?;
    for next in ["{http: {path: /ordinary, connectionClose: Polite}}", "{http: {path: /fast-again}}"] {
        // As many as there may be, at once.
        wait_metric(&operator, "healthcheck_operator_in_flight_probes", "", |probes| probes >= 128.0).await?;
        // Each is answered once, and nobody waits any more.
        let well = successes(&operator).await? + TARGETS as f64;
        target.hold(false);
        wait_metric(&operator, "healthcheck_operator_probes_total", "outcome=\"success\"", |seen| seen >= well).await?;
        wait_healthy(&operator, TARGETS / MOST_TARGETS).await?;
        target.hold(true);
        files.write(&all(next));
    }
    target.hold(false);
    wait_more(&operator, TARGETS as f64).await?;
    let without = "reason=\"NoDescriptors\"";
    let without = metric(&operator, "healthcheck_operator_probes_total", without).await?;
    ensure!(without == 0.0 && failures(&operator).await? == (0.0, 0.0), "{without} had no descriptor");
    alive_and_well(&operator)
}

/// All that a container of 64 MiB has to bear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_are_enough_for_thousands_of_endpoints_that_flip() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 6_000;
    let Some(cgroup) = or_skip(Cgroup::memory("mebibytes")) else { return Ok(()) };
    cgroup.set_memory(64 << 20)?;
    let garbage = Target::start(crate::hostile::garbage);
    let spec = "interval: 5s; timeout: 5s; failureThreshold: 1; successThreshold: 1; staleAfter: 10m";
    let documents = checks("c", spec, (0..TARGETS).map(|n| (garbage.at(n), "{http: {}}".to_owned())));
    let files = Files::with(&documents);
    let operator = files.standalone().under(cgroup.wrapper()).serve()?;
    operator
        .wait_get("/healthz", LONG, |answer| answer.body.contains(&format!(" {} unhealthy,", documents.len())))
        .await?;
    garbage.mend();
    wait_healthy(&operator, documents.len()).await?;
    let peak = peak_memory(&operator)?;
    println!("  {TARGETS} endpoints in a control group of 64 MiB: at most {} KiB resident", peak);
    alive_and_well(&operator)
}

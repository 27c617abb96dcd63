//! The wall clock is set, forth and back. No clock of the machine is: a library before all others lies to the program about the time of day.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::harness::{Files, Target, alive_and_well, alone, answer, check, failures, metric, wait_healthy, wait_more};
use crate::support::operator::Operator;

const YEAR: i64 = 365 * 24 * 3600;

/// What the program takes for now, by the last probe of a check.
async fn year(operator: &Operator) -> anyhow::Result<i64> {
    let seen: serde_json::Value = serde_json::from_str(&operator.admin_get("/v1/healthchecks/shop/all").await?.body)?;
    let last = seen["lastProbe"].as_str().context("no last probe")?;
    Ok(last[..4].parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_forth_and_back_moves_no_verdict_and_no_rhythm() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 50;
    let directory = tempfile::tempdir()?;
    let (library, offset) = (directory.path().join("clock.so"), directory.path().join("offset"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stress/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    if !built.is_ok_and(|status| status.success()) {
        crate::harness::skip("no C compiler (`cc`) here, which makes the clock that lies");
        return Ok(());
    }
    let set = |seconds: i64| std::fs::write(&offset, seconds.to_string());
    set(0)?;
    let target = Target::start(answer);
    let spec = "interval: 1s; timeout: 1s; failureThreshold: 2; staleAfter: 30s";
    let files = Files::with(&[check("all", spec, (0..TARGETS).map(|n| (target.at(n), "{http: {}}".to_owned())))]);
    let operator = files.standalone().env("LD_PRELOAD", &library).env("HEALTHCHECK_TEST_CLOCK", &offset).serve()?;
    wait_healthy(&operator, 1).await?;
    let now = year(&operator).await?;
    for (seconds, years) in [(3 * YEAR, 3), (-3 * YEAR, -3), (3600, 0), (0, 0)] {
        set(seconds)?;
        wait_more(&operator, 5.0 * TARGETS as f64).await?;
        let seen = year(&operator).await?;
        ensure!((seen - now - years).abs() <= 1, "the program believes the clock: {now}, {seen}");
        let health = operator.get("/healthz").await?;
        ensure!(health.status == 200, "{health:?}");
        ensure!(failures(&operator).await?.0 == 0.0, "{:?}", failures(&operator).await?);
    }
    let changed = metric(&operator, "healthcheck_transitions_total", "name=\"all\"").await?;
    ensure!(changed <= 1.0, "it became Healthy once, and nothing since: {changed}");
    alive_and_well(&operator)
}

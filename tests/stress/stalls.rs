//! The process itself stands still, or is given next to no CPU: that is never a target's fault.

use std::time::Duration;

use anyhow::ensure;

use crate::confined::or_skip;
use crate::harness::{
    Files, LONG, MOST_TARGETS, Target, alive_and_well, alone, answer, checks as checks_of, failures, hang_up, metric,
    successes, wait_healthy, wait_metric, wait_more,
};
use crate::support::cgroup::Cgroup;
use crate::support::operator::Operator;
use crate::support::wait::wait_until;

/// Of the fast lane and of the ordinary one, fresh and kept.
const PROBES: [&str; 4] =
    ["{tcp: {}}", "{http: {}}", "{http: {connectionClose: Polite}}", "{http: {reuseConnection: true}}"];
const EACH: usize = 50;
/// Of each kind, where CPU is to be short.
const MANY: usize = 10;
/// Of fifty endpoints each: of a tenth of a second, they are more than there is CPU for.
const CHECKS: usize = 400;
pub const STRETCH: &str = "healthcheck_operator_interval_stretch_ratio";

/// Down at the first failure, so that not one is forgiven.
fn checks(targets: &[std::sync::Arc<Target>], interval: &str, times: usize) -> Vec<String> {
    let spec = format!("interval: {interval}; timeout: 1s; failureThreshold: 1; staleAfter: 10m");
    let each = |(kind, (probe, target)): (usize, (&&str, &std::sync::Arc<Target>))| {
        let places = (0..EACH * times).map(|n| (target.at(n), (*probe).to_owned()));
        checks_of(&format!("c{kind}"), &spec, places)
    };
    PROBES.iter().zip(targets).enumerate().flat_map(each).collect()
}

fn targets() -> Vec<std::sync::Arc<Target>> {
    PROBES.iter().map(|_| Target::start(answer)).collect()
}

async fn none_failed(operator: &Operator) -> anyhow::Result<()> {
    let (unhealthy, failed) = failures(operator).await?;
    let told = operator.admin_get("/metrics").await?.body;
    let which: Vec<_> = told.lines().filter(|line| line.contains("outcome=\"failure\"")).collect();
    ensure!((unhealthy, failed) == (0.0, 0.0), "{unhealthy} became Unhealthy; {which:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_for_three_seconds_blames_nobody_and_goes_on() -> anyhow::Result<()> {
    let _alone = alone().await;
    let targets = targets();
    let files = Files::with(&checks(&targets, "1s", 1));
    let operator = files.standalone().serve()?;
    wait_healthy(&operator, PROBES.len()).await?;
    for _ in 0..3 {
        wait_more(&operator, 2.0 * (PROBES.len() * EACH) as f64).await?;
        operator.process().freeze()?;
        // Longer than any timeout: what was in flight is overdue.
        tokio::time::sleep(Duration::from_secs(3)).await;
        operator.process().thaw()?;
        wait_more(&operator, 2.0 * (PROBES.len() * EACH) as f64).await?;
        none_failed(&operator).await?;
    }
    let skipped = metric(&operator, "healthcheck_operator_skipped_rounds_total", "").await?;
    ensure!(skipped >= 3.0 * 4.0 * EACH as f64, "what was slept through is told as skipped: {skipped}");
    wait_healthy(&operator, PROBES.len()).await?;
    println!("  stopped 3 × 3 s: {skipped} rounds skipped, no failure in {} probes", successes(&operator).await?);
    alive_and_well(&operator)
}

/// Here no answer waits to be read when the process goes on, so that only the clock speaks, and against every target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopped_process_waited_for_is_not_held_against_the_targets() -> anyhow::Result<()> {
    let _alone = alone().await;
    let targets = targets();
    let spec = "interval: 6s; timeout: 4s; failureThreshold: 1; staleAfter: 10m";
    // A connect is answered by the kernel, whatever the target does.
    let kinds = PROBES.iter().zip(&targets).enumerate().skip(1);
    let of = |(kind, (probe, target)): (usize, (&&str, &std::sync::Arc<Target>))| {
        checks_of(&format!("c{kind}"), spec, (0..EACH).map(|n| (target.at(n), (*probe).to_owned())))
    };
    let files = Files::with(&kinds.flat_map(of).collect::<Vec<_>>());
    let operator = files.standalone().serve()?;
    wait_healthy(&operator, PROBES.len() - 1).await?;
    targets.iter().for_each(|target| target.hold(true));
    wait_metric(&operator, "healthcheck_operator_in_flight_probes", "", |probes| probes >= 10.0).await?;
    operator.process().freeze()?;
    // Longer than any timeout: what was in flight is overdue.
    tokio::time::sleep(Duration::from_secs(5)).await;
    operator.process().thaw()?;
    let overloaded = "reason=\"ProberOverloaded\"";
    let ours = wait_metric(&operator, "healthcheck_operator_probes_total", overloaded, |times| times >= 10.0).await?;
    targets.iter().for_each(|target| target.hold(false));
    wait_more(&operator, 2.0 * ((PROBES.len() - 1) * EACH) as f64).await?;
    none_failed(&operator).await?;
    println!("  stopped with {ours} probes under way that nobody answered: none failed");
    alive_and_well(&operator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_tenth_of_a_core_intervals_are_stretched_and_nobody_is_blamed() -> anyhow::Result<()> {
    let _alone = alone().await;
    let Some(cgroup) = or_skip(Cgroup::cpu("quota")) else { return Ok(()) };
    let targets = targets();
    let files = Files::with(&checks(&targets, "1s", MANY));
    let operator = files.standalone().serve()?;
    wait_healthy(&operator, PROBES.len() * MANY).await?;
    cgroup.set_quota(10)?;
    cgroup.take_in(operator.process().pid())?;
    let most = wait_metric(&operator, STRETCH, "", |times| times > 1.05).await?;
    // Each is asked often enough while it is so.
    wait_more(&operator, 2.0 * (EACH * MANY * PROBES.len()) as f64).await?;
    none_failed(&operator).await?;
    cgroup.lift_quota()?;
    wait_metric(&operator, STRETCH, "", |times| times < 1.05).await?;
    wait_healthy(&operator, PROBES.len() * MANY).await?;
    none_failed(&operator).await?;
    println!(
        "  a tenth of a core: intervals {most:.1} times as long, no failure in {} probes",
        successes(&operator).await?
    );
    alive_and_well(&operator)
}

/// How much later than due so many more probes began on average, in seconds.
async fn lag_of(operator: &Operator, more: f64) -> anyhow::Result<f64> {
    let told = async || {
        let sum = metric(operator, "healthcheck_operator_scheduling_lag_seconds_sum", "").await?;
        anyhow::Ok((sum, metric(operator, "healthcheck_operator_scheduling_lag_seconds_count", "").await?))
    };
    let before = told().await?;
    wait_more(operator, more).await?;
    let after = told().await?;
    Ok((after.0 - before.0) / (after.1 - before.1))
}

/// Connects that the kernel answers: what is too slow is the prober.
fn crowd(target: &Target, interval: &str) -> Vec<String> {
    let spec = format!("interval: {interval}; timeout: 100ms; failureThreshold: 1; staleAfter: 10m");
    checks_of("c", &spec, (0..CHECKS * MOST_TARGETS).map(|n| (target.at(n), "{tcp: {}}".to_owned())))
}

/// Much more than there is CPU for: all are stretched, none is left out, and less makes it as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_too_much_is_stretched_evenly_told_and_over_when_it_is_over() -> anyhow::Result<()> {
    let _alone = alone().await;
    let target = Target::start(hang_up);
    let files = Files::with(&crowd(&target, "100ms"));
    let operator = files.standalone().serve()?;
    wait_healthy(&operator, CHECKS).await?;
    let most = wait_metric(&operator, STRETCH, "", |times| times > 1.5).await?;
    let late = lag_of(&operator, 5.0 * (CHECKS * MOST_TARGETS) as f64).await?;
    let mut effective = vec![];
    for of in (0..CHECKS).step_by(5) {
        let seen = operator.admin_get(&format!("/v1/healthchecks/shop/c-{of}")).await?;
        let seen: serde_json::Value = serde_json::from_str(&seen.body)?;
        effective.push(seen["effectiveIntervalSeconds"].as_f64().unwrap_or_default());
    }
    let (least, longest) =
        effective.iter().fold((f64::MAX, 0.0_f64), |(least, most), one| (least.min(*one), most.max(*one)));
    ensure!(least > 0.1 && longest <= 3.0 * least, "not stretched evenly: {effective:?}");
    none_failed(&operator).await?;
    files.write(&crowd(&target, "20s"));
    wait_metric(&operator, STRETCH, "", |times| times < 1.05).await?;
    wait_healthy(&operator, CHECKS).await?;
    let in_time = lag_of(&operator, (CHECKS * MOST_TARGETS / 4) as f64).await?;
    ensure!(late > 2.0 * in_time, "late by {late} s when it was too much, and by {in_time} s when it was not");
    none_failed(&operator).await?;
    println!(
        "  200,000 wanted a second: intervals {most:.1} times as long, of checks from {least:.2} to {longest:.2} s; \
         {late:.3} s late, and {in_time:.3} s when it was over"
    );
    alive_and_well(&operator)
}

/// A process that never comes to rest is not one that stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_is_told_so_by_a_process_that_has_too_much_to_do() -> anyhow::Result<()> {
    let _alone = alone().await;
    let (well, silent) = (Target::start(hang_up), Target::start(answer));
    silent.hold(true);
    let spec = "interval: 1s; timeout: 500ms; failureThreshold: 2; staleAfter: 10m";
    let hanging = |probe: &str| (0..MOST_TARGETS).map(|n| (silent.at(n), probe.to_owned())).collect::<Vec<_>>();
    // Of the fast lane, which has too much to do, and of the ordinary one, which has not.
    let silent = ["{http: {}}", "{http: {connectionClose: Polite}}"].into_iter().flat_map(hanging);
    let files = Files::with(&[crowd(&well, "100ms"), checks_of("silent", spec, silent)].concat());
    let operator = files.standalone().serve()?;
    wait_metric(&operator, STRETCH, "", |times| times > 1.5).await?;
    for check in ["silent-0", "silent-1"] {
        wait_until(check, LONG, || async {
            let seen = operator.admin_get(&format!("/v1/healthchecks/shop/{check}")).await?;
            let seen: serde_json::Value = serde_json::from_str(&seen.body)?;
            ensure!(seen["counts"]["unhealthy"] == MOST_TARGETS, "{}", seen["counts"]);
            anyhow::Ok(())
        })
        .await?;
    }
    let most = metric(&operator, STRETCH, "").await?;
    println!("  {} that hang are told, with intervals {most:.1} times as long", 2 * MOST_TARGETS);
    alive_and_well(&operator)
}

//! 10,000 endpoints, each in a HealthCheck of its own and then 64 in one: from start to all scheduled, the same when a
//! standby takes over, and the memory of the whole operator with its caches.
//!
//! One tenth of the HealthChecks bears a label; an operator that selects it is the other point of the line that tells
//! bytes per endpoint.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    herd::Herd,
    stage::{Stage, stop, until},
};
use crate::common::{
    figures::Figures,
    listener::Listener,
    operator::{IMAGE, Operator},
    rounds, scaled,
    stats::median,
    table::Table,
};

const ENDPOINTS: usize = 10_000;
/// As many targets as a HealthCheck may have.
const MOST_TARGETS: usize = 64;
/// `BENCH_ROUNDS` counts flips too, of which there are to be more.
const MOST_STARTS: usize = 5;

struct Run {
    ready: Duration,
    cpu: Duration,
    resident: f64,
    peak: f64,
}

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    for (name, targets) in [("many", 1), ("large", MOST_TARGETS)] {
        let herd = Herd::make(stage, name, scaled(ENDPOINTS).div_ceil(targets), targets, port).await?;
        starts(stage, &herd, figures).await?;
        takeover(stage, &herd, figures).await?;
    }
    Ok(())
}

async fn starts(stage: &Stage, herd: &Herd, figures: &mut Figures) -> anyhow::Result<()> {
    let fewer = herd.checks.div_ceil(10);
    let (mut all, mut few) = (vec![], vec![]);
    for round in 1..=rounds(3).min(MOST_STARTS) {
        eprintln!("round {round}");
        few.push(run(stage, herd, &["--label-selector", "bench=few"], fewer * herd.targets).await?);
        all.push(run(stage, herd, &[], herd.endpoints()).await?);
    }
    let of = |runs: &[Run], part: fn(&Run) -> f64| median(runs.iter().map(part));
    let mut table = Table::new(["HealthChecks", "endpoints", "all scheduled", "CPU until then", "RSS", "peak"]);
    for (count, runs) in [(fewer, &few), (herd.checks, &all)] {
        table.row([
            count.to_string(),
            (count * herd.targets).to_string(),
            format!("{:.2} s", of(runs, |run| run.ready.as_secs_f64())),
            format!("{:.2} s", of(runs, |run| run.cpu.as_secs_f64())),
            format!("{:.1} MB", of(runs, |run| run.resident) / 1e6),
            format!("{:.1} MB", of(runs, |run| run.peak) / 1e6),
        ]);
    }
    table.print(&format!("From the start of a controller (endpoints in each check: {})", herd.targets));
    let grown = of(&all, |run| run.resident) - of(&few, |run| run.resident);
    let slope = grown / (herd.endpoints() - fewer * herd.targets).max(1) as f64;
    println!("bytes per endpoint, caches included: {slope:.0}");
    println!("making the checks took {:.0} s\n", herd.took.as_secs_f64());
    let (start, memory) = match herd.targets {
        1 => {
            ("10,000 HealthChecks, start → all scheduled", "bytes per endpoint, operator, objects cached, one in each")
        }
        _ => (
            "157 HealthChecks of 64, start → all scheduled",
            "bytes per endpoint, operator, objects cached, 64 in each",
        ),
    };
    let starts: Vec<_> = all.iter().map(|run| run.ready.as_secs_f64()).collect();
    match herd.targets {
        1 => figures.reach_all("11", start, &starts),
        _ => figures.note_all(start, &starts, "s"),
    }
    figures.reach("7b", memory, slope);
    figures.note(format!("peak memory of a start, {} in each", herd.targets), of(&all, |run| run.peak) / 1e6, "MB");
    figures.note(format!("CPU of a start, {} in each", herd.targets), of(&all, |run| run.cpu.as_secs_f64()), "s");
    Ok(())
}

/// With the allocator's settings of the container image: memory is measured as it is shipped.
async fn run(stage: &Stage, herd: &Herd, flags: &[&str], endpoints: usize) -> anyhow::Result<Run> {
    let operator = stage.operator_with(&herd.namespace, flags, &IMAGE)?;
    let ready = stage.ready(&operator).await?;
    let cpu = operator.usage()?.cpu;
    operator.wait_scheduled(endpoints)?;
    operator.wait_probes(2 * endpoints)?;
    let metrics = operator.metrics()?;
    ensure!(metrics.failed() + metrics.local() < 0.01 * metrics.probes(), "probes failed");
    let used = operator.usage()?;
    stop(operator)?;
    Ok(Run { ready, cpu, resident: used.resident as f64, peak: used.peak as f64 })
}

/// One leads, one stands by; the one that leads ends as the kubelet ends it, and then again by `kill -9`.
async fn takeover(stage: &Stage, herd: &Herd, figures: &mut Figures) -> anyhow::Result<()> {
    let mut table = Table::new(["the leader", "from its end to all scheduled", "of it after the Lease was taken"]);
    let lease = Duration::from_secs(15);
    for (how, released) in [("ends", true), ("is killed", false)] {
        let first = stage.operator_with(&herd.namespace, &["--log-format", "json"], &IMAGE)?;
        stage.ready(&first).await?;
        let second = stage.operator_with(&herd.namespace, &["--log-format", "json"], &IMAGE)?;
        stage.ready(&second).await?;
        let ended = if released {
            stop(first)?;
            jiff::Timestamp::now()
        } else {
            let now = jiff::Timestamp::now();
            first.process().kill()?;
            now
        };
        until("the standby to probe", async || {
            second.process().check_alive()?;
            Ok(second.process().output().contains("\"probing\""))
        })
        .await?;
        let (at, took) = probing(&second)?;
        let all = at.duration_since(ended).as_secs_f64();
        table.row([how.to_owned(), format!("{all:.2} s"), format!("{took:.2} s")]);
        figures.note(format!("the leader {how} → all scheduled, {} in each", herd.targets), all, "s");
        stop(second)?;
    }
    table.print(&format!(
        "A standby takes {} checks over (a Lease that is not released runs out after {} s)",
        herd.checks,
        lease.as_secs()
    ));
    Ok(())
}

/// When the operator says that it probes, and how long after it began to lead, in seconds.
fn probing(operator: &Operator) -> anyhow::Result<(jiff::Timestamp, f64)> {
    let log = operator.process().output();
    let line = log.lines().rfind(|line| line.contains("\"probing\"")).context("never probed")?;
    let line: Value = serde_json::from_str(line)?;
    let at = line["timestamp"].as_str().context("no time")?.parse()?;
    let took = line["took"].as_str().context("no duration")?;
    let (number, unit) = took.split_at(took.find(|it: char| it.is_alphabetic() || it == 'µ').unwrap_or(took.len()));
    let seconds = number.parse::<f64>()?
        / if unit == "s" {
            1.0
        } else if unit == "ms" {
            1e3
        } else {
            1e6
        };
    Ok((at, seconds))
}

/// Makes the checks and leaves them there for a profiler, for `BENCH_SECONDS`: `BENCH_ONLY=hold`.
pub async fn hold(stage: &Stage) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    for (name, targets) in [("many", 1), ("large", MOST_TARGETS)] {
        let herd = Herd::make(stage, name, scaled(ENDPOINTS).div_ceil(targets), targets, port).await?;
        let args = stage.arguments(&herd.namespace, &[])?.join(" ");
        println!("{} checks of {targets}, made in {:.0} s: {args}", herd.checks, herd.took.as_secs_f64());
    }
    println!("join with: nsenter --net --target {} --", std::process::id());
    let (begun, window) = (Instant::now(), crate::common::window(600));
    while begun.elapsed() < window {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

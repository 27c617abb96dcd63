//! What probing costs: 10,000 TCP endpoints at one second, or 5,000 HTTP ones on fresh connections or kept ones, by an
//! operator on one core. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench probing

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use common::{
    OTHERS,
    listener::Listener,
    manifests::{Plan, Probe},
    metrics::Metrics,
    nginx::Nginx,
    operator::Operator,
    rounds, scaled,
    stats::{median, over},
    table::Table,
    window,
};

/// As many as one core shall do without a skipped round. HTTP costs twice as much; past saturation a figure for one
/// probe means nothing.
const fn endpoints(probe: Probe) -> usize {
    match probe {
        Probe::Tcp => 10_000,
        _ => 5_000,
    }
}
/// The other point of the line that tells bytes per endpoint.
const FEW: usize = 1_000;
/// Every endpoint has been probed some times, and verdicts have been reached.
const WARM_UP: Duration = Duration::from_secs(5);
const LAG: &str = "healthcheck_operator_scheduling_lag_seconds";

/// One run of one operator.
struct Run {
    /// Until the operator said that it has all endpoints, from its start.
    scheduled: Duration,
    /// Until as many probes had ended as there are endpoints.
    probed: Duration,
    /// Microseconds of CPU for one probe, everything included.
    cost: f64,
    /// Of one core, in percent.
    share: f64,
    per_second: f64,
    /// Probes in which the target failed.
    failed: f64,
    /// Probes in which the operator could not look.
    local: f64,
    skipped: f64,
    lag_p50: f64,
    lag_p99: f64,
    lag_above: f64,
    resident: f64,
    anonymous: f64,
}

fn main() -> anyhow::Result<()> {
    common::alone("probing", "standalone on one core, every endpoint once a second", measure)
}

fn measure() -> anyhow::Result<()> {
    let listener = Listener::start()?;
    let nginx = Nginx::start(OTHERS, false)?;
    let port = |probe| if probe == Probe::Tcp { listener.port } else { nginx.port };
    let probes = [Probe::Tcp, Probe::Http, Probe::HttpKept];
    let (mut many, mut few) = ([const { vec![] }; 3], [const { vec![] }; 3]);
    for round in 1..=rounds(1) {
        for (at, probe) in probes.into_iter().enumerate() {
            let port = port(probe);
            eprintln!("round {round}: {}", probe.name());
            many[at].push(run(&Plan::loopback(scaled(endpoints(probe)), probe, port), window(10))?);
            few[at].push(run(&Plan::loopback(scaled(FEW), probe, port), Duration::from_secs(5))?);
        }
    }
    let mut cost = Table::new([
        "probe",
        "endpoints",
        "probes/s",
        "µs CPU/probe",
        "% of a core",
        "failed",
        "could not look",
        "skipped rounds",
    ]);
    let mut time = Table::new(["probe", "lag p50", "lag p99", "lag > 25.6 ms", "all scheduled", "all probed once"]);
    let mut memory = Table::new(["probe", "RSS of a few", "RSS of all", "heap of all", "bytes/endpoint"]);
    for (at, probe) in probes.into_iter().enumerate() {
        let (many, few) = (&many[at], &few[at]);
        let of = |part: fn(&Run) -> f64| median(many.iter().map(part));
        let sum = |part: fn(&Run) -> f64| many.iter().map(part).sum::<f64>();
        cost.row([
            probe.name().to_owned(),
            scaled(endpoints(probe)).to_string(),
            format!("{:.0}", of(|run| run.per_second)),
            format!("{:.1}", of(|run| run.cost)),
            format!("{:.1}", of(|run| run.share)),
            format!("{:.0}", sum(|run| run.failed)),
            format!("{:.0}", sum(|run| run.local)),
            format!("{:.0}", sum(|run| run.skipped)),
        ]);
        time.row([
            probe.name().to_owned(),
            format!("≤ {:.1} ms", of(|run| run.lag_p50) * 1e3),
            format!("≤ {:.1} ms", of(|run| run.lag_p99) * 1e3),
            format!("{:.3} %", of(|run| run.lag_above)),
            format!("{:.2} s", of(|run| run.scheduled.as_secs_f64())),
            format!("{:.2} s", of(|run| run.probed.as_secs_f64())),
        ]);
        let (large, small) = (of(|run| run.resident), median(few.iter().map(|run| run.resident)));
        memory.row([
            probe.name().to_owned(),
            format!("{:.1} MB", small / 1e6),
            format!("{:.1} MB", large / 1e6),
            format!("{:.1} MB", of(|run| run.anonymous) / 1e6),
            format!("{:.0}", (large - small) / (scaled(endpoints(probe)) - scaled(FEW)) as f64),
        ]);
    }
    println!("half-open handshakes that were completed after all: {}", listener.accepted());
    println!("every endpoint at 1 s; {}; counts are sums\n", over("medians", rounds(1)));
    cost.print("Cost");
    time.print("Punctuality (bounds of the histogram's buckets)");
    memory.print("Memory");
    Ok(())
}

fn run(plan: &Plan, window: Duration) -> anyhow::Result<Run> {
    let operator = Operator::planned(plan, &[], &[])?;
    let [scheduled, probed] = operator.wait_asked(plan.endpoints)?;
    std::thread::sleep(WARM_UP);
    let seen = operator.watch(window)?;
    let [before, after] = &seen.metrics;
    let lag = after.histogram(LAG).since(&before.histogram(LAG));
    Ok(Run {
        scheduled,
        probed,
        cost: seen.cost(),
        share: seen.share(),
        per_second: seen.probes() / seen.seconds(),
        failed: seen.grown(Metrics::failed),
        local: seen.grown(Metrics::local),
        skipped: seen.grown(|metrics| metrics.sum("healthcheck_operator_skipped_rounds_total", "")),
        lag_p50: lag.percentile(50.0),
        lag_p99: lag.percentile(99.0),
        lag_above: lag.above(0.025_6),
        resident: seen.usage[1].resident as f64,
        anonymous: seen.usage[1].anonymous as f64,
    })
}

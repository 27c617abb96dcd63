//! Ours beside HAProxy, Envoy, blackbox_exporter and a raw epoll loop, on the same work in the same session: what a check
//! costs, how punctual it is on the wire, and what an endpoint takes of memory. See `docs/performance.md`.
//!
//!     cargo bench --bench peers
//!
//! Everything runs in a network of its own: whoever is measured on one core, what it asks and all meters on the other.

#[path = "../common/mod.rs"]
mod common;
mod contenders;
mod pace;
mod raw;
#[path = "../../tests/support/mod.rs"]
mod support;
mod wire;

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{
    OTHERS, nginx::Nginx, operator::binary, rounds, scaled, stats::median, table::Table, usage::Usage, window,
};
use contenders::{Contender, Work};
use serde_json::json;
use support::{netns, run_dir};
use wire::Rhythm;

/// As many as every peer can do on one core without falling behind.
const ENDPOINTS: usize = 5_000;
/// How many fewer there are at the other point of the line that tells bytes per endpoint.
const FEWER: usize = 5;
/// Every endpoint has been asked some times by then.
const WARM_UP: Duration = Duration::from_secs(5);

/// One run of one contender.
struct Run {
    /// Microseconds of CPU for one check: user and system time of the process.
    cost: f64,
    user: f64,
    per_second: f64,
    resident: f64,
    rhythm: Option<Rhythm>,
}

fn main() -> anyhow::Result<()> {
    if let Some(args) = raw::asked(std::env::args()) {
        return raw::run(&args);
    }
    binary()?;
    netns::enter()?;
    common::introduce("peers: every endpoint once a second, the prober on one core, its targets on the other");
    common::step_aside()?;
    let done = measure();
    run_dir::finish(done.is_err());
    done
}

fn measure() -> anyhow::Result<()> {
    let nginx = Nginx::start(OTHERS, false)?;
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.to_lowercase().contains(part));
    let works: Vec<Work> = Work::ALL.into_iter().filter(|work| wanted(work.name())).collect();
    let works = if works.is_empty() { Work::ALL.to_vec() } else { works };
    let mut all: BTreeMap<(usize, usize), Vec<Run>> = BTreeMap::new();
    let mut few: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    let mut absent: BTreeMap<(usize, usize), String> = BTreeMap::new();
    let rounds = rounds(5);
    for round in 1..=rounds {
        for (at, work) in works.iter().enumerate() {
            for (number, contender) in Contender::ALL.into_iter().enumerate() {
                if absent.contains_key(&(at, number)) || contender.is_unfit(*work) {
                    continue;
                }
                eprintln!("round {round}: {}, {}", work.name(), contender.name());
                match run(contender, *work, scaled(ENDPOINTS), nginx.port, true) {
                    Ok(run) => all.entry((at, number)).or_default().push(run),
                    Err(error) => {
                        eprintln!("{error:#}");
                        absent.insert((at, number), format!("{error:#}"));
                        continue;
                    }
                }
                if round == 1 && contender.keeps_endpoints() {
                    let less = run(contender, *work, scaled(ENDPOINTS) / FEWER, nginx.port, false)?;
                    few.insert((at, number), less.resident);
                }
            }
        }
    }
    let mut report = vec![];
    for (at, work) in works.iter().enumerate() {
        report.extend(tell(*work, at, &all, &few, &absent, rounds));
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("target/tmp has no parent")?.join("peers.json");
    let whole =
        json!({"endpoints": scaled(ENDPOINTS), "rounds": rounds, "seconds": window(10).as_secs(), "rows": report});
    std::fs::write(&file, serde_json::to_string_pretty(&whole)?)?;
    println!("the same as JSON: {}", file.display());
    Ok(())
}

fn run(contender: Contender, work: Work, endpoints: usize, port: u16, meters: bool) -> anyhow::Result<Run> {
    let running = contender.start(work, endpoints, port)?;
    std::thread::sleep(WARM_UP);
    let window = if meters { window(10) } else { Duration::from_secs(1) };
    let pid = running.pid();
    let (began, opened, before, user) = (Instant::now(), running.asked()?, Usage::of(pid)?, user_time(pid)?);
    std::thread::sleep(window);
    let (asked, after) = (running.asked()? - opened, Usage::of(pid)?);
    let (user, took) = (user_time(pid)? - user, began.elapsed());
    running.check_alive()?;
    // The meter costs the prober's core a little, so it looks when nobody counts.
    let rhythm = if meters && !running.reuses() { wire::listen(port, window).map(Some)? } else { None };
    Ok(Run {
        cost: (after.cpu - before.cpu).as_secs_f64() * 1e6 / asked as f64,
        user: user * 1e6 / asked as f64,
        per_second: asked as f64 / took.as_secs_f64(),
        resident: after.resident as f64,
        rhythm,
    })
}

/// Seconds.
fn user_time(pid: rustix::process::Pid) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
    let fields = stat.rsplit_once(')').context("stat")?.1;
    Ok(fields.split_whitespace().nth(11).context("stat has no times")?.parse::<f64>()? / 100.0)
}

type Of<T> = BTreeMap<(usize, usize), T>;

/// Prints the table of one work, and returns its rows for the file.
fn tell(
    work: Work,
    at: usize,
    all: &Of<Vec<Run>>,
    few: &Of<f64>,
    absent: &Of<String>,
    rounds: usize,
) -> Vec<serde_json::Value> {
    let mut table = Table::new([
        "prober",
        "checks/s",
        "µs CPU/check",
        "of it user",
        "ours : it",
        "bytes/endpoint",
        "interval error p50",
        "p99",
        "mean",
        "burst",
    ]);
    let cost = |number: usize| all.get(&(at, number)).map(|runs| median(runs.iter().map(|run| run.cost)));
    let ours = Contender::ALL.iter().position(|one| *one == Contender::Ours).and_then(cost);
    let mut rows = vec![];
    for (number, contender) in Contender::ALL.into_iter().enumerate() {
        let blank = || "–".to_owned();
        let Some(runs) = all.get(&(at, number)) else {
            if let Some(why) = absent.get(&(at, number)) {
                let why: String = why.lines().next().unwrap_or_default().chars().take(40).collect();
                let mut cells = [const { String::new() }; 10].map(|_| blank());
                cells[0] = contender.name().to_owned();
                cells[1] = why;
                table.row(cells);
            }
            continue;
        };
        let of = |part: fn(&Run) -> f64| median(runs.iter().map(part));
        let rhythm = |part: fn(&Rhythm) -> f64| -> Option<f64> {
            let values: Vec<f64> = runs.iter().filter_map(|run| run.rhythm.as_ref().map(part)).collect();
            (!values.is_empty()).then(|| median(values))
        };
        let slope = few
            .get(&(at, number))
            .map(|few| (of(|run| run.resident) - few) / (scaled(ENDPOINTS) - scaled(ENDPOINTS) / FEWER) as f64);
        let ratio = ours.map(|ours| ours / of(|run| run.cost));
        let millis = |value: Option<f64>| value.map_or_else(blank, |value| format!("{value:.3} ms"));
        let (p50, p99) = (rhythm(|rhythm| rhythm.p50), rhythm(|rhythm| rhythm.p99));
        let (mean, burst) = (rhythm(|rhythm| rhythm.mean), rhythm(|rhythm| rhythm.burst));
        table.row([
            contender.name().to_owned(),
            format!("{:.0}", of(|run| run.per_second)),
            format!("{:.1}", of(|run| run.cost)),
            format!("{:.1}", of(|run| run.user)),
            ratio.map_or_else(blank, |ratio| format!("{ratio:.2}")),
            slope.map_or_else(blank, |slope| format!("{slope:.0}")),
            millis(p50),
            millis(p99),
            millis(mean),
            burst.map_or_else(blank, |burst| format!("{burst:.1}")),
        ]);
        rows.push(json!({
            "work": work.name(), "prober": contender.name(), "checks_per_second": of(|run| run.per_second),
            "cpu_us": of(|run| run.cost), "cpu_us_rounds": runs.iter().map(|run| run.cost).collect::<Vec<_>>(),
            "user_us": of(|run| run.user), "ours_to_it": ratio, "bytes_per_endpoint": slope,
            "interval_error_ms": {"p50": p50, "p99": p99, "mean": mean}, "burst": burst,
        }));
    }
    table.print(&format!(
        "{}, {} endpoints at 1 s, medians of {rounds} alternating rounds",
        work.name(),
        scaled(ENDPOINTS)
    ));
    rows
}

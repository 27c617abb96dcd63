//! What running a script costs beyond what the script itself costs. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench scripts

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use common::{operator::binary, rounds, scaled, stats::median, table::Table};
use healthcheck_operator::{
    check::{Attempt, ObjectKey, Outcome, Probe, ProbeKind, ScriptProbe},
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        script::{Scripts, Setup},
    },
};

/// A program that does nothing: all that is measured is what it takes to have it run.
const PROGRAM: &str = "/bin/true";
/// Of memory that is written to, in the second half of the table.
const HEAP: usize = 1 << 30;

/// What /proc counts CPU time in: USER_HZ is 100 on every architecture that the operator is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Of one run, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

fn main() -> anyhow::Result<()> {
    let program = binary()?.to_owned();
    common::introduce("scripts: /bin/true, one after the other");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let setup = Setup { program, ..Setup::default() };
    let scripts = ScriptBackend::Local(Arc::new(Scripts::new(&setup)));
    let prober = Prober::new(Settings { scripts, ..Settings::standalone() });
    let (runs, rounds) = (scaled(1000), rounds(5));
    let mut table = Table::new(["", "µs CPU/run", "µs/run", "CPU : bare", "time : bare"]);
    let mut heap: Vec<u8> = vec![];
    for (name, size) in [("", 0), (", 1 GB heap", HEAP)] {
        heap.resize(size, 1);
        let mut costs = [vec![], vec![]];
        // The first round starts the worker and is thrown away.
        for round in 0..=rounds {
            let bare = measure(runs, bare)?;
            let ours = measure(runs, || runtime.block_on(ours(&prober)))?;
            if round > 0 {
                costs[0].push(bare);
                costs[1].push(ours);
            }
        }
        let of = |costs: &[Cost], part: fn(&Cost) -> f64| median(costs.iter().map(part));
        let [bare, ours] = &costs;
        for (what, costs) in [("bare posix_spawn", bare), ("a script probe", ours)] {
            let (cpu, wall) = (of(costs, |cost| cost.cpu), of(costs, |cost| cost.wall));
            let ratios = [cpu / of(bare, |cost| cost.cpu), wall / of(bare, |cost| cost.wall)];
            let [cpu_ratio, wall_ratio] = ratios.map(|ratio| format!("{ratio:.2}"));
            table.row([format!("{what}{name}"), format!("{cpu:.0}"), format!("{wall:.0}"), cpu_ratio, wall_ratio]);
        }
    }
    table.print(&format!("medians of {rounds} rounds of {runs} runs, alternating"));
    std::hint::black_box(heap);
    Ok(())
}

/// As cheap as it gets: no output, no deadline, nothing looked for afterwards.
fn bare() -> anyhow::Result<()> {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(command.spawn()?.wait()?.success());
    Ok(())
}

async fn ours(prober: &Prober) -> anyhow::Result<()> {
    let kind = ProbeKind::Script(ScriptProbe { command: [PROGRAM.into()].into(), source: None, env: vec![] });
    let report = prober
        .attempt(Attempt {
            check: ObjectKey::new("bench", "bench"),
            target: "target".into(),
            dial: None,
            probe: Arc::new(Probe { timeout: Duration::from_secs(10), kind }),
            known: vec![],
            kept: None,
        })
        .await;
    ensure!(report.outcome == Outcome::Success, "{report:?}");
    Ok(())
}

fn measure(runs: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Cost> {
    let (begin, before) = (Instant::now(), cpu()?);
    for _ in 0..runs {
        run()?;
    }
    let per_run = |time: Duration| time.as_secs_f64() * 1e6 / runs as f64;
    Ok(Cost { cpu: per_run(cpu()?.saturating_sub(before)), wall: per_run(begin.elapsed()) })
}

/// What this process used, its children that are gone, its workers, and theirs.
fn cpu() -> anyhow::Result<Duration> {
    let own = std::process::id().to_string();
    let children = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
    let mut ticks = 0;
    for process in children.split_whitespace().chain([own.as_str()]) {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
        // utime, stime, cutime and cstime, of which the state is the first field here.
        let times = fields.split_whitespace().skip(11).take(4);
        ticks += times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    }
    Ok(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

//! What running a script costs beyond what the script itself costs. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench scripts
//!
//! Twice: the release binary as a black box, beside a loop that does nothing but `posix_spawn`, both at the same pace on
//! the same core; and the library in this process, where there can be a large heap.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use common::{
    MEASURED,
    figures::Figures,
    operator::{Operator, binary},
    rounds, scaled,
    stats::{median, over, ratios},
    table::Table,
    tree, window,
};
use healthcheck_operator::{
    check::{Attempt, ObjectKey, Outcome, Probe, ProbeKind, ScriptProbe},
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        script::{Scripts, Setup},
    },
};
use support::{process::Process, run_dir};

/// A program that does nothing: all that is measured is what it takes to have it run.
const PROGRAM: &str = "/bin/true";
/// Of memory that is written to, in the second half of the table.
const HEAP: usize = 1 << 30;
/// As many checks, each once a second.
const CHECKS: usize = 400;
const SECONDS: u64 = 4;
/// What this program is told to be the bare loop.
const WORD: &str = "bare-posix-spawn";

/// Of one run of the script, in microseconds.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, pace] = words.as_slice()
        && word == WORD
    {
        return bare_loop(pace.parse()?);
    }
    if !common::wanted("scripts") {
        return Ok(());
    }
    binary()?;
    common::introduce("scripts: /bin/true");
    common::step_aside()?;
    let mut figures = Figures::new("scripts");
    let done = paced(&mut figures).and_then(|()| in_process(&mut figures));
    figures.write()?;
    run_dir::finish(done.is_err());
    done
}

/// The operator beside a bare loop.
fn paced(figures: &mut Figures) -> anyhow::Result<()> {
    let (mut ours, mut bare) = (vec![], vec![]);
    for round in 1..=rounds(5) {
        eprintln!("round {round}: scripts, paced");
        bare.push(watch_bare()?);
        ours.push(watch_ours()?);
    }
    let ratios = ratios(&ours, &bare);
    let mut table = Table::new(["", "µs CPU/run", "CPU : bare"]);
    for (name, costs, ratio) in
        [("bare posix_spawn", &bare, 1.0), ("`standalone`, all of it", &ours, median(ratios.iter().copied()))]
    {
        table.row([name.to_owned(), format!("{:.0}", median(costs.iter().copied())), format!("{ratio:.2}")]);
    }
    table.print(&format!(
        "{} runs a second, processes and their children; {}",
        scaled(CHECKS),
        over("medians", rounds(5))
    ));
    figures.reach_all("12", "CPU per script, ours : bare posix_spawn", &ratios);
    figures.note_all("CPU per script, ours", &ours, "µs");
    figures.note_all("CPU per script, bare posix_spawn", &bare, "µs");
    Ok(())
}

fn watch_ours() -> anyhow::Result<f64> {
    let mut yaml = String::new();
    for number in 0..scaled(CHECKS) {
        write!(
            yaml,
            "---\napiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: check-{number}, \
             namespace: bench}}\nspec:\n  interval: 1s\n  timeout: 900ms\n  probe: {{script: {{command: [{PROGRAM}]}}}}\n  \
             targets: [{{name: only}}]\n"
        )?;
    }
    let file = run_dir::sub_dir("manifests").join("scripts.yaml");
    std::fs::write(&file, yaml)?;
    let operator = Operator::standalone(&file, &[], &[])?;
    operator.wait_scheduled(scaled(CHECKS))?;
    operator.wait_probes(2 * scaled(CHECKS))?;
    let pid = operator.process().pid().as_raw_nonzero().get();
    let (probes, before) = (operator.metrics()?.probes(), tree::cpu(pid)?);
    std::thread::sleep(window(SECONDS));
    let used = tree::cpu(pid)?.saturating_sub(before);
    let after = operator.metrics()?;
    ensure!(after.failed() + after.local() == 0.0, "not every run of {PROGRAM} went well");
    Ok(used.as_secs_f64() * 1e6 / (after.probes() - probes))
}

fn watch_bare() -> anyhow::Result<f64> {
    let program = std::env::current_exe()?.display().to_string();
    let args = ["--cpu-list", &MEASURED.to_string(), &program, WORD, &scaled(CHECKS).to_string()].map(str::to_owned);
    let log = run_dir::sub_dir("bare").join("bare.log");
    let bare = Process::start(Path::new("/usr/bin/taskset"), &args, &[], &log)?;
    let pid = bare.pid().as_raw_nonzero().get();
    std::thread::sleep(Duration::from_secs(1));
    let (begun, before) = (Instant::now(), tree::cpu(pid)?);
    std::thread::sleep(window(SECONDS));
    let used = tree::cpu(pid)?.saturating_sub(before);
    let runs = begun.elapsed().as_secs_f64() * scaled(CHECKS) as f64;
    bare.check_alive()?;
    Ok(used.as_secs_f64() * 1e6 / runs)
}

/// So many runs a second until it is killed.
fn bare_loop(pace: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    for number in 0_u32.. {
        let due = begun + Duration::from_secs_f64(f64::from(number) / f64::from(pace));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        bare()?;
    }
    Ok(())
}

/// One after the other, without and with a large heap.
fn in_process(figures: &mut Figures) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let setup = Setup { program: binary()?.to_owned(), ..Setup::default() };
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
            eprintln!("round {round}: scripts{name}");
            let bare = measure(runs, bare)?;
            let ours = measure(runs, || runtime.block_on(ours(&prober)))?;
            if round > 0 {
                costs[0].push(bare);
                costs[1].push(ours);
            }
        }
        let of = |costs: &[Cost], part: fn(&Cost) -> f64| costs.iter().map(part).collect::<Vec<_>>();
        let [bare, ours] = &costs;
        for (what, costs) in [("bare posix_spawn", bare), ("a script probe", ours)] {
            let [cpu, wall] = [|cost: &Cost| cost.cpu, |cost: &Cost| cost.wall].map(|part| {
                let (its, bare) = (of(costs, part), of(bare, part));
                (format!("{:.0}", median(its.iter().copied())), format!("{:.2}", median(ratios(&its, &bare))))
            });
            table.row([format!("{what}{name}"), cpu.0, wall.0, cpu.1, wall.1]);
        }
        let ratios = ratios(&of(ours, |cost| cost.cpu), &of(bare, |cost| cost.cpu));
        if size > 0 {
            figures.reach_all("12", "CPU per script with a heap of 1 GB, ours : bare posix_spawn", &ratios);
        } else {
            figures.note_all(
                "CPU per script, one after the other in one process, ours : bare posix_spawn",
                &ratios,
                "",
            );
        }
    }
    let over = over("medians", rounds);
    table.print(&format!("One after the other in one process, {over} of {runs} runs, alternating"));
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
    let own = i32::try_from(std::process::id()).context("a process id")?;
    let (begin, before) = (Instant::now(), tree::cpu(own)?);
    for _ in 0..runs {
        run()?;
    }
    let per_run = |time: Duration| time.as_secs_f64() * 1e6 / runs as f64;
    Ok(Cost { cpu: per_run(tree::cpu(own)?.saturating_sub(before)), wall: per_run(begin.elapsed()) })
}

//! As many checks as a core can make, by us and by the raw epoll loop, which never has more under way than we may.
//!
//! Ours has to do what the raw loop has just done, at the shortest interval there is: as it costs more, more than it can. The
//! raw loop is looked at before it and after it, and told by the mean of both: what a check costs on a machine that others
//! share changes within seconds.

use std::time::Duration;

use super::{
    contenders::{Contender, Running},
    run::Cost,
    task::{Every, Task, Work},
};
use crate::common::{
    figures::Figures,
    listener, rounds, scaled,
    stats::{median, over, ratios},
    table::Table,
    window,
};

/// How `BENCH_ONLY` calls it.
pub const PART: &str = "saturated";
/// Attempts under way at once.
const AT_ONCE: usize = 128;
const EVERY: Every = Every(Duration::from_millis(100));
const WARM_UP: Duration = Duration::from_secs(2);
const SECONDS: u64 = 4;

struct Run {
    raw: Cost,
    ours: Cost,
    failed: f64,
}

/// What is asked, and the metric that a goal is held against; nginx is full before the raw loop is.
struct Asked {
    work: Work,
    of: &'static str,
    port: u16,
    goal: Option<&'static str>,
}

impl Asked {
    fn all(nginx: u16) -> anyhow::Result<[Self; 3]> {
        Ok([
            Self {
                work: Work::Tcp,
                of: "nginx",
                port: nginx,
                goal: Some("saturated, CPU per TCP check, ours : raw epoll loop"),
            },
            Self {
                work: Work::Http,
                of: "a bare loop",
                port: listener::answer()?,
                goal: Some("saturated, CPU per HTTP check, ours : raw epoll loop"),
            },
            Self { work: Work::Http, of: "nginx", port: nginx, goal: None },
        ])
    }

    fn name(&self) -> String {
        format!("{}, of {}", self.work.name(), self.of)
    }
}

/// `nginx` is the port of one that all are asked of but where it would be what is full.
pub fn measure(nginx: u16, figures: &mut Figures) -> anyhow::Result<()> {
    let mut table = Table::new([
        "work",
        "raw, checks/s",
        "µs CPU/check",
        "% of the core",
        "ours, checks/s",
        "µs CPU/check",
        "% of the core",
        "failed",
        "ours : raw",
    ]);
    for asked in Asked::all(nginx)? {
        let mut runs = vec![];
        for round in 1..=rounds(5) {
            eprintln!("round {round}: saturated, {}", asked.name());
            runs.push(run(&asked)?);
        }
        let of = |part: fn(&Run) -> f64| median(runs.iter().map(part));
        let (ours, raw): (Vec<_>, Vec<_>) = runs.iter().map(|run| (run.ours.cpu, run.raw.cpu)).unzip();
        let ratios = ratios(&ours, &raw);
        table.row([
            asked.name(),
            format!("{:.0}", of(|run| run.raw.per_second)),
            format!("{:.1}", of(|run| run.raw.cpu)),
            format!("{:.0}", of(|run| run.raw.share)),
            format!("{:.0}", of(|run| run.ours.per_second)),
            format!("{:.1}", of(|run| run.ours.cpu)),
            format!("{:.0}", of(|run| run.ours.share)),
            format!("{:.0}", runs.iter().map(|run| run.failed).sum::<f64>()),
            format!("{:.2}", median(ratios.iter().copied())),
        ]);
        let name = |who: &str| format!("saturated: {}, {who}", asked.name());
        match asked.goal {
            Some(metric) => figures.reach_all("4", metric, &ratios),
            None => figures.note_all(name("ours : raw epoll loop"), &ratios, ""),
        }
        figures.note_all(name("ours, CPU per check"), &ours, "µs");
        figures.note_all(name("raw epoll loop, CPU per check"), &raw, "µs");
    }
    table.print(&format!("Saturated, {AT_ONCE} attempts at once, {}", over("medians", rounds(5))));
    Ok(())
}

fn run(asked: &Asked) -> anyhow::Result<Run> {
    let Asked { work, port, .. } = *asked;
    let task = Task { work, endpoints: scaled(3_000), every: EVERY, port };
    let raw = || look(&Contender::Raw.start_saturated(&task, AT_ONCE)?);
    let before = raw()?;
    let endpoints = (before.per_second * EVERY.0.as_secs_f64()) as usize;
    let running = Contender::Ours.start_saturated(&Task { endpoints: endpoints.max(1), ..task }, AT_ONCE)?;
    let (ours, failed) = (look(&running)?, running.metrics()?.failed());
    drop(running);
    Ok(Run { raw: mean(&before, &raw()?), ours, failed })
}

fn mean(before: &Cost, after: &Cost) -> Cost {
    let of = |part: fn(&Cost) -> f64| f64::midpoint(part(before), part(after));
    Cost {
        cpu: of(|cost| cost.cpu),
        user: of(|cost| cost.user),
        per_second: of(|cost| cost.per_second),
        share: of(|cost| cost.share),
        switches: of(|cost| cost.switches),
        resident: of(|cost| cost.resident),
    }
}

fn look(running: &Running) -> anyhow::Result<Cost> {
    std::thread::sleep(WARM_UP);
    Cost::of(running, window(SECONDS))
}

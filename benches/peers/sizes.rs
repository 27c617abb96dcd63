//! From 2,000 endpoints to 100,000, at intervals that a core suffices for: what a check costs must not grow with how many
//! there are.

use std::time::Duration;

use super::{
    contenders::Contender,
    run::Cost,
    task::{Every, Task, Work},
};
use crate::common::{
    figures::Figures,
    rounds, scaled,
    stats::{median, over, ratios},
    table::Table,
    window,
};

/// How `BENCH_ONLY` calls it.
pub const PART: &str = "sizes";
/// How many, and how often each: 2,000 a second or 5,000.
const SIZES: [(usize, u64); 4] = [(2_000, 1), (5_000, 1), (20_000, 4), (100_000, 20)];
/// Who is none too slow to start with so many.
const CONTENDERS: [Contender; 3] = [Contender::Ours, Contender::Raw, Contender::HaProxy];
const SECONDS: u64 = 5;

pub fn measure(port: u16, figures: &mut Figures) -> anyhow::Result<()> {
    let mut table =
        Table::new(["endpoints", "interval", "prober", "checks/s", "µs CPU/check", "ours : it", "resident MB"]);
    // Many minutes otherwise; what is wanted is the trend.
    let rounds = rounds(5).div_ceil(5);
    let mut runs: Vec<Vec<Vec<Cost>>> = SIZES.map(|_| CONTENDERS.map(|_| vec![]).into()).into();
    for round in 1..=rounds {
        for (at, (endpoints, seconds)) in SIZES.into_iter().enumerate() {
            for (number, contender) in CONTENDERS.into_iter().enumerate() {
                eprintln!("round {round}: {} endpoints, {}", scaled(endpoints), contender.name());
                let every = Every(Duration::from_secs(seconds));
                let task = Task { work: Work::Tcp, endpoints: scaled(endpoints), every, port };
                match run(contender, &task) {
                    Ok(cost) => runs[at][number].push(cost),
                    // HAProxy needs a descriptor for each server, and some machines have no more than 20,000.
                    Err(error) if contender != Contender::Ours => eprintln!("{}: {error:#}", contender.name()),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    for ((endpoints, seconds), runs) in SIZES.into_iter().zip(&runs) {
        for (contender, its) in CONTENDERS.into_iter().zip(runs).filter(|(_, its)| !its.is_empty()) {
            let of = |part: fn(&Cost) -> f64| median(its.iter().map(part));
            let cpu = |runs: &[Cost]| runs.iter().map(|cost| cost.cpu).collect::<Vec<_>>();
            let ratio = median(ratios(&cpu(&runs[0]), &cpu(its)));
            table.row([
                scaled(endpoints).to_string(),
                format!("{seconds} s"),
                contender.name().to_owned(),
                format!("{:.0}", of(|cost| cost.per_second)),
                format!("{:.1}", of(|cost| cost.cpu)),
                format!("{ratio:.2}"),
                format!("{:.1}", of(|cost| cost.resident) / 1e6),
            ]);
            let name =
                format!("TCP, {} endpoints at {seconds} s: {}, CPU per check", scaled(endpoints), contender.name());
            figures.note_all(name, &cpu(its), "µs");
        }
    }
    table.print(&format!("TCP, half-open, from few endpoints to many, {}", over("medians", rounds)));
    Ok(())
}

fn run(contender: Contender, task: &Task) -> anyhow::Result<Cost> {
    let running = contender.start(task)?;
    running.wait_begun(task.endpoints / 10)?;
    // What comes of the start itself is over.
    std::thread::sleep(Duration::from_secs(3).max(task.every.0 / 2));
    Cost::of(&running, window(SECONDS))
}

//! Bytes for an endpoint: the slope of resident memory from 10,000 endpoints to 100,000, once each has been asked.

use std::time::Duration;

use crate::{
    common::{
        MEASURED,
        figures::Figures,
        listener::Listener,
        manifests::{Plan, Probe},
        operator::Operator,
        rounds, scaled,
        stats::median,
        table::Table,
        usage::Usage,
    },
    support::run_dir::sub_dir,
};

const FEW: usize = 10_000;
const MANY: usize = 100_000;
/// So seldom that a core suffices for all of them.
const INTERVAL: &str = "60s";
const START: Duration = Duration::from_secs(180);
/// What the container image sets.
const IMAGE: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_MMAP_THRESHOLD_", "65536")];

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let mut table = Table::new(["allocator", "RSS of 10k", "RSS of 100k", "bytes/endpoint", "all asked once after"]);
    // Memory hardly differs from round to round.
    let rounds = rounds(5).div_ceil(3);
    for (name, env) in [("as it comes", &[][..]), ("as in the image", &IMAGE[..])] {
        let (mut few, mut many, mut slopes, mut asked) = (vec![], vec![], vec![], vec![]);
        for round in 1..=rounds {
            eprintln!("round {round}: memory, allocator {name}");
            let (less, _) = run(scaled(FEW), port, env)?;
            let (more, took) = run(scaled(MANY), port, env)?;
            let grown = more.resident as f64 - less.resident as f64;
            slopes.push(grown / (scaled(MANY) - scaled(FEW)) as f64);
            few.push(less.resident as f64);
            many.push(more.resident as f64);
            asked.push(took.as_secs_f64());
        }
        table.row([
            name.to_owned(),
            format!("{:.1} MB", median(few) / 1e6),
            format!("{:.1} MB", median(many) / 1e6),
            format!("{:.0}", median(slopes.iter().copied())),
            format!("{:.1} s", median(asked)),
        ]);
        if env.is_empty() {
            figures.reach_all("7a", "bytes per endpoint, engine, resident, 10k → 100k", &slopes);
        } else {
            figures.note_all("bytes per endpoint, engine, with the allocator's settings of the image", &slopes, "B");
        }
    }
    table.print(&format!(
        "Memory, {} endpoints and {} at {INTERVAL}, medians of {rounds} rounds",
        scaled(FEW),
        scaled(MANY)
    ));
    Ok(())
}

fn run(endpoints: usize, port: u16, env: &[(&str, &str)]) -> anyhow::Result<(Usage, Duration)> {
    let plan = Plan { interval: INTERVAL.into(), ..Plan::loopback(endpoints, Probe::Tcp, port) };
    let file = sub_dir("manifests").join(format!("memory-{endpoints}.yaml"));
    plan.write(&file)?;
    let args = ["standalone", "-f", &file.display().to_string()];
    let operator = Operator::start_with(&MEASURED.to_string(), &args, env)?;
    operator.wait_scheduled(endpoints, START)?;
    let took = operator.wait_probes(endpoints, START)?;
    Ok((operator.usage()?, took))
}

//! Bytes for an endpoint: the slope of resident memory from 10,000 endpoints to 100,000, once each has been asked.

use std::time::Duration;

use crate::common::{
    figures::Figures,
    listener::Listener,
    manifests::{Plan, Probe},
    operator::{IMAGE, Operator},
    rounds, scaled,
    stats::{median, over},
    table::Table,
};

const FEW: usize = 10_000;
const MANY: usize = 100_000;
/// So seldom that a core suffices for all of them.
const INTERVAL: &str = "60s";

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let mut table = Table::new(["allocator", "RSS of 10k", "RSS of 100k", "bytes/endpoint", "all asked once after"]);
    // Memory differs little from round to round.
    let rounds = rounds(5).div_ceil(2);
    for (name, env) in [("as it comes", &[][..]), ("as in the image", &IMAGE[..])] {
        let (mut few, mut many, mut slopes, mut asked) = (vec![], vec![], vec![], vec![]);
        for round in 1..=rounds {
            eprintln!("round {round}: memory, allocator {name}");
            let (less, _) = run(scaled(FEW), port, env)?;
            let (more, took) = run(scaled(MANY), port, env)?;
            slopes.push((more - less) / (scaled(MANY) - scaled(FEW)) as f64);
            few.push(less);
            many.push(more);
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
        "Memory, {} endpoints and {} at {INTERVAL}, {}",
        scaled(FEW),
        scaled(MANY),
        over("medians", rounds)
    ));
    Ok(())
}

/// Bytes that are resident, and how long it took to ask all of them.
fn run(endpoints: usize, port: u16, env: &[(&str, &str)]) -> anyhow::Result<(f64, Duration)> {
    let plan = Plan { interval: INTERVAL.into(), ..Plan::loopback(endpoints, Probe::Tcp, port) };
    let operator = Operator::planned(&plan, &[], env)?;
    let [_, asked] = operator.wait_asked(endpoints)?;
    Ok((operator.usage()?.resident as f64, asked))
}

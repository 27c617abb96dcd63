//! What 10,000 checks take of a core that are asked once a minute.

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
        window,
    },
    support::run_dir::sub_dir,
};

const CHECKS: usize = 10_000;
const START: Duration = Duration::from_secs(180);
/// Half a minute has as many rounds as the other half, for the phases are spread evenly.
const SECONDS: u64 = 30;

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let checks = scaled(CHECKS);
    let plan = Plan { interval: "60s".into(), per_check: 1, ..Plan::loopback(checks, Probe::Tcp, port) };
    let file = sub_dir("manifests").join("idle.yaml");
    plan.write(&file)?;
    let operator = Operator::start(&MEASURED.to_string(), &["standalone", "-f", &file.display().to_string()])?;
    operator.wait_scheduled(checks, START)?;
    operator.wait_probes(checks, START)?;
    let (mut shares, mut switches, mut asked) = (vec![], vec![], vec![]);
    // One operator, watched again and again: nothing of its start is in it.
    for round in 1..=rounds(5).div_ceil(2) {
        eprintln!("round {round}: idle");
        let (probes, before) = (operator.metrics()?.probes(), operator.usage()?);
        std::thread::sleep(window(SECONDS));
        let after = operator.usage()?;
        asked.push((operator.metrics()?.probes() - probes) / (after.at - before.at).as_secs_f64());
        shares.push(after.share_since(&before));
        switches.push((after.switches - before.switches) as f64 / (after.at - before.at).as_secs_f64());
    }
    let mut table = Table::new(["checks", "interval", "probes/s", "% of a core", "context switches/s"]);
    table.row([
        checks.to_string(),
        "60 s".to_owned(),
        format!("{:.0}", median(asked)),
        format!("{:.2}", median(shares.iter().copied())),
        format!("{:.0}", median(switches.iter().copied())),
    ]);
    table.print("Idle");
    figures.reach_all("15", "idle, 10,000 checks at 60 s", &shares);
    figures.note_all("idle, 10,000 checks at 60 s, context switches a second", &switches, "");
    Ok(())
}

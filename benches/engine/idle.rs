//! What 10,000 checks take of a core that are asked once a minute.

use crate::common::{
    figures::Figures,
    listener::Listener,
    manifests::{Plan, Probe},
    operator::Operator,
    rounds, scaled,
    stats::median,
    table::Table,
    window,
};

const CHECKS: usize = 10_000;
/// Half a minute has as many rounds as the other half, for the phases are spread evenly.
const SECONDS: u64 = 30;

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let checks = scaled(CHECKS);
    let plan = Plan { interval: "60s".into(), per_check: 1, ..Plan::loopback(checks, Probe::Tcp, port) };
    let operator = Operator::planned(&plan, &[], &[])?;
    operator.wait_asked(checks)?;
    let (mut shares, mut switches, mut asked) = (vec![], vec![], vec![]);
    // One operator, watched again and again: nothing of its start is in it.
    for round in 1..=rounds(5).div_ceil(2) {
        eprintln!("round {round}: idle");
        let seen = operator.watch(window(SECONDS))?;
        asked.push(seen.probes() / seen.seconds());
        shares.push(seen.share());
        switches.push((seen.usage[1].switches - seen.usage[0].switches) as f64 / seen.seconds());
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

//! What a check over HTTPS costs: with a handshake from scratch each time, with a session that goes on, and over a
//! connection that is kept. Every certificate is verified. Which of them it was is counted by the server.

use std::time::Duration;

use crate::common::{
    OTHERS, certificates,
    figures::Figures,
    manifests::{Plan, Probe},
    nginx::Nginx,
    operator::Operator,
    rounds, scaled,
    stats::{median, over, ratios},
    table::Table,
    window,
};

const ENDPOINTS: usize = 1_000;
const WARM_UP: Duration = Duration::from_secs(2);
const SECONDS: u64 = 3;

struct Run {
    /// Microseconds of CPU for one check.
    cost: f64,
    per_second: f64,
    /// Of the requests, in percent.
    resumed: f64,
    failed: f64,
}

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    certificates::make()?;
    let mut kinds = [
        ("handshake from scratch", Probe::Https, false),
        ("resumed", Probe::Https, true),
        ("kept", Probe::HttpsKept, true),
    ]
    .map(|kind| (kind, Vec::<Run>::new()));
    for round in 1..=rounds(5) {
        for ((name, probe, resumes), runs) in &mut kinds {
            eprintln!("round {round}: HTTPS, {name}");
            runs.push(run(*probe, *resumes)?);
        }
    }
    let mut table = Table::new(["HTTPS", "checks/s", "µs CPU/check", "requests in resumed sessions", "failed"]);
    for ((name, _, _), runs) in &kinds {
        let of = |part: fn(&Run) -> f64| median(runs.iter().map(part));
        table.row([
            (*name).to_owned(),
            format!("{:.0}", of(|run| run.per_second)),
            format!("{:.1}", of(|run| run.cost)),
            format!("{:.0} %", of(|run| run.resumed)),
            format!("{:.0}", runs.iter().map(|run| run.failed).sum::<f64>()),
        ]);
        let costs: Vec<f64> = runs.iter().map(|run| run.cost).collect();
        figures.note_all(format!("CPU per HTTPS check, {name}"), &costs, "µs");
    }
    table.print(&format!(
        "{} endpoints at 1 s, TLS 1.3, P-256, verified; {}",
        scaled(ENDPOINTS),
        over("medians", rounds(5))
    ));
    let [fresh, resumed, kept] = kinds.map(|(_, runs)| runs.iter().map(|run| run.cost).collect::<Vec<_>>());
    figures.reach_all("13", "CPU per HTTPS check, resumed : fresh, both verified", &ratios(&resumed, &fresh));
    figures.reach_all("13", "CPU per HTTPS check, kept connection", &kept);
    Ok(())
}

fn run(probe: Probe, resumes: bool) -> anyhow::Result<Run> {
    let nginx = Nginx::start_tls(OTHERS, resumes)?;
    let plan = Plan::loopback(scaled(ENDPOINTS), probe, nginx.port);
    let trust = certificates::authority().display().to_string();
    let operator = Operator::planned(&plan, &[], &[("SSL_CERT_FILE", &trust)])?;
    operator.wait_asked(plan.endpoints)?;
    std::thread::sleep(WARM_UP);
    let lines = nginx.access_log()?.len();
    let seen = operator.watch(window(SECONDS))?;
    Ok(Run {
        cost: seen.cost(),
        per_second: seen.probes() / seen.seconds(),
        resumed: nginx.resumed_since(lines)?,
        failed: seen.metrics[1].failed(),
    })
}

//! How much later a verdict comes than it must: a target closes its listener at a known time, and is asked for the
//! `failureThreshold`th time after that at a known time too, by the grid that its endpoint is on. That grid is read from
//! the SYNs on the wire while the target still listened; the verdict is the operator's own line in the log. All clocks
//! are the same machine's.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;

use crate::{
    common::{
        client::Client,
        figures::Figures,
        listener::Listener,
        manifests::{Plan, Probe, address},
        operator::Operator,
        rounds, scaled,
        stats::{percentile, sorted},
        table::Table,
        wire::{Begin, Capture},
    },
    support::{ports::free_port, run_dir::sub_dir},
};

/// They die, each alone; those that do not are asked all the while, so that there is something to wait behind.
const MORTAL: usize = 200;
const IMMORTAL: usize = 4_800;
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
const FAILURES: u64 = 3;
const SECOND: u64 = 1_000_000_000;
/// A target that dies this near to its round may be asked before or after it.
const UNSURE: u64 = 3_000_000;
const SOON: Duration = Duration::from_secs(60);

pub fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let (alive, port) = (Listener::start()?.port, free_port());
    let mortal = scaled(MORTAL);
    let operator = start(mortal, port, alive)?;
    let (mut all, mut tails, mut unsure) = (vec![], vec![], 0);
    for round in 1..=rounds(5) {
        eprintln!("round {round}: verdicts");
        let late = run(&operator, mortal, port)?;
        unsure += mortal - late.len();
        tails.push(percentile(&sorted(late.iter().copied()), 99.0));
        all.extend(late);
    }
    ensure!(!all.is_empty(), "no verdict could be told apart");
    let all = sorted(all);
    let at = |percent| format!("{:.2} ms", percentile(&all, percent));
    let mut table = Table::new(["deaths", "p50", "p99", "max", "too near to a round"]);
    table.row([all.len().to_string(), at(50.0), at(99.0), at(100.0), unsure.to_string()]);
    table.print(&format!(
        "Failure → verdict, beyond the wait for the {FAILURES}rd round after it ({} other endpoints at 1 s)",
        scaled(IMMORTAL)
    ));
    figures.reach_all("8", "failure → verdict beyond the theoretical wait, p99", &tails);
    figures.note("failure → verdict beyond the theoretical wait, p50", percentile(&all, 50.0), "ms");
    figures.note("failure → verdict beyond the theoretical wait, max", percentile(&all, 100.0), "ms");
    Ok(())
}

fn mortal_at(number: usize) -> Ipv4Addr {
    address(FIRST, number)
}

fn start(mortal: usize, port: u16, alive: u16) -> anyhow::Result<Operator> {
    let directory = sub_dir("verdicts");
    Plan { name: "other", ..Plan::loopback(scaled(IMMORTAL), Probe::Tcp, alive) }
        .write(&directory.join("others.yaml"))?;
    let mut yaml = String::new();
    for number in 0..mortal {
        write!(
            yaml,
            "---\napiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: mortal-{number}, \
             namespace: bench}}\nspec:\n  interval: 1s\n  timeout: 900ms\n  failureThreshold: {FAILURES}\n  \
             successThreshold: 1\n  probe: {{tcp: {{handshake: HalfOpen}}}}\n  targets: [{{name: only, host: {}, \
             port: {port}}}]\n",
            mortal_at(number)
        )
        .expect("a String takes all");
    }
    std::fs::write(directory.join("mortal.yaml"), yaml)?;
    let flags = ["--log-format", "json", "--access-log-skip", "/healthz"];
    let operator = Operator::standalone(&directory, &flags, &[])?;
    operator.wait_scheduled(mortal + scaled(IMMORTAL))?;
    Ok(operator)
}

/// Has all of them die once. Milliseconds.
fn run(operator: &Operator, mortal: usize, port: u16) -> anyhow::Result<Vec<f64>> {
    let listen = |number| TcpListener::bind((mortal_at(number), port)).context("a mortal target");
    let listeners: Vec<TcpListener> = (0..mortal).map(listen).collect::<Result<_, _>>()?;
    until("every check Healthy", || Ok(Client::connect(operator.public)?.get("/healthz")?.0 == 200))?;
    let seen_before = deaths(operator)?.len();
    let capture = Capture::start(port, Begin::Syn)?;
    // Each is asked twice or thrice, so that its grid is known.
    std::thread::sleep(Duration::from_millis(2_500));
    let mut closed = vec![];
    for listener in listeners {
        drop(listener);
        closed.push(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?);
        // All of a second's phases, three times.
        std::thread::sleep(Duration::from_secs(3) / u32::try_from(mortal)?);
    }
    until("every mortal check Unhealthy", || Ok(deaths(operator)?.len() >= seen_before + mortal))?;
    let syns = capture.stop()?;
    let told: HashMap<usize, u64> = deaths(operator)?.split_off(seen_before).into_iter().collect();
    let mut asked: HashMap<Ipv4Addr, Vec<u64>> = HashMap::new();
    for (at, to) in syns {
        asked.entry(to).or_default().push(at);
    }
    let mut late = vec![];
    for (number, closed) in closed.into_iter().enumerate() {
        let times = asked.get(&mortal_at(number)).context("a target that was never asked")?;
        let before: Vec<u64> = times.iter().copied().filter(|at| *at < closed).collect();
        let first = *before.first().context("a target that was not asked before it died")?;
        // A SYN goes out when it is due or later: the earliest is next to the grid.
        let place = |at: &u64| (at - first + SECOND / 2) % SECOND;
        let phase = first + before.iter().map(place).min().unwrap_or(SECOND / 2) - SECOND / 2;
        let next = phase + (closed - phase).div_ceil(SECOND) * SECOND;
        if (UNSURE..SECOND - UNSURE).contains(&(next - closed)) {
            let told = told.get(&number).context("a death that was not told")?;
            late.push((*told as f64 - (next + (FAILURES - 1) * SECOND) as f64) / 1e6);
        }
    }
    Ok(late)
}

/// Which mortal check became Unhealthy, and when (nanoseconds since 1970), by the log.
fn deaths(operator: &Operator) -> anyhow::Result<Vec<(usize, u64)>> {
    let mut deaths = vec![];
    let output = operator.process().output();
    // The last line may be half written.
    for line in output.lines().filter(|line| line.contains("\"health changed\"") && line.ends_with('}')) {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().with_context(|| format!("no {name} in {line}"));
        let number = text("check")?.strip_prefix("bench/mortal-").and_then(|number| number.parse().ok());
        if let (Some(number), "Unhealthy") = (number, text("to")?) {
            let at: Timestamp = text("timestamp")?.parse()?;
            deaths.push((number, u64::try_from(at.as_nanosecond())?));
        }
    }
    Ok(deaths)
}

fn until(what: &str, good: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        if good()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("waited {SOON:?} for {what}")
}

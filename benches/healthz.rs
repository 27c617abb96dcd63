//! How fast `/healthz` answers with 10,000 checks on the board, beside nginx's `stub_status` in the same run. See
//! `docs/benchmarks.md`.
//!
//!     cargo bench --bench healthz

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use common::{
    MEASURED,
    client::{Client, Latencies},
    figures::Figures,
    listener::Listener,
    manifests::{Plan, Probe},
    nginx::Nginx,
    operator::Operator,
    rounds, scaled,
    stats::median,
    table::Table,
    window,
    wrk::{Saturated, saturate},
};
use support::run_dir;

const CHECKS: usize = 10_000;
const START: Duration = Duration::from_secs(60);
/// Requests a second over the one kept connection: far more than any load balancer asks.
const PACE: u32 = 500;
const CONNECTIONS: u32 = 16;

/// A server under test; all of them run on the measured core, one at a time or idle.
struct Server {
    name: &'static str,
    address: SocketAddr,
    path: &'static str,
    paced: Vec<Latencies>,
    saturated: Vec<Saturated>,
}

impl Server {
    fn new(name: &'static str, address: SocketAddr, path: &'static str) -> Self {
        Self { name, address, path, paced: vec![], saturated: vec![] }
    }
}

fn main() -> anyhow::Result<()> {
    common::alone("healthz", "10,000 checks on the board, server on one core, client on the other", measure)
}

fn measure() -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let (quiet_nginx, logging_nginx) = (Nginx::start(MEASURED, false)?, Nginx::start(MEASURED, true)?);
    // The same checks, asked so seldom that the board rests, and once a second.
    let resting = start(port, "10m", &["--access-log-skip", "/healthz"])?;
    let rest = resting.public;
    let logging = start(port, "10m", &[])?;
    let log = logging.public;
    let mut servers = [
        Server::new("nginx, stub_status", quiet_nginx.address(), "/stub_status"),
        Server::new("operator, checks at rest", rest, "/healthz"),
        Server::new("operator, one check of them", rest, "/healthz/bench/check-0"),
        Server::new("nginx, access log", logging_nginx.address(), "/stub_status"),
        Server::new("operator, access log", log, "/healthz"),
    ];
    for round in 1..=rounds(5) {
        for server in &mut servers {
            eprintln!("round {round}: {}", server.name);
            measure_one(server)?;
        }
    }
    drop((resting, logging));
    let probing = start(port, "1s", &["--access-log-skip", "/healthz"])?;
    let mut busy = Server::new("operator, probing 10,000/s", probing.public, "/healthz");
    let begun = probing.usage()?;
    std::thread::sleep(Duration::from_secs(5));
    let share = probing.usage()?.share_since(&begun);
    for round in 1..=rounds(5) {
        eprintln!("round {round}: {}", busy.name);
        measure_one(&mut busy)?;
    }
    report(servers.iter().chain([&busy]), share);
    tell(&servers[1], &servers[0]).write()
}

/// Round by round, as the machine's tails change with the hour.
fn tell(ours: &Server, nginx: &Server) -> Figures {
    let mut figures = Figures::new("healthz");
    let rates = |server: &Server| server.saturated.iter().map(|seen| seen.per_second).collect::<Vec<_>>();
    let tails = |server: &Server| server.paced.iter().map(|seen| seen.p99 / 1e3).collect::<Vec<_>>();
    let each = |ours: &[f64], its: &[f64]| ours.iter().zip(its).map(|(ours, its)| ours / its).collect::<Vec<_>>();
    figures.reach_all("16", "/healthz, requests a second, ours : nginx", &each(&rates(ours), &rates(nginx)));
    figures.reach_all("16", "/healthz, p99", &tails(ours));
    figures.reach_all("16", "/healthz, p99, ours : nginx", &each(&tails(ours), &tails(nginx)));
    figures.note_all("/healthz, requests a second", &rates(ours), "");
    figures.note_all("nginx stub_status, requests a second", &rates(nginx), "");
    figures
}

/// An operator with all checks decided.
fn start(port: u16, interval: &'static str, flags: &[&str]) -> anyhow::Result<Operator> {
    let checks = scaled(CHECKS);
    let plan = Plan { per_check: 1, interval: interval.to_owned(), ..Plan::loopback(checks, Probe::Tcp, port) };
    let file = run_dir::sub_dir("manifests").join(format!("{interval}.yaml"));
    plan.write(&file)?;
    let file = file.display().to_string();
    let mut args = vec!["standalone", "-f", &file];
    args.extend(flags);
    let operator = Operator::start(&MEASURED.to_string(), &args)?;
    operator.wait_scheduled(checks, START)?;
    operator.wait_probes(checks, START)?;
    Ok(operator)
}

fn measure_one(server: &mut Server) -> anyhow::Result<()> {
    let mut client = Client::connect(server.address)?;
    let (status, body) = client.get(server.path)?;
    ensure!(status == 200, "{} answered {status}: {body}", server.name);
    server.paced.push(client.paced(server.path, PACE, window(2))?);
    server.saturated.push(saturate(server.address, server.path, CONNECTIONS, window(2))?);
    Ok(())
}

fn report<'a>(servers: impl Iterator<Item = &'a Server>, share: f64) {
    let mut paced = Table::new(["server", "p50 µs", "p99 µs", "max µs", "p99 : nginx"]);
    let mut full = Table::new(["server", "requests/s", "p50 µs", "p99 µs", "requests/s : nginx"]);
    let mut yardstick: Option<(f64, f64)> = None;
    for server in servers {
        let of = |part: fn(&Latencies) -> f64| median(server.paced.iter().map(part));
        let all = |part: fn(&Saturated) -> f64| median(server.saturated.iter().map(part));
        let (p99, per_second) = (of(|seen| seen.p99), all(|seen| seen.per_second));
        let (usual_p99, usual_rate) = *yardstick.get_or_insert((p99, per_second));
        paced.row([
            server.name.to_owned(),
            format!("{:.0}", of(|seen| seen.p50)),
            format!("{p99:.0}"),
            format!("{:.0}", of(|seen| seen.max)),
            format!("{:.2}", p99 / usual_p99),
        ]);
        full.row([
            server.name.to_owned(),
            format!("{per_second:.0}"),
            format!("{:.0}", all(|seen| seen.p50)),
            format!("{:.0}", all(|seen| seen.p99)),
            format!("{:.2}", per_second / usual_rate),
        ]);
    }
    println!("medians of {} rounds; probing alone takes {share:.0} % of the core\n", rounds(5));
    paced.print(&format!("{PACE} requests/s over one kept connection"));
    full.print(&format!("saturated: wrk, {CONNECTIONS} kept connections"));
}

//! How fast `/healthz` answers with 10,000 checks on the board, beside nginx's `stub_status` in the same run. See
//! `docs/benchmarks.md`.
//!
//!     cargo bench --bench healthz

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{net::SocketAddr, time::Duration};

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
    stats::{median, over, ratios},
    table::Table,
    window,
    wrk::{Saturated, saturate},
};

const CHECKS: usize = 10_000;
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

    /// Requests a second, round by round.
    fn rates(&self) -> Vec<f64> {
        self.saturated.iter().map(|seen| seen.per_second).collect()
    }

    /// The p99 of each round, in milliseconds.
    fn tails(&self) -> Vec<f64> {
        self.paced.iter().map(|seen| seen.p99 / 1e3).collect()
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
    report(&servers.iter().chain([&busy]).collect::<Vec<_>>(), share);
    tell(&servers[1], &servers[0]).write()
}

fn tell(ours: &Server, nginx: &Server) -> Figures {
    let mut figures = Figures::new("healthz");
    figures.reach_all("16", "/healthz, requests a second, ours : nginx", &ratios(&ours.rates(), &nginx.rates()));
    figures.reach_all("16", "/healthz, p99", &ours.tails());
    figures.reach_all("16", "/healthz, p99, ours : nginx", &ratios(&ours.tails(), &nginx.tails()));
    figures.note_all("/healthz, requests a second", &ours.rates(), "");
    figures.note_all("nginx stub_status, requests a second", &nginx.rates(), "");
    figures
}

/// An operator with all checks decided.
fn start(port: u16, interval: &'static str, flags: &[&str]) -> anyhow::Result<Operator> {
    let checks = scaled(CHECKS);
    let plan = Plan { per_check: 1, interval: interval.to_owned(), ..Plan::loopback(checks, Probe::Tcp, port) };
    let operator = Operator::planned(&plan, flags, &[])?;
    operator.wait_asked(checks)?;
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

/// The first server is the yardstick, round by round.
fn report(servers: &[&Server], share: f64) {
    let mut paced = Table::new(["server", "p50 µs", "p99 µs", "max µs", "p99 : nginx"]);
    let mut full = Table::new(["server", "requests/s", "p50 µs", "p99 µs", "requests/s : nginx"]);
    for server in servers {
        let of = |part: fn(&Latencies) -> f64| median(server.paced.iter().map(part));
        let all = |part: fn(&Saturated) -> f64| median(server.saturated.iter().map(part));
        paced.row([
            server.name.to_owned(),
            format!("{:.0}", of(|seen| seen.p50)),
            format!("{:.0}", of(|seen| seen.p99)),
            format!("{:.0}", of(|seen| seen.max)),
            format!("{:.2}", median(ratios(&server.tails(), &servers[0].tails()))),
        ]);
        full.row([
            server.name.to_owned(),
            format!("{:.0}", all(|seen| seen.per_second)),
            format!("{:.0}", all(|seen| seen.p50)),
            format!("{:.0}", all(|seen| seen.p99)),
            format!("{:.2}", median(ratios(&server.rates(), &servers[0].rates()))),
        ]);
    }
    println!("{}; probing alone takes {share:.0} % of the core\n", over("medians", rounds(5)));
    paced.print(&format!("{PACE} requests/s over one kept connection"));
    full.print(&format!("saturated: wrk, {CONNECTIONS} kept connections"));
}

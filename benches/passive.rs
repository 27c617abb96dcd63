//! What taking in passive reports costs: batches of a fixed size at a fixed pace, to an operator on one core. See
//! `docs/benchmarks.md`.
//!
//!     cargo bench --bench passive

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use common::{listener::Listener, operator::Operator, rounds, stats::median, table::Table, window};
use support::run_dir;

/// Observations a second that are asked for; the goal of the issue.
const GOAL: usize = 20_000;
/// Checks with a thousand endpoints between them.
const CHECKS: usize = 20;
const TARGETS: usize = 50;

/// How reports are sent.
#[derive(Clone, Copy)]
struct Form {
    name: &'static str,
    path: &'static str,
    /// In one batch.
    size: usize,
    write: fn(usize) -> String,
}

const FORMS: [Form; 3] = [
    Form { name: "observations, 100 a batch", path: "/v1/observations", size: 100, write: observation },
    Form { name: "observations, 1,000 a batch", path: "/v1/observations", size: 1000, write: observation },
    Form { name: "APISIX's log, 1,000 a batch", path: "/v1/observations/access-log?scope=*", size: 1000, write: line },
];

/// One in a hundred is a failure, of an endpoint in turn.
fn status(at: usize) -> u16 {
    if at % 100 == 99 { 503 } else { 200 }
}

fn place(at: usize) -> (usize, usize) {
    (at % CHECKS, at / CHECKS % TARGETS)
}

fn observation(at: usize) -> String {
    let (check, target) = place(at);
    let status = status(at);
    format!(
        r#"{{"healthCheck":"bench/check-{check}","endpoint":"127.1.{check}.{target}:9","outcome":{{"status":{status}}}}}"#
    )
}

fn line(at: usize) -> String {
    let ((check, target), status) = (place(at), status(at));
    let now = jiff::Timestamp::now().as_millisecond();
    format!(
        r#"{{"request":{{"url":"http://127.0.0.1:9080/hello","uri":"/hello","method":"GET","headers":{{"host":"127.0.0.1","user-agent":"curl/8.5.0","accept":"*/*"}},"querystring":{{}},"size":81}},"response":{{"status":{status},"headers":{{"content-type":"text/plain","server":"APISIX/3.11.0","connection":"close"}},"size":118}},"server":{{"hostname":"gw-1","version":"3.11.0"}},"upstream":"127.1.{check}.{target}:9","service_id":"","route_id":"1","client_ip":"127.0.0.1","start_time":{now},"latency":101.9,"upstream_latency":100.8,"apisix_latency":1.1}}"#
    )
}

fn main() -> anyhow::Result<()> {
    common::alone("passive", "reports about 1,000 endpoints, operator on one core, data plane on the other", measure)
}

fn measure() -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let file = run_dir::sub_dir("manifests").join("passive.yaml");
    std::fs::write(&file, manifests(port))?;
    let operator =
        Operator::standalone(&file, &["--access-log-skip", "/v1/observations,/v1/observations/access-log"], &[])?;
    operator.wait_scheduled(CHECKS * TARGETS)?;
    let mut table = Table::new(["form", "paced, observations/s", "% of the core", "unpaced, observations/s", "429"]);
    for form in FORMS {
        let (mut taken, mut share, mut full, mut refused) = (vec![], vec![], vec![], 0);
        for round in 1..=rounds(3) {
            eprintln!("round {round}: {}", form.name);
            let (before, begun) = (operator.usage()?, Instant::now());
            let paced = send(operator.admin, form, Some(GOAL), window(4))?;
            share.push(operator.usage()?.share_since(&before));
            taken.push(paced.taken as f64 / begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            let unpaced = send(operator.admin, form, None, window(4))?;
            full.push(unpaced.taken as f64 / begun.elapsed().as_secs_f64());
            refused += paced.refused + unpaced.refused;
        }
        table.row([
            form.name.to_owned(),
            format!("{:.0}", median(taken.into_iter())),
            format!("{:.0}", median(share.into_iter())),
            format!("{:.0}", median(full.into_iter())),
            refused.to_string(),
        ]);
    }
    table.print(&format!("{GOAL} observations/s over one kept connection, and as many as are taken over it"));
    Ok(())
}

/// Probed so seldom that only reports are measured.
fn manifests(port: u16) -> String {
    let mut text = String::new();
    for check in 0..CHECKS {
        text += &format!(
            "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: check-{check}, namespace: bench}}\n\
             spec:\n  interval: 1h\n  passive: {{}}\n  minHealthy: 0\n  probe: {{tcp: {{port: {port}}}}}\n  targets:\n"
        );
        for target in 0..TARGETS {
            text += &format!("  - {{name: t{target}, host: 127.1.{check}.{target}, port: 9}}\n");
        }
        text += "---\n";
    }
    text
}

#[derive(Default)]
struct Sent {
    taken: usize,
    refused: usize,
}

/// Sends batches for `window`, one after the other, at a pace of so many observations a second.
fn send(admin: SocketAddr, form: Form, pace: Option<usize>, window: Duration) -> anyhow::Result<Sent> {
    let items: Vec<String> = (0..form.size).map(form.write).collect();
    let body = format!("[{}]", items.join(","));
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        form.path,
        body.len()
    );
    let mut stream = BufReader::new(TcpStream::connect(admin)?);
    stream.get_ref().set_nodelay(true)?;
    let begun = Instant::now();
    let mut sent = Sent::default();
    let mut batches = 0_u32;
    while begun.elapsed() < window {
        if let Some(pace) = pace {
            let due = Duration::from_secs_f64(f64::from(batches) * form.size as f64 / pace as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        batches += 1;
        stream.get_mut().write_all(request.as_bytes())?;
        match answer(&mut stream)? {
            (200, body) => {
                let said: serde_json::Value = serde_json::from_slice(&body)?;
                ensure!(said["accepted"] == form.size, "{said}");
                sent.taken += form.size;
            }
            (429, _) => sent.refused += 1,
            (code, body) => anyhow::bail!("{code}: {}", String::from_utf8_lossy(&body)),
        }
    }
    Ok(sent)
}

fn answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<(u16, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    stream.read_line(&mut head)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| head.clone())?;
    loop {
        let mut line = String::new();
        ensure!(stream.read_line(&mut line)? > 0, "the connection broke off");
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((code, body))
}

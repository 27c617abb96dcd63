//! wrk (Debian: wrk): as many requests as a server answers.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};

/// What wrk saw.
#[derive(Clone, Copy, Debug)]
pub struct Saturated {
    pub per_second: f64,
    /// Microseconds; under saturation this is mostly the wait for the other connections' turn.
    pub p50: f64,
    pub p99: f64,
}

/// Asks over `connections` kept connections, each again as soon as it has its answer.
pub fn saturate(server: SocketAddr, path: &str, connections: u32, window: Duration) -> anyhow::Result<Saturated> {
    let output = Command::new("wrk")
        .args(["--latency", "--threads", "1", "--connections", &connections.to_string()])
        .args(["--duration", &format!("{}s", window.as_secs()), &format!("http://{server}{path}")])
        .output()
        .context("cannot run wrk (Debian: wrk)")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(!text.contains("Non-2xx"), "not every answer was a good one:\n{text}");
    let field = |name: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("wrk printed no {name:?}:\n{text}"))
    };
    Ok(Saturated {
        per_second: field("Requests/sec:")?.parse()?,
        p50: micros(field("50%")?)?,
        p99: micros(field("99%")?)?,
    })
}

/// `812.00us`, `1.20ms` and `1.01s`.
fn micros(text: &str) -> anyhow::Result<f64> {
    let (number, factor) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .with_context(|| format!("no time: {text:?}"))?;
    Ok(number.parse::<f64>()? * factor)
}

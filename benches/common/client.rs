//! One kept HTTP/1.1 connection, with nothing in the way of the clock.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::stats::{percentile, sorted};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Client {
    pub fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { stream, buffer: vec![0; 1 << 20] })
    }

    /// Asks once and returns status and body. Both must come with a Content-Length, as from every server here.
    pub fn get(&mut self, path: &str) -> anyhow::Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.read_until(&request, |answer| {
            Ok(whole(answer)?.map(|(status, body)| (status, String::from_utf8_lossy(body).into_owned())))
        })
    }

    /// Asks once for an answer that may come in chunks, and returns its body as it came, chunk sizes included.
    pub fn ask(&mut self, path: &str) -> anyhow::Result<String> {
        self.read_until(&format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n"), |answer| {
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
            let chunked = answer[..end].to_ascii_lowercase().windows(7).any(|seven| seven == b"chunked");
            let done = if chunked { answer.ends_with(b"0\r\n\r\n") } else { whole(answer)?.is_some() };
            Ok(done.then(|| String::from_utf8_lossy(&answer[end + 4..]).into_owned()))
        })
    }

    /// Sends `request` and reads until `whole` makes something of the answer.
    fn read_until<T>(
        &mut self,
        request: &str,
        whole: impl Fn(&[u8]) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.stream.write_all(request.as_bytes())?;
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            let count = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(count > 0, "the connection was closed in the middle of the answer to {request:?}");
            filled += count;
            if let Some(found) = whole(&self.buffer[..filled])? {
                return Ok(found);
            }
        }
    }

    /// Asks `per_second` times a second for `window`, each request from its due time: one that has to wait for the
    /// answer before it counts the waiting as its own latency.
    pub fn paced(&mut self, path: &str, per_second: u32, window: Duration) -> anyhow::Result<Latencies> {
        let begun = Instant::now();
        let count = (window.as_secs_f64() * f64::from(per_second)) as u32;
        let mut taken = Vec::with_capacity(count as usize);
        for number in 0..count {
            let due = begun + window * number / count;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Waking up is late by the machine's own whim: that is not the server's.
            let from = if due + Duration::from_millis(2) > Instant::now() { Instant::now() } else { due };
            let (status, _) = self.get(path)?;
            taken.push(from.elapsed().as_secs_f64() * 1e6);
            ensure!(status == 200, "{path} answered {status}");
        }
        let taken = sorted(taken);
        Ok(Latencies { p50: percentile(&taken, 50.0), p99: percentile(&taken, 99.0), max: percentile(&taken, 100.0) })
    }
}

/// Status and body, when all of it is there.
fn whole(answer: &[u8]) -> anyhow::Result<Option<(u16, &[u8])>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).context("no status line")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let body = &answer[end + 4..];
    let length = length.with_context(|| format!("an answer without Content-Length:\n{head}"))?;
    Ok((body.len() >= length).then(|| (status, &body[..length])))
}

//! What is on the wire: when the first packet of each check went out, by the kernel's own clock.
//!
//! tcpdump (Debian: tcpdump) is on the core of whoever started it; the kernel filters, and stamps a packet as it passes
//! through loopback, on the core of whoever sent it.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::stats::{percentile, sorted};
use crate::support::run_dir::sub_dir;

const START: Duration = Duration::from_secs(10);

/// When (in nanoseconds since 1970) and to whom.
pub type Packet = (u64, Ipv4Addr);

/// What a check begins with.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    Syn,
    /// On a connection that is kept: the packet that ends what the client has to say (PSH).
    Request,
}

/// Listens until it is told to stop.
pub struct Capture {
    tcpdump: Child,
    file: PathBuf,
    said: PathBuf,
}

impl Capture {
    /// Takes down what each check of `port` begins with, from here on.
    ///
    /// # Errors
    /// When tcpdump cannot be run, or does not listen within 10 s.
    pub fn start(port: u16, begin: Begin) -> anyhow::Result<Self> {
        let flags = match begin {
            Begin::Syn => "tcp[13]&18=2",
            Begin::Request => "tcp[13]&8=8",
        };
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (file, said) =
            (sub_dir("wire").join(format!("{number}.pcap")), sub_dir("wire").join(format!("{number}.log")));
        let tcpdump = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "tcpdump", "-i", "lo", "-Q", "in", "-n", "-p", "-s", "64"])
            .args(["-B", "16384", "--time-stamp-precision=nano", "-Z", "root", "-w", &file.display().to_string()])
            .arg(format!("dst port {port} and {flags}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said)?)
            .spawn()
            .context("cannot run setpriv and tcpdump (Debian: util-linux, tcpdump)")?;
        let mut capture = Self { tcpdump, file, said };
        let begun = Instant::now();
        while !capture.said()?.contains("listening on") {
            let ended = capture.tcpdump.try_wait()?;
            if ended.is_some() || begun.elapsed() > START {
                bail!("tcpdump does not listen: {}", capture.said()?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(capture)
    }

    fn said(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.said)?)
    }

    /// What was seen, in the order of time.
    ///
    /// # Errors
    /// When the kernel dropped any of it, so that a gap would look like a probe that was not made.
    pub fn stop(mut self) -> anyhow::Result<Vec<Packet>> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.tcpdump), rustix::process::Signal::INT)?;
        self.tcpdump.wait()?;
        let said = self.said()?;
        let dropped = said.lines().find_map(|line| line.strip_suffix(" dropped by kernel")?.strip_suffix("packets"));
        let dropped = dropped.or_else(|| said.lines().find_map(|line| line.strip_suffix(" packet dropped by kernel")));
        let dropped: u64 = dropped.with_context(|| format!("tcpdump told no count: {said}"))?.trim().parse()?;
        ensure!(dropped == 0, "the kernel dropped {dropped} packets of the capture");
        let mut packets = read(&self.file)?;
        // A capture of a busy minute is large.
        let _ = std::fs::remove_file(&self.file);
        packets.sort_unstable_by_key(|packet| packet.0);
        Ok(packets)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// What each check of `port` begins with, for `window`.
///
/// # Errors
/// As [`Capture`].
pub fn listen(port: u16, begin: Begin, window: Duration) -> anyhow::Result<Vec<Packet>> {
    let capture = Capture::start(port, begin)?;
    std::thread::sleep(window);
    let packets = capture.stop()?;
    ensure!(!packets.is_empty(), "nothing was seen on the wire");
    Ok(packets)
}

/// The packets of a capture of the usual kind: a header of 24 bytes, then each packet behind one of 16.
fn read(file: &Path) -> anyhow::Result<Vec<Packet>> {
    /// With times in nanoseconds, in the byte order of this machine.
    const MAGIC: u32 = 0xa1b2_3c4d;
    /// Of Ethernet, and within an IPv4 header.
    const DESTINATION: usize = 14 + 16;
    let bytes = std::fs::read(file)?;
    let number = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    ensure!(number(0) == Some(MAGIC), "{}: not a capture", file.display());
    let (mut packets, mut at) = (vec![], 24);
    while let (Some(seconds), Some(nanos), Some(length)) = (number(at), number(at + 4), number(at + 8)) {
        let address = bytes.get(at + 16 + DESTINATION..at + 20 + DESTINATION);
        let Some(address) = address.and_then(|four| <[u8; 4]>::try_from(four).ok()) else { break };
        packets.push((u64::from(seconds) * 1_000_000_000 + u64::from(nanos), Ipv4Addr::from(address)));
        at += 16 + length as usize;
    }
    Ok(packets)
}

/// How well checks kept their interval. Milliseconds.
pub struct Rhythm {
    pub p50: f64,
    pub p99: f64,
    pub mean: f64,
    /// The most checks in one millisecond, over the mean.
    pub burst: f64,
}

impl Rhythm {
    /// Of packets in the order of time, of which each address has one in every `interval`.
    pub fn of(packets: &[Packet], interval: Duration) -> Self {
        let mut last: HashMap<Ipv4Addr, u64> = HashMap::new();
        let mut errors = vec![];
        let mut each: HashMap<u64, u32> = HashMap::new();
        for (at, to) in packets {
            *each.entry(at / 1_000_000).or_default() += 1;
            if let Some(before) = last.insert(*to, *at) {
                errors.push((*at - before) as f64 / 1e6 - interval.as_secs_f64() * 1e3);
            }
        }
        let span = packets.last().map_or(0, |last| last.0 - packets[0].0) as f64 / 1e6;
        let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let sizes = sorted(errors.iter().map(|error| error.abs()));
        let peak = each.values().copied().max().unwrap_or_default();
        Self {
            p50: percentile(&sizes, 50.0),
            p99: percentile(&sizes, 99.0),
            mean,
            burst: f64::from(peak) / (packets.len() as f64 / span.max(1.0)),
        }
    }
}

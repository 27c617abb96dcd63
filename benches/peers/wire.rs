//! What is on the wire: when the SYN of each check went out, by the kernel's own clock.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{
    common::stats::{percentile, sorted},
    support::run_dir::sub_dir,
};

/// How well the checks kept their interval of one second. Milliseconds.
pub struct Rhythm {
    pub p50: f64,
    pub p99: f64,
    pub mean: f64,
    /// The most checks in one millisecond, over the mean.
    pub burst: f64,
}

/// Listens to every SYN that goes to `port` for `window`, by tcpdump (Debian: tcpdump), which filters in the kernel.
pub fn listen(port: u16, window: Duration) -> anyhow::Result<Rhythm> {
    let file = sub_dir("wire").join("syns.pcap");
    let seconds = window.as_secs() + 2;
    let status = Command::new("timeout")
        .args([
            "--signal=INT",
            &seconds.to_string(),
            "tcpdump",
            "-i",
            "lo",
            "-Q",
            "in",
            "-n",
            "-p",
            "-s",
            "64",
            "-B",
            "16384",
        ])
        .args(["--time-stamp-precision=nano", "-Z", "root", "-w", &file.display().to_string()])
        .arg(format!("dst port {port} and tcp[13]&18=2"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run timeout and tcpdump (Debian: tcpdump)")?;
    ensure!(file.exists(), "tcpdump wrote nothing ({status}); install it (Debian: tcpdump)");
    rhythm(&read(&file)?)
}

/// When (in nanoseconds) and to whom.
type Syn = (u64, Ipv4Addr);

/// The packets of a capture of the usual kind: a header of 24 bytes, then each packet behind one of 16.
fn read(file: &Path) -> anyhow::Result<Vec<Syn>> {
    /// With times in nanoseconds, in the byte order of this machine.
    const MAGIC: u32 = 0xa1b2_3c4d;
    /// Of Ethernet, and within an IPv4 header.
    const DESTINATION: usize = 14 + 16;
    let bytes = std::fs::read(file)?;
    let number = |at: usize| bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes);
    ensure!(number(0) == Some(MAGIC), "{}: not a capture", file.display());
    let (mut syns, mut at) = (vec![], 24);
    while let (Some(seconds), Some(nanos), Some(length)) = (number(at), number(at + 4), number(at + 8)) {
        let address = bytes.get(at + 16 + DESTINATION..at + 20 + DESTINATION);
        let Some(address) = address.and_then(|four| <[u8; 4]>::try_from(four).ok()) else { break };
        syns.push((u64::from(seconds) * 1_000_000_000 + u64::from(nanos), Ipv4Addr::from(address)));
        at += 16 + length as usize;
    }
    Ok(syns)
}

fn rhythm(syns: &[Syn]) -> anyhow::Result<Rhythm> {
    ensure!(!syns.is_empty(), "nothing was seen on the wire");
    let mut last: HashMap<Ipv4Addr, u64> = HashMap::new();
    let mut errors = vec![];
    let mut each: HashMap<u64, u32> = HashMap::new();
    for (at, to) in syns {
        *each.entry(at / 1_000_000).or_default() += 1;
        if let Some(before) = last.insert(*to, *at) {
            errors.push((*at as f64 - before as f64) / 1e6 - 1000.0);
        }
    }
    let span = (syns[syns.len() - 1].0 - syns[0].0) as f64 / 1e6;
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let sizes = sorted(errors.iter().map(|error| error.abs()));
    let peak = each.values().copied().max().unwrap_or_default();
    Ok(Rhythm {
        p50: percentile(&sizes, 50.0),
        p99: percentile(&sizes, 99.0),
        mean,
        burst: f64::from(peak) / (syns.len() as f64 / span.max(1.0)),
    })
}

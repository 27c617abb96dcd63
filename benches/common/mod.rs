//! What the benchmarks share: the release binary, pinned; its metrics; the kernel's books about it; tables.
//!
//! Nothing here asserts on a figure. What is checked is that a figure means what it says: that the operator runs, that
//! its probes succeed, that it says how many endpoints it has.
#![allow(dead_code)]

pub mod certificates;
pub mod client;
pub mod connections;
pub mod figures;
pub mod goals;
pub mod listener;
pub mod manifests;
pub mod metrics;
pub mod nginx;
pub mod operator;
pub mod stats;
pub mod table;
pub mod tree;
pub mod usage;
pub mod wire;
pub mod wrk;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;

/// The core that is measured, and the one everything else of a benchmark runs on. On a machine with one core both are
/// the same and the figures say so.
pub const MEASURED: usize = 0;
pub const OTHERS: usize = 1;

/// How often a measurement is repeated: `BENCH_ROUNDS`, or `usual`.
pub fn rounds(usual: usize) -> usize {
    from_env("BENCH_ROUNDS", usual).max(1)
}

/// How long one measurement takes: `BENCH_SECONDS`, or `usual`.
pub fn window(usual: u64) -> Duration {
    Duration::from_secs(from_env("BENCH_SECONDS", usual).max(1))
}

/// A size, so that a benchmark can be tried out small: `BENCH_SCALE` percent of `full`.
pub fn scaled(full: usize) -> usize {
    (full * from_env("BENCH_SCALE", 100) / 100).max(1)
}

/// Whether `BENCH_ONLY` names this part, or nothing at all. A part of any benchmark may be named, so that all of them can
/// be told the same: who has none of the parts has nothing to do.
pub fn wanted(part: &str) -> bool {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    only.is_empty() || only.split(',').any(|name| name.trim() == part)
}

/// A benchmark of one part: introduces itself, steps aside, measures and clears up.
pub fn alone(part: &str, what: &str, measure: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    if !wanted(part) {
        return Ok(());
    }
    operator::binary()?;
    introduce(&format!("{part}: {what}"));
    step_aside()?;
    let done = measure();
    crate::support::run_dir::finish(done.is_err());
    done
}

/// Cargo's own, where what was measured is left too.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    // target/tmp is beside target/release.
    Ok(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("target/tmp has no parent")?.to_owned())
}

fn from_env<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Keeps this process, and what it starts from here on, off the measured core.
pub fn step_aside() -> anyhow::Result<()> {
    pin_to(OTHERS)
}

fn pin_to(core: usize) -> anyhow::Result<()> {
    let status = std::process::Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string(), &std::process::id().to_string()])
        .stdout(std::process::Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "cannot run on core {core} alone: the benchmarks need a machine with two cores");
    Ok(())
}

/// Says what the machine is, above the tables.
pub fn introduce(what: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{what}\n{cores} cores, load before: {}\n", load.split(' ').next().unwrap_or_default());
}

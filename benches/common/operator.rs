//! The release binary as a black box, on a core of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{client::Client, metrics::Metrics, usage::Usage};
use crate::support::{ports::free_port, process::Process, run_dir::sub_dir};

/// What is measured is what is shipped: the binary that cargo makes beside the benchmarks has features that their own
/// dependencies switch on (tokio's `test-util` is in every reading of the clock), so it is built once more without
/// them. `HEALTHCHECK_OPERATOR_BENCH_BINARY` names another one, such as that of an image or of an older release.
pub fn binary() -> anyhow::Result<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = BUILT.get() {
        return Ok(path);
    }
    let path = match std::env::var_os("HEALTHCHECK_OPERATOR_BENCH_BINARY") {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    ensure!(path.is_file(), "no program {}", path.display());
    Ok(BUILT.get_or_init(|| path))
}

fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let bin = ["--bin", "healthcheck-operator", "--manifest-path", manifest];
    let status = Command::new(cargo).args(["build", "--release", "--quiet", "--locked"]).args(bin).status()?;
    ensure!(status.success(), "cargo build --release failed");
    Ok(super::target_dir()?.join("release/healthcheck-operator"))
}

/// A running operator. Dropping it kills it.
pub struct Operator {
    process: Process,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub started: Instant,
}

impl Operator {
    /// Starts it on `cores` (as `taskset` writes them) with both listeners on free loopback ports.
    pub fn start(cores: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(cores, args, &[])
    }

    /// The same with `env`.
    pub fn start_with(cores: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let listener = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (public, admin) = (listener(), listener());
        let mut all = vec!["--cpu-list".to_owned(), cores.to_owned(), binary()?.display().to_string()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.extend(["--listen".to_owned(), public.to_string(), "--admin-listen".to_owned(), admin.to_string()]);
        let log = sub_dir("operators").join(format!("{}.log", admin.port()));
        let started = Instant::now();
        // Each of setpriv and taskset becomes the next: the id of the process stays.
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = Process::start(Path::new("/usr/bin/taskset"), &all, &env, &log)?;
        Ok(Self { process, public, admin, started })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.process.pid())
    }

    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let (status, text) = Client::connect(self.admin)?.get("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}");
        Metrics::parse(&text)
    }

    /// Waits until the operator says that it probes `endpoints`, and returns how long that took from its start. The
    /// operator counts its endpoints once a second, so the answer is late by up to that.
    pub fn wait_scheduled(&self, endpoints: usize, bound: Duration) -> anyhow::Result<Duration> {
        self.wait(&format!("{endpoints} endpoints"), bound, |metrics| {
            metrics.sum("healthcheck_operator_endpoints", "") >= endpoints as f64
        })
    }

    /// Waits until `probes` probes have ended, and returns how long that took from its start.
    pub fn wait_probes(&self, probes: usize, bound: Duration) -> anyhow::Result<Duration> {
        self.wait(&format!("{probes} probes"), bound, |metrics| metrics.probes() >= probes as f64)
    }

    fn wait(&self, what: &str, bound: Duration, good: impl Fn(&Metrics) -> bool) -> anyhow::Result<Duration> {
        while self.started.elapsed() < bound {
            self.process.check_alive()?;
            let asked = Instant::now();
            if self.metrics().is_ok_and(|metrics| good(&metrics)) {
                return Ok(self.started.elapsed());
            }
            // Thousands of series cost the operator time: who asks without a pause measures his own asking.
            std::thread::sleep((asked.elapsed() * 10).clamp(Duration::from_millis(20), Duration::from_secs(1)));
        }
        bail!("waited {bound:?} for {what}; the log ends:\n{}", self.process.log_tail())
    }
}

//! The release binary as a black box, on a core of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{MEASURED, client::Client, manifests::Plan, metrics::Metrics, usage::Usage};
use crate::support::{ports::free_port, process::Process, run_dir::sub_dir};

/// What the container image sets for the allocator (`build/`).
pub const IMAGE: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072"), ("MALLOC_MMAP_THRESHOLD_", "65536")];
/// Long enough for 100,000 endpoints on a busy machine.
const SOON: Duration = Duration::from_secs(180);

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
    /// `standalone` on the measured core, with what is planned.
    pub fn planned(plan: &Plan, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let Plan { name, probe, endpoints, interval, port, .. } = plan;
        let file = sub_dir("manifests").join(format!("{name}-{probe:?}-{endpoints}-{interval}-{port}.yaml"));
        plan.write(&file)?;
        Self::standalone(&file, flags, env)
    }

    /// `standalone` on the measured core, with the checks of a file or a directory.
    pub fn standalone(files: &Path, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let files = files.display().to_string();
        Self::start(&MEASURED.to_string(), &[&["standalone", "-f", &files], flags].concat(), env)
    }

    /// Starts it on `cores` (as `taskset` writes them) with both listeners on free loopback ports.
    pub fn start(cores: &str, args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Self> {
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
    pub fn wait_scheduled(&self, endpoints: usize) -> anyhow::Result<Duration> {
        self.wait(&format!("{endpoints} endpoints"), |metrics| {
            metrics.sum("healthcheck_operator_endpoints", "") >= endpoints as f64
        })
    }

    /// Waits until `probes` probes have ended, and returns how long that took from its start.
    pub fn wait_probes(&self, probes: usize) -> anyhow::Result<Duration> {
        self.wait(&format!("{probes} probes"), |metrics| metrics.probes() >= probes as f64)
    }

    /// Waits for both, as many probes as endpoints.
    pub fn wait_asked(&self, endpoints: usize) -> anyhow::Result<[Duration; 2]> {
        Ok([self.wait_scheduled(endpoints)?, self.wait_probes(endpoints)?])
    }

    fn wait(&self, what: &str, good: impl Fn(&Metrics) -> bool) -> anyhow::Result<Duration> {
        while self.started.elapsed() < SOON {
            self.process.check_alive()?;
            let asked = Instant::now();
            if self.metrics().is_ok_and(|metrics| good(&metrics)) {
                return Ok(self.started.elapsed());
            }
            // Thousands of series cost the operator time: who asks without a pause measures his own asking.
            std::thread::sleep((asked.elapsed() * 10).clamp(Duration::from_millis(20), Duration::from_secs(1)));
        }
        bail!("waited {SOON:?} for {what}; the log ends:\n{}", self.process.log_tail())
    }

    /// Watches it for `window`.
    ///
    /// # Errors
    /// When it has ended, or probed nothing.
    pub fn watch(&self, window: Duration) -> anyhow::Result<Watched> {
        // What it costs to be asked is not looked at.
        let (metrics, usage) = (self.metrics()?, self.usage()?);
        std::thread::sleep(window);
        let (used, counted) = (self.usage()?, self.metrics()?);
        let watched = Watched { metrics: [metrics, counted], usage: [usage, used] };
        ensure!(watched.probes() > 0.0, "nothing was probed");
        Ok(watched)
    }
}

/// What an operator had done and used at both ends of a window.
pub struct Watched {
    pub metrics: [Metrics; 2],
    pub usage: [Usage; 2],
}

impl Watched {
    /// How much more of `what` there was at the end.
    pub fn grown(&self, what: impl Fn(&Metrics) -> f64) -> f64 {
        what(&self.metrics[1]) - what(&self.metrics[0])
    }

    /// Probes that ended.
    pub fn probes(&self) -> f64 {
        self.grown(Metrics::probes)
    }

    pub fn seconds(&self) -> f64 {
        (self.usage[1].at - self.usage[0].at).as_secs_f64()
    }

    /// Microseconds of CPU for one probe.
    pub fn cost(&self) -> f64 {
        (self.usage[1].cpu - self.usage[0].cpu).as_secs_f64() * 1e6 / self.probes()
    }

    /// Of one core, in percent.
    pub fn share(&self) -> f64 {
        self.usage[1].share_since(&self.usage[0])
    }
}

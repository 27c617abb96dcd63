//! Checks by the thousand, targets that bear them, and what the operator says of itself.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Not as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::support::operator::{Answer, Command, Operator, command};
use crate::support::wait::wait_while;

/// For a debug build beside other tests; only a failure takes as long.
pub const LONG: Duration = Duration::from_secs(120);

/// One test at a time: they would starve one another.
pub async fn alone() -> tokio::sync::MutexGuard<'static, ()> {
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    ALONE.lock().await
}

/// A HealthCheck has no more than 64.
pub const MOST_TARGETS: usize = 50;

/// Says that this machine has not what a test needs; where all has to be tested, that is a failure.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").is_ok_and(|ci| ci == "true").not(), "{why}");
    println!("SKIP {why}");
}

/// A HealthCheck in namespace `shop` with these lines in its spec, and targets `{name, host, port, probe}`.
pub fn check(name: &str, spec: &str, targets: impl IntoIterator<Item = (SocketAddr, String)>) -> String {
    let mut text = format!(
        "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n"
    );
    for line in spec.split("; ") {
        let _ = writeln!(text, "  {line}");
    }
    text.push_str("  targets:\n");
    for (n, (at, probe)) in targets.into_iter().enumerate() {
        let _ = writeln!(text, "  - {{name: t{n}, host: {}, port: {}, probe: {probe}}}", at.ip(), at.port());
    }
    text
}

/// So many checks as `targets` take, `name-0` and so on, of fifty each.
pub fn checks(name: &str, spec: &str, targets: impl IntoIterator<Item = (SocketAddr, String)>) -> Vec<String> {
    let targets: Vec<_> = targets.into_iter().collect();
    let each = targets.chunks(MOST_TARGETS).enumerate();
    each.map(|(n, targets)| check(&format!("{name}-{n}"), spec, targets.iter().cloned())).collect()
}

/// A directory with one file of checks.
pub struct Files(TempDir);

impl Files {
    pub fn with(documents: &[String]) -> Self {
        let files = Self(tempfile::tempdir().expect("a temporary directory"));
        files.write(documents);
        files
    }

    pub fn write(&self, documents: &[String]) {
        std::fs::write(self.path().join("checks.yaml"), documents.join("---\n")).expect("a temporary file");
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn standalone(&self) -> Command {
        command("standalone").arg("-f").arg(self.path())
    }
}

/// The n-th address of 127.0.0.0/8 that is nobody's in particular.
pub fn nth(n: usize) -> Ipv4Addr {
    let n = u32::try_from(n).expect("few");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 64, 0, 1)) + n)
}

/// What a target does with a connection.
pub type Serve = fn(std::net::TcpStream, &Arc<Target>);

/// A listener on all of 127.0.0.0/8 with a thread that takes one connection after the other.
pub struct Target {
    pub port: u16,
    hits: AtomicU64,
    /// Whether it answers as it should, from now on.
    well: AtomicBool,
    /// Whether it keeps to itself what it would answer.
    held: Mutex<bool>,
    let_go: Condvar,
}

impl Target {
    /// Serves by `serve` until it is mended, and then by [`answer`].
    pub fn start(serve: Serve) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        Self::on(listener, serve)
    }

    pub fn on(listener: TcpListener, serve: Serve) -> Arc<Self> {
        // Std asks for a queue of 128, and whoever finds it full waits for a second: a failure that is none of the prober's.
        rustix::net::listen(&listener, 4096).expect("a longer queue");
        let port = listener.local_addr().expect("its address").port();
        let target = Arc::new(Self {
            port,
            hits: AtomicU64::new(0),
            well: AtomicBool::new(false),
            held: Mutex::default(),
            let_go: Condvar::new(),
        });
        let shared = Arc::clone(&target);
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                shared.hits.fetch_add(1, Ordering::Relaxed);
                if shared.well.load(Ordering::Relaxed) { answer(stream, &shared) } else { serve(stream, &shared) }
            }
        });
        target
    }

    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub fn mend(&self) {
        self.well.store(true, Ordering::Relaxed);
    }

    pub fn wait_mended(&self) {
        while !self.well.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it answers nobody until this is taken back.
    pub fn hold(&self, held: bool) {
        *self.held.lock().expect("no thread panics with it") = held;
        self.let_go.notify_all();
    }

    /// The n-th address on which it listens.
    pub fn at(&self, n: usize) -> SocketAddr {
        (nth(n), self.port).into()
    }
}

/// Answers 200 for as long as somebody asks, on a thread of its own: who is slow to ask holds nobody up.
pub fn answer(mut stream: std::net::TcpStream, target: &Arc<Target>) {
    let target = Arc::clone(target);
    let _ = (stream.set_nodelay(true), stream.set_read_timeout(Some(LONG)));
    thread::spawn(move || {
        let mut head = [0; 2048];
        while matches!(stream.read(&mut head), Ok(1..)) {
            let held = target.held.lock().expect("no thread panics with it");
            drop(target.let_go.wait_timeout_while(held, LONG, |held| *held));
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                break;
            }
        }
    });
}

/// The kernel has answered the connect, and that was all.
pub fn hang_up(_: std::net::TcpStream, _: &Arc<Target>) {}

/// The sum over all lines of a metric, and of those whose labels hold `label`.
pub async fn metric(operator: &Operator, name: &str, label: &str) -> anyhow::Result<f64> {
    let answer = operator.admin_get("/metrics").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let lines =
        answer.body.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values = lines
        .filter(|line| line.contains(label))
        .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<f64>());
    // The sum of nothing is -0.
    Ok(values.sum::<Result<f64, _>>()? + 0.0)
}

/// How often any check has become Unhealthy, and how many probes failed.
pub async fn failures(operator: &Operator) -> anyhow::Result<(f64, f64)> {
    let unhealthy = metric(operator, "healthcheck_transitions_total", "health=\"Unhealthy\"").await?;
    let failed = metric(operator, "healthcheck_operator_probes_total", "outcome=\"failure\"").await?;
    Ok((unhealthy, failed))
}

/// Probes that succeeded.
pub async fn successes(operator: &Operator) -> anyhow::Result<f64> {
    metric(operator, "healthcheck_operator_probes_total", "outcome=\"success\"").await
}

/// Waits until a metric is as `good` likes it.
pub async fn wait_metric(
    operator: &Operator,
    name: &str,
    label: &str,
    good: impl Fn(f64) -> bool,
) -> anyhow::Result<f64> {
    wait_while(
        || operator.process().check_alive(),
        name,
        LONG,
        || async {
            let seen = metric(operator, name, label).await?;
            ensure!(good(seen), "{name} {seen}");
            anyhow::Ok(seen)
        },
    )
    .await
}

/// Waits until so many more probes have succeeded.
pub async fn wait_more(operator: &Operator, more: f64) -> anyhow::Result<()> {
    let want = successes(operator).await? + more;
    wait_metric(operator, "healthcheck_operator_probes_total", "outcome=\"success\"", |seen| seen >= want).await?;
    Ok(())
}

/// Waits until all `checks` are Healthy.
pub async fn wait_healthy(operator: &Operator, checks: usize) -> anyhow::Result<Answer> {
    wait_healthy_within(operator, checks, LONG).await
}

pub async fn wait_healthy_within(operator: &Operator, checks: usize, bound: Duration) -> anyhow::Result<Answer> {
    let all = format!("Healthy; {checks} healthy, 0 degraded, 0 unhealthy, 0 unknown\n");
    operator.wait_get("/healthz", bound, |answer| answer.body == all).await
}

/// What a process has had in memory at most, in KiB.
pub fn peak_memory(operator: &Operator) -> anyhow::Result<u64> {
    let pid = operator.process().pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Fails when the operator has ended, or has panicked anywhere.
pub fn alive_and_well(operator: &Operator) -> anyhow::Result<()> {
    operator.process().check_alive()?;
    let output = operator.process().output();
    ensure!(!output.contains("panicked"), "{output}");
    Ok(())
}

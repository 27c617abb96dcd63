//! Who is compared.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::Pid;

use super::{
    configs,
    pace::Pacer,
    raw,
    task::{Task, Work},
};
use crate::{
    common::{client::Client, connections, metrics::Metrics, operator::Operator},
    support::process::Process,
};

const START: Duration = Duration::from_secs(60);

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    /// Our own ordinary lane alone.
    Ordinary,
    /// An epoll loop that does nothing but this.
    Raw,
    HaProxy,
    Envoy,
    Blackbox,
}

impl Contender {
    pub const ALL: [Self; 6] = [Self::Ours, Self::Ordinary, Self::Raw, Self::HaProxy, Self::Envoy, Self::Blackbox];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Ordinary => "ours, ordinary lane",
            Self::Raw => "raw epoll loop",
            Self::HaProxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Blackbox => "blackbox_exporter",
        }
    }

    /// Whether it has no such work at all: HAProxy and blackbox_exporter keep no connection from check to check, the raw
    /// loop has no TLS, and ours has no fast lane for it.
    pub const fn is_unfit(self, work: Work) -> bool {
        matches!(
            (self, work),
            (Self::HaProxy | Self::Blackbox, Work::HttpKept) | (Self::Raw | Self::Ordinary, Work::Https)
        )
    }

    /// blackbox_exporter knows its targets only while it is asked, and the raw loop has no more than their addresses.
    pub const fn keeps_endpoints(self) -> bool {
        !matches!(self, Self::Blackbox | Self::Raw)
    }

    /// No goal is held against it.
    pub const fn is_note(self) -> bool {
        matches!(self, Self::Ordinary)
    }

    /// blackbox_exporter has none of its own: it is its caller's.
    pub const fn has_rhythm(self) -> bool {
        !matches!(self, Self::Blackbox)
    }

    /// Starts it on the measured core. It asks as soon as it can.
    pub fn start(self, task: &Task) -> anyhow::Result<Running> {
        let body = match self {
            Self::Ours => Body::Operator(configs::ours(task, &[], &[])?),
            Self::Ordinary => Body::Operator(configs::ours(task, &[], &ORDINARY)?),
            Self::Raw => Body::Process(raw_loop(&raw::Args::paced(task))?),
            Self::HaProxy => Body::Process(configs::haproxy(task)?),
            Self::Envoy => {
                let (process, admin) = configs::envoy(task)?;
                Body::Envoy(process, admin)
            }
            Self::Blackbox => {
                let (process, at) = configs::blackbox()?;
                Body::Blackbox { _pacer: Pacer::start(at, task)?, process }
            }
        };
        Ok(Running { body, reuses: task.work == Work::HttpKept })
    }

    /// Starts it with no more than so many attempts under way at once: the raw loop begins the next as soon as it may, ours
    /// has its endpoints to ask in their time.
    pub fn start_saturated(self, task: &Task, at_once: usize) -> anyhow::Result<Running> {
        let body = match self {
            Self::Raw => Body::Process(raw_loop(&raw::Args::flood(task, at_once))?),
            _ => {
                let at_once = at_once.to_string();
                Body::Operator(configs::ours(task, &["--max-in-flight", &at_once], &[])?)
            }
        };
        Ok(Running { body, reuses: false })
    }
}

/// What a process has written so far, in calls.
fn writes(pid: Pid) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero()))?;
    let count = text.lines().find_map(|line| line.strip_prefix("syscw: "));
    count.and_then(|count| count.trim().parse().ok()).context("the kernel counts no writes")
}

fn raw_loop(args: &raw::Args) -> anyhow::Result<Process> {
    configs::on_core("raw", &std::env::current_exe()?, &args.words())
}

/// What turns the fast lane off.
const ORDINARY: [(&str, &str); 1] = [("HEALTHCHECK_OPERATOR_FAST_LANE", "off")];

enum Body {
    Operator(Operator),
    Process(Process),
    Envoy(Process, SocketAddr),
    /// The callers end first.
    Blackbox {
        _pacer: Pacer,
        process: Process,
    },
}

/// A contender at work. Dropping it kills it.
pub struct Running {
    body: Body,
    reuses: bool,
}

impl Running {
    fn process(&self) -> &Process {
        match &self.body {
            Body::Operator(operator) => operator.process(),
            Body::Process(process) | Body::Envoy(process, _) | Body::Blackbox { process, .. } => process,
        }
    }

    pub fn pid(&self) -> Pid {
        self.process().pid()
    }

    /// What it counts itself, where it is ours.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        match &self.body {
            Body::Operator(operator) => operator.metrics(),
            _ => anyhow::bail!("only ours has metrics of ours"),
        }
    }

    /// Waits until it has made so many checks, which it may need a while to get to.
    pub fn wait_begun(&self, checks: usize) -> anyhow::Result<()> {
        let (begun, before) = (Instant::now(), self.asked()?);
        while begun.elapsed() < START {
            self.check_alive()?;
            if self.asked()? - before >= checks as u64 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("waited {START:?} for {checks} checks")
    }

    pub fn check_alive(&self) -> anyhow::Result<()> {
        self.process().check_alive()
    }

    /// How many checks were made so far. Of fresh connections by the kernel's count of those that were opened in this
    /// network, in which there is nobody else but for blackbox_exporter's own caller, whose connections are kept; of kept
    /// ones by the prober's own count.
    pub fn asked(&self) -> anyhow::Result<u64> {
        match &self.body {
            Body::Operator(operator) if self.reuses => Ok(operator.metrics()?.probes() as u64),
            Body::Envoy(_, admin) if self.reuses => {
                let text = Client::connect(*admin)?.ask("/stats?filter=health_check.attempt")?;
                let line = text.lines().find_map(|line| line.split_once("health_check.attempt: "));
                line.and_then(|(_, count)| count.trim().parse().ok()).context("Envoy counts no attempts")
            }
            Body::Process(raw) if self.reuses => writes(raw.pid()),
            _ => connections::opened(),
        }
    }
}

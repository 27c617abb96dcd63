//! What the kernel says that a process used.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Pid;

/// What /proc counts CPU time in: USER_HZ is 100 on every architecture that the operator is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and resident memory of a process at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub at: Instant,
    /// User and system time of all its threads, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The part of it that is no file's: heap, stacks.
    pub anonymous: u64,
}

impl Usage {
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: Pid) -> anyhow::Result<Self> {
        let directory = format!("/proc/{}", pid.as_raw_nonzero());
        let stat = std::fs::read_to_string(format!("{directory}/stat"))?;
        // The second field is the program's name in brackets, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("stat has no times")?;
        let status = std::fs::read_to_string(format!("{directory}/status"))?;
        let kibibytes = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
        };
        Ok(Self {
            at: Instant::now(),
            cpu: Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND),
            resident: 1024 * kibibytes("VmRSS:").context("status has no VmRSS")?,
            anonymous: 1024 * kibibytes("RssAnon:").context("status has no RssAnon")?,
        })
    }

    /// The share of one core used since `earlier`, in percent.
    pub fn share_since(&self, earlier: &Self) -> f64 {
        100.0 * (self.cpu - earlier.cpu).as_secs_f64() / (self.at - earlier.at).as_secs_f64()
    }
}

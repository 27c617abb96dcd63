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
    /// The user's part of it.
    pub user: Duration,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// The part of it that is no file's: heap, stacks.
    pub anonymous: u64,
    /// How often its threads gave up a core, or had to.
    pub switches: u64,
    /// The most that was ever resident, since the start or [`Usage::forget_peak`].
    pub peak: u64,
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
        let user_time = Duration::from_secs_f64(user as f64 / TICKS_PER_SECOND);
        let kibibytes = |name: &str| -> Option<u64> {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.trim().parse().ok())
        };
        Ok(Self {
            at: Instant::now(),
            cpu: Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND),
            user: user_time,
            resident: 1024 * kibibytes("VmRSS:").context("status has no VmRSS")?,
            anonymous: 1024 * kibibytes("RssAnon:").context("status has no RssAnon")?,
            switches: switches(&directory)?,
            peak: 1024 * kibibytes("VmHWM:").context("status has no VmHWM")?,
        })
    }

    /// Lets the peak begin anew from what is resident now.
    ///
    /// # Errors
    /// When there is no such process, or it is not ours.
    pub fn forget_peak(pid: Pid) -> anyhow::Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", pid.as_raw_nonzero()), "5")?)
    }

    /// The share of one core used since `earlier`, in percent.
    pub fn share_since(&self, earlier: &Self) -> f64 {
        100.0 * (self.cpu - earlier.cpu).as_secs_f64() / (self.at - earlier.at).as_secs_f64()
    }
}

/// Of all threads that there are. One that has ended takes its count along, so what is measured shall keep its threads.
fn switches(directory: &str) -> anyhow::Result<u64> {
    let mut all = 0;
    for thread in std::fs::read_dir(format!("{directory}/task"))? {
        // It may end meanwhile.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else { continue };
        let counts = status.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        all += counts.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    Ok(all)
}

//! What one script may take of the machine. The kernel keeps these limits; nobody has to watch.

use std::io;

use rustix::{
    process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

/// Limits of every process that a script starts; without one, those of the program that runs it hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Limits {
    /// Seconds of CPU time, of each process.
    pub cpu_seconds: Option<u64>,
    /// Bytes of writable memory of its own, of each process (`RLIMIT_DATA`): what a program only reserves, as Go and
    /// Java do, is not counted. Less than [`LEAST_MEMORY`] leaves no program room to begin.
    pub memory: Option<u64>,
    /// Processes and threads of the runner's user, its own included (`RLIMIT_NPROC`): a user id that other pods of the
    /// node have too is counted with theirs. Does not bind root.
    pub processes: Option<u64>,
    /// Descriptors open at a time, of each process.
    pub open_files: Option<u64>,
    /// Bytes of the largest file that may be written.
    pub file_size: Option<u64>,
}

/// The least that [`Limits::memory`] may be, in bytes.
pub const LEAST_MEMORY: u64 = 16 << 20;
/// The least that [`Limits::open_files`] may be: what a worker itself has open while it runs a script, and some more.
pub const LEAST_OPEN_FILES: u64 = 32;

impl Limits {
    /// Takes them on, for this process and all it starts from now on, for good. But for the time on the CPU, which a
    /// worker that runs script after script would use up.
    pub(super) fn take_on(&self) -> io::Result<()> {
        // No script fills the disk with its memory when it crashes.
        setrlimit(Resource::Core, at_most(0))?;
        let limits = [
            (Resource::Data, self.memory),
            (Resource::Nproc, self.processes),
            (Resource::Nofile, self.open_files),
            (Resource::Fsize, self.file_size),
        ];
        for (resource, limit) in limits {
            if let Some(limit) = limit {
                setrlimit(resource, at_most(within_ours(resource, limit)))?;
            }
        }
        Ok(())
    }

    /// Starts a process whose time on the CPU is limited, and that of all it will start.
    ///
    /// It is born with the limit, so that nothing it starts at once goes without; this process has it for that moment
    /// alone, and must have used less itself ([`Self::worn`]).
    pub(super) fn start<T>(&self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(seconds) = self.cpu_seconds else { return start() };
        let before = getrlimit(Resource::Cpu);
        // Ours may be less already.
        let current = Some(before.maximum.map_or(seconds, |ours| ours.min(seconds)));
        setrlimit(Resource::Cpu, Rlimit { current, ..before })?;
        let started = start();
        setrlimit(Resource::Cpu, before)?;
        started
    }

    /// Makes what [`Self::start`] started unable to raise its limit. SIGXCPU says why it ends; a second later comes
    /// SIGKILL, which nobody can ignore.
    pub(super) fn fix(&self, process: Pid) {
        if let Some(seconds) = self.cpu_seconds {
            let limit = Rlimit { current: Some(seconds), maximum: Some(seconds.saturating_add(1)) };
            // Refused where it has ended already, or ours is less.
            let _ = prlimit(Some(process), Resource::Cpu, limit);
        }
    }

    /// Whether this process has used so much time on the CPU that it may not start another.
    pub(super) fn worn(&self) -> bool {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        self.cpu_seconds.is_some_and(|limit| {
            let millis = used.tv_sec.saturating_mul(1000).saturating_add(used.tv_nsec / 1_000_000);
            u64::try_from(millis).is_ok_and(|millis| millis >= limit.saturating_mul(500))
        })
    }

    /// Which limit ends processes by this signal, where there is such a limit.
    pub(super) fn told_by(&self, signal: i32) -> Option<String> {
        if signal == Signal::XCPU.as_raw() {
            return self.cpu_seconds.map(|limit| format!("it used more than {limit} s of CPU time"));
        }
        if signal == Signal::XFSZ.as_raw() {
            return self.file_size.map(|limit| format!("it wrote a file of more than {limit} bytes"));
        }
        None
    }
}

const fn at_most(limit: u64) -> Rlimit {
    Rlimit { current: Some(limit), maximum: Some(limit) }
}

/// A limit that is above what we may have ourselves is already kept.
fn within_ours(resource: Resource, limit: u64) -> u64 {
    getrlimit(resource).maximum.map_or(limit, |ours| ours.min(limit))
}

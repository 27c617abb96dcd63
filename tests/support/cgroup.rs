//! Control groups of the tests' own, of version 1 or 2.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use rustix::process::Pid;

const ROOT: &str = "/sys/fs/cgroup";

/// Removed when it is dropped, after those in it have ended.
pub struct Cgroup {
    path: PathBuf,
    is_second: bool,
}

impl Cgroup {
    /// One that may limit CPU.
    ///
    /// # Errors
    /// Where this machine does not let us.
    pub fn cpu(name: &str) -> anyhow::Result<Self> {
        Self::new("cpu", name, ["cpu.cfs_quota_us", "cpu.max"])
    }

    /// One that may limit memory.
    ///
    /// # Errors
    /// As [`Cgroup::cpu`].
    pub fn memory(name: &str) -> anyhow::Result<Self> {
        Self::new("memory", name, ["memory.limit_in_bytes", "memory.max"])
    }

    fn new(controller: &str, name: &str, files: [&str; 2]) -> anyhow::Result<Self> {
        let is_second = Path::new(ROOT).join("cgroup.controllers").exists();
        let parent = if is_second { ROOT.into() } else { Path::new(ROOT).join(controller) };
        if is_second {
            // It may reach below already, and where it may not the file is missing.
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let path = parent.join(format!("healthcheck-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let group = Self { path, is_second };
        let file = group.path.join(files[usize::from(is_second)]);
        ensure!(file.exists(), "no {}: the controller is another's", file.display());
        Ok(group)
    }

    /// So many hundredths of a core.
    pub fn set_quota(&self, percent: u32) -> anyhow::Result<()> {
        self.quota(&(percent * 1000).to_string())
    }

    pub fn lift_quota(&self) -> anyhow::Result<()> {
        self.quota(if self.is_second { "max" } else { "-1" })
    }

    /// Of a period of 100,000 µs.
    fn quota(&self, micros: &str) -> anyhow::Result<()> {
        if self.is_second {
            return self.write("cpu.max", &format!("{micros} 100000"));
        }
        self.write("cpu.cfs_period_us", "100000")?;
        self.write("cpu.cfs_quota_us", micros)
    }

    pub fn set_memory(&self, bytes: u64) -> anyhow::Result<()> {
        self.write(if self.is_second { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string())
    }

    /// From now on it holds for this process.
    pub fn take_in(&self, process: Pid) -> anyhow::Result<()> {
        self.write("cgroup.procs", &process.as_raw_nonzero().to_string())
    }

    /// The command line that takes itself in and goes on with what follows.
    pub fn wrapper(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.path.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    fn write(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let file = self.path.join(file);
        std::fs::write(&file, value).with_context(|| format!("{value} in {}", file.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its process is being reaped.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

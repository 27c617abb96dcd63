//! Less than a process is used to: CPU, memory, descriptors.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::harness::{
    Files, LONG, MOST_TARGETS, Target, alive_and_well, alone, answer, checks, failures, peak_memory, wait_healthy,
    wait_more,
};
use crate::support::operator::Operator;

/// A control group of this test's own, of version 1; removed with it.
pub struct Cgroup(PathBuf);

impl Cgroup {
    pub fn cpu(name: &str) -> Option<Self> {
        Self::new("cpu", name, "cpu.cfs_quota_us")
    }

    pub fn memory(name: &str) -> Option<Self> {
        Self::new("memory", name, "memory.limit_in_bytes")
    }

    /// `None`, and a word on it, where this machine does not let us.
    fn new(controller: &str, name: &str, file: &str) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(format!("healthcheck-test-{name}-{}", std::process::id()));
        let made = std::fs::create_dir(&path).is_ok();
        let group = made.then(|| Self(path));
        if group.as_ref().is_none_or(|group| !group.0.join(file).exists()) {
            crate::harness::skip(&format!("no control group of {controller} can be made here (version 1, as root)"));
            return None;
        }
        group
    }

    /// So many hundredths of a core.
    pub fn set_quota(&self, percent: u32) -> anyhow::Result<()> {
        self.write("cpu.cfs_period_us", "100000")?;
        self.write("cpu.cfs_quota_us", &(percent * 1000).to_string())
    }

    pub fn set_memory(&self, bytes: u64) -> anyhow::Result<()> {
        self.write("memory.limit_in_bytes", &bytes.to_string())
    }

    /// From now on it holds for `operator`.
    pub fn take_in(&self, operator: &Operator) -> anyhow::Result<()> {
        self.write("cgroup.procs", &operator.process().pid().as_raw_nonzero().to_string())
    }

    /// The command line that takes itself in and goes on with what follows.
    pub fn wrapper(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh".into(), "-c".into(), script, "sh".into()]
    }

    fn write(&self, file: &str, value: &str) -> anyhow::Result<()> {
        Ok(std::fs::write(self.0.join(file), value)?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its process is being reaped.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// More targets than descriptors: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_fifty_six_descriptors_are_enough_for_thousands_of_endpoints() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 3_000;
    let target = Target::start(answer);
    let spec = "interval: 3s; timeout: 3s; failureThreshold: 1; staleAfter: 10m";
    let kinds = ["{tcp: {}}", "{http: {}}", "{http: {connectionClose: Polite}}"];
    let place = |n: usize| (target.at(n), kinds[n % kinds.len()].to_owned());
    let files = Files::with(&checks("all", spec, (0..TARGETS).map(place)));
    let operator = files.standalone().under(["prlimit", "--nofile=256"]).serve()?;
    wait_healthy(&operator, TARGETS / MOST_TARGETS).await?;
    wait_more(&operator, TARGETS as f64).await?;
    ensure!(failures(&operator).await? == (0.0, 0.0), "{:?}", failures(&operator).await?);
    let answer = operator.admin_get("/v1/healthchecks").await?;
    ensure!(answer.status == 200, "there is a descriptor for who asks");
    alive_and_well(&operator)
}

/// All that a container of 64 MiB has to bear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_are_enough_for_thousands_of_endpoints_that_flip() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 6_000;
    let Some(cgroup) = Cgroup::memory("mebibytes") else { return Ok(()) };
    cgroup.set_memory(64 << 20)?;
    let garbage = Target::start(crate::hostile::garbage);
    let spec = "interval: 5s; timeout: 5s; failureThreshold: 1; successThreshold: 1; staleAfter: 10m";
    let documents = checks("c", spec, (0..TARGETS).map(|n| (garbage.at(n), "{http: {}}".to_owned())));
    let files = Files::with(&documents);
    let operator = files.standalone().under(cgroup.wrapper()).serve()?;
    operator
        .wait_get("/healthz", LONG, |answer| answer.body.contains(&format!(" {} unhealthy,", documents.len())))
        .await?;
    garbage.mend();
    wait_healthy(&operator, documents.len()).await?;
    let peak = peak_memory(&operator)?;
    println!("  {TARGETS} endpoints in a control group of 64 MiB: at most {} KiB resident", peak);
    alive_and_well(&operator)
}

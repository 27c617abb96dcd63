//! What a process used together with all that it started.

use std::time::Duration;

use anyhow::Context as _;

/// What /proc counts CPU time in: USER_HZ is 100 on every architecture that the operator is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process, of its children that it has waited for, of those that there are, and of theirs.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: i32) -> anyhow::Result<Duration> {
    Ok(Duration::from_secs_f64(ticks(pid)? as f64 / TICKS_PER_SECOND))
}

fn ticks(pid: i32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
    // utime, stime, cutime and cstime, of which the state is the first field here.
    let times = fields.split_whitespace().skip(11).take(4);
    let mut all = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // It may end meanwhile, and so may its children: whoever waited for them has their time then.
        let Ok(children) = std::fs::read_to_string(thread?.path().join("children")) else { continue };
        for child in children.split_whitespace() {
            all += ticks(child.parse()?).unwrap_or_default();
        }
    }
    Ok(all)
}

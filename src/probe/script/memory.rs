//! Whether the kernel kills for want of memory in our control group.

use std::fs;

/// Where a container sees its own control group (version 2); elsewhere there is no such file.
const EVENTS: &str = "/sys/fs/cgroup/memory.events";

/// How many processes were killed so far because the memory of all of us together was used up; `None` where it is not
/// told.
pub(super) fn shortages() -> Option<u64> {
    count(&fs::read_to_string(EVENTS).ok()?)
}

fn count(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_kills_are_counted() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(super::count(events), Some(2));
        assert_eq!(super::count("low 0\n"), None);
    }
}

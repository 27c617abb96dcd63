//! Processes and all that descends from them, as `/proc` has it.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, kill_process, wait},
};

/// Between two looks at processes that were killed and are not gone yet.
const PAUSE: Duration = Duration::from_micros(500);
/// How often the ancestors of a process are looked at before nothing can be said of it.
const LOOKS: usize = 8;

/// Kills and reaps every descendant of this process, which must be the subreaper of them all; whether none is left.
///
/// A process that is killed hands its children to us, so the next look finds them; it also forks no more, so a family
/// that forks as fast as it can grows only by what was born during one look.
pub(super) fn end_all(patience: Duration) -> bool {
    let begin = Instant::now();
    loop {
        if reap_all() {
            return true;
        }
        for process in descendants(getpid()) {
            let _ = kill_process(process, Signal::KILL);
        }
        if begin.elapsed() >= patience {
            return reap_all();
        }
        sleep(PAUSE);
    }
}

/// Whether `process` descends from this one. So it is taken for one that is gone already, or that `/proc` does not show:
/// what cannot be told apart from a script is one.
pub(in crate::probe) fn may_be_ours(process: Pid) -> bool {
    // Whose parent dies during a look has another one at the next.
    (0..LOOKS).find_map(|_| is_ours(process)).unwrap_or(true)
}

/// The same, where one look at each ancestor tells it.
fn is_ours(process: Pid) -> Option<bool> {
    let mut process = process;
    while process != getpid() {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
        match parent(&stat) {
            Some(next) => process = next,
            // The first of all, or one that came into this container from outside.
            None => return Some(false),
        }
    }
    Some(true)
}

/// Reaps every child that is dead; whether there is none left.
fn reap_all() -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// The processes that descend from `root`, parents before children, `root` left out.
pub(super) fn descendants(root: Pid) -> Vec<Pid> {
    let family = Family::look();
    let mut found = family.children(root);
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(family.children(parent));
        next += 1;
    }
    found
}

/// Who is whose child.
enum Family {
    /// The kernel keeps lists (`CONFIG_PROC_CHILDREN`).
    Listed,
    /// It does not, as in gVisor: every process names its parent.
    Told(HashMap<Pid, Vec<Pid>>),
}

impl Family {
    fn look() -> Self {
        if Path::new("/proc/thread-self/children").exists() {
            return Self::Listed;
        }
        let mut told: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(child) = entry.file_name().to_str().and_then(number) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            if let Some(parent) = parent(&stat) {
                told.entry(parent).or_default().push(child);
            }
        }
        Self::Told(told)
    }

    fn children(&self, parent: Pid) -> Vec<Pid> {
        match self {
            Self::Told(told) => told.get(&parent).cloned().unwrap_or_default(),
            Self::Listed => listed(parent),
        }
    }
}

/// The children of a process, whichever of its threads they hang on.
fn listed(parent: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero())) else { return Vec::new() };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(number).collect::<Vec<_>>())
        .collect()
}

/// The fourth word of `/proc/PID/stat`; the second, a name in parentheses, may hold anything.
fn parent(stat: &str) -> Option<Pid> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1).and_then(number)
}

fn number(word: &str) -> Option<Pid> {
    word.parse().ok().and_then(Pid::from_raw)
}

/// The children of this process.
pub(super) fn own_children() -> Vec<Pid> {
    Family::look().children(getpid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_what_we_started_and_what_nobody_knows() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().expect("a child");
        let pid = number(&child.id().to_string()).expect("its number");
        assert!(may_be_ours(pid) && may_be_ours(getpid()));
        assert!(!may_be_ours(rustix::process::getppid().expect("who started this test")));
        child.kill().expect("killed");
        child.wait().expect("reaped");
        assert!(may_be_ours(pid), "one that is gone may have been anybody");
    }

    #[test]
    fn a_parent_is_read_whatever_a_process_calls_itself() {
        assert_eq!(parent("12 (a) b) S 7 12 12 0"), Pid::from_raw(7));
        assert_eq!(parent("1 (init) S 0 1 1 0"), None);
        assert_eq!(parent(""), None);
    }
}

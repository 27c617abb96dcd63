//! What `/proc` tells.

use crate::support::operator::Operator;

/// The operator, and what it started.
pub struct Look {
    pub descriptors: usize,
    pub zombies: usize,
}

pub fn look(operator: &Operator) -> Look {
    let pid = operator.process().pid().as_raw_pid();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let zombies = processes().filter(|process| process.parent == pid && process.state == "Z").count();
    Look { descriptors, zombies }
}

struct OneProcess {
    parent: i32,
    state: String,
    command: String,
}

fn processes() -> impl Iterator<Item = OneProcess> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in parentheses may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (fields.next()?.to_owned(), fields.next()?.parse().ok()?);
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        Some(OneProcess { parent, state, command: String::from_utf8_lossy(&command).replace('\0', " ") })
    })
}

/// Processes whose command line is `command`.
pub fn running(command: &str) -> usize {
    processes().filter(|process| process.command.trim_end() == command).count()
}

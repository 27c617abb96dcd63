//! Exit codes, the same for every command.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: healthy, or done.
    Ok,
    /// 1: unhealthy.
    Unhealthy,
    /// 2: a flag, a file or a manifest is wrong.
    Usage,
    /// 3: could not tell.
    Unknown,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Unhealthy => 1,
            Exit::Usage => 2,
            Exit::Unknown => 3,
        })
    }
}

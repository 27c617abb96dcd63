//! Exit codes, the same for every command.

use std::{fmt, process::ExitCode};

use super::print::told;
use crate::check::Health;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: healthy, or done.
    Ok,
    /// 1: unhealthy.
    Unhealthy,
    /// 2: a flag, a file, a manifest or an address to listen on is wrong.
    Usage,
    /// 3: could not tell: what was asked did not answer, or we broke down.
    Unknown,
}

/// An error that came while the command ran, of something beyond its flags and files: exit code 3, where others are 2.
#[derive(Debug)]
pub struct Failed(anyhow::Error);

impl Failed {
    /// `error` as one of these.
    pub fn wrap(error: anyhow::Error) -> anyhow::Error {
        anyhow::Error::new(Self(error))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&told(&self.0))
    }
}

/// Tells its causes itself.
impl std::error::Error for Failed {}

impl Exit {
    /// By the verdicts of the checks that were asked, the suspended ones left out: one that is down outweighs one of which
    /// nobody knows; of none there is nothing to tell. Degraded still serves.
    pub fn of(verdicts: impl IntoIterator<Item = Health>) -> Self {
        let worst = verdicts.into_iter().map(|health| match health {
            Health::Healthy | Health::Degraded => Self::Ok,
            Health::Unhealthy => Self::Unhealthy,
            Health::Unknown => Self::Unknown,
        });
        worst.reduce(Self::worse).unwrap_or(Self::Unknown)
    }

    fn worse(self, other: Self) -> Self {
        [Self::Unhealthy, Self::Unknown].into_iter().find(|bad| [self, other].contains(bad)).unwrap_or(Self::Ok)
    }

    /// Of one probe: whether it found its target healthy, where it could tell.
    pub const fn told(healthy: Option<bool>) -> Self {
        match healthy {
            Some(true) => Self::Ok,
            Some(false) => Self::Unhealthy,
            None => Self::Unknown,
        }
    }
}

impl From<&anyhow::Error> for Exit {
    fn from(error: &anyhow::Error) -> Self {
        if error.is::<Failed>() { Self::Unknown } else { Self::Usage }
    }
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

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn what_is_down_outweighs_what_nobody_knows() {
        use Health::{Degraded, Healthy, Unhealthy, Unknown};
        assert_eq!(Exit::of([Healthy, Degraded]), Exit::Ok);
        assert_eq!(Exit::of([Healthy, Unknown, Degraded]), Exit::Unknown);
        assert_eq!(Exit::of([Unknown, Unhealthy, Healthy]), Exit::Unhealthy);
        assert_eq!(Exit::of([Unhealthy, Unknown]), Exit::Unhealthy);
        assert_eq!(Exit::of([]), Exit::Unknown);
    }

    #[test]
    fn what_fails_while_running_is_told_apart_and_told_whole() {
        assert_eq!(Exit::from(&anyhow!("no such flag")), Exit::Usage);
        let failed = Failed::wrap(Err::<(), _>(anyhow!("refused")).context("cannot talk").expect_err("an error"));
        assert_eq!((Exit::from(&failed), told(&failed).as_str()), (Exit::Unknown, "cannot talk: refused"));
    }
}

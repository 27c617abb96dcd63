//! While our own side is in doubt gates follow nothing, and for a while after.

use std::time::Duration;

use tokio::time::Instant;

use crate::{check::Check, engine::Surroundings, gate::Freeze};

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Doubt {
    surroundings: Surroundings,
    api_silent: bool,
    isolated: bool,
    /// When the last isolation ended.
    ended: Option<Instant>,
}

impl Doubt {
    #[must_use]
    pub fn new(surroundings: Surroundings) -> Self {
        Self { surroundings, ..Self::default() }
    }

    /// Looks at our own side. Whether anything changed.
    pub fn look(&mut self, now: Instant) -> bool {
        let (silent, isolated) = (self.surroundings.is_api_silent(), self.surroundings.is_isolated());
        let was_silent = std::mem::replace(&mut self.api_silent, silent);
        let was_isolated = std::mem::replace(&mut self.isolated, isolated);
        if was_isolated && !isolated {
            self.ended = Some(now);
        }
        (was_silent, was_isolated) != (silent, isolated)
    }

    /// Why the gates of `check` follow nothing, where they do.
    #[must_use]
    pub fn freeze(&self, check: &Check, now: Instant) -> Option<Freeze> {
        if self.isolated || self.settled(check).is_some_and(|at| now < at) {
            return Some(Freeze::ProberIsolated);
        }
        self.api_silent.then_some(Freeze::ApiServerUnreachable)
    }

    /// When the verdicts of `check` are of probes made after the last isolation: a verdict that was lost to it needs as
    /// many successes in a row as any.
    #[must_use]
    pub fn settled(&self, check: &Check) -> Option<Instant> {
        self.ended.map(|ended| ended + settling(check))
    }

    /// Whether there is any.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.api_silent || self.isolated
    }
}

/// How long it takes until the verdicts of `check` are of probes that are made from now on: as long as a return takes,
/// and ten minutes at most.
#[must_use]
pub fn settling(check: &Check) -> Duration {
    let probes = u32::from(check.thresholds.success) + 1;
    check.rhythm.longest().saturating_mul(probes).min(LONGEST)
}

/// The longest wait after an isolation.
const LONGEST: Duration = Duration::from_secs(600);

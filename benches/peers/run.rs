//! One look at one contender at work.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::contenders::Running;
use crate::common::usage::Usage;

/// What it used in a window.
pub struct Cost {
    /// Microseconds of CPU for one check: user and system time of the process.
    pub cpu: f64,
    /// The user's part of it.
    pub user: f64,
    pub per_second: f64,
    /// Of the core, in percent.
    pub share: f64,
    /// How often a thread gave up the core, or had to, for one check.
    pub switches: f64,
    /// Bytes.
    pub resident: f64,
}

impl Cost {
    /// Watches for `window`.
    ///
    /// # Errors
    /// When it has ended, or checked nothing.
    pub fn of(running: &Running, window: Duration) -> anyhow::Result<Self> {
        let (began, opened, before) = (Instant::now(), running.asked()?, Usage::of(running.pid())?);
        std::thread::sleep(window);
        let (after, took) = (Usage::of(running.pid())?, began.elapsed());
        // Whoever counts itself is asked when nobody looks at what that costs.
        let asked = running.asked()? - opened;
        running.check_alive()?;
        ensure!(asked > 0, "nothing was checked");
        let each = |time: Duration| time.as_secs_f64() * 1e6 / asked as f64;
        Ok(Self {
            cpu: each(after.cpu - before.cpu),
            user: each(after.user - before.user),
            per_second: asked as f64 / took.as_secs_f64(),
            share: after.share_since(&before),
            switches: after.switches.saturating_sub(before.switches) as f64 / asked as f64,
            resident: after.resident as f64,
        })
    }
}

//! For how long a holder has been silent.

use std::time::Duration;

/// The time of one read that counts at most toward silence: what is longer is a gap of our own, not the holder's.
pub const COUNTED_GAP: Duration = Duration::from_secs(3);

/// What another replica's Lease looked like, and how long it has looked the same.
#[derive(Debug, Default)]
pub struct Silence {
    pub(super) version: String,
    /// Silence that was witnessed.
    pub(super) witnessed: Duration,
    /// Boot time of the last read that succeeded.
    pub(super) last_read: Option<Duration>,
}

impl Silence {
    /// A read at `now` found `version`. How long it has been silent, as far as we have witnessed it.
    pub fn read(&mut self, version: &str, now: Duration) -> Duration {
        if self.version != version {
            *self = Self { version: version.to_owned(), witnessed: Duration::ZERO, last_read: Some(now) };
        } else {
            if let Some(last) = self.last_read {
                self.witnessed += now.saturating_sub(last).min(COUNTED_GAP);
            }
            self.last_read = Some(now);
        }
        self.witnessed
    }

    /// A read failed: the time until the next one that succeeds proves nothing.
    pub fn failed(&mut self) {
        self.last_read = None;
    }
}

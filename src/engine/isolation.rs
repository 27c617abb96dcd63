//! When the prober itself is cut off. Pure.
//!
//! It is when its loopback canary fails, or when not one probe of any endpoint has succeeded for two intervals while the
//! API server too cannot be reached. What then fails says nothing of the targets. Either alone is none: everything may
//! really be down, and an API server that is away leaves the way to the targets open.

/// How many intervals of an endpoint that fails have to pass without any success.
const INTERVALS: u64 = 2;

/// Times are milliseconds of any clock that only goes forward.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    last_success: u64,
    /// An endpoint has failed for so long, and nobody has succeeded meanwhile.
    sees_nothing: bool,
}

impl Isolation {
    pub fn succeeded(&mut self, now: u64) {
        self.last_success = now;
        self.sees_nothing = false;
    }

    /// A probe of an endpoint that is asked each `interval` has failed.
    pub fn failed(&mut self, now: u64, interval: u64) {
        self.sees_nothing |= now.saturating_sub(self.last_success) >= interval.saturating_mul(INTERVALS);
    }

    pub const fn holds(&self, api_silent: bool, canary_failed: bool) -> bool {
        canary_failed || (api_silent && self.sees_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_seen_for_two_intervals_and_no_api_server_is_isolation() {
        let mut isolation = Isolation::default();
        isolation.succeeded(1000);
        isolation.failed(2999, 1000);
        assert!(!isolation.holds(true, false), "not yet two intervals");
        isolation.failed(3000, 1000);
        assert!(isolation.holds(true, false));
        assert!(!isolation.holds(false, false), "they may all be down");
        isolation.succeeded(3100);
        assert!(!isolation.holds(true, false), "an API server that is away is no isolation");
        isolation.failed(4200, 1000);
        assert!(!isolation.holds(true, false), "somebody has succeeded since");
        assert!(isolation.holds(false, true), "the canary needs nobody else");
    }
}

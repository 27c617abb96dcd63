//! Flap control: what keeps changing waits before traffic comes back to it.
//!
//! From the third flip inside ten intervals a re-admission waits two intervals, and twice as long with each further
//! flip, up to five minutes. After ten quiet intervals all is forgotten. The verdict stays true meanwhile, and taking
//! out never waits.

use std::time::Duration;

/// How many flips make an endpoint flap.
const FLIPS: u32 = 3;
/// Within how many intervals they count, and how many quiet ones make them forgotten.
const WINDOW: u32 = 10;
/// How many intervals the first wait takes.
const FIRST_WAIT: u32 = 2;
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The flips of one endpoint. Times are of any clock that only goes forward, counted from any fixed moment.
///
/// A flip is a change between healthy and unhealthy, either way; a first verdict, and one that goes stale, is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flap {
    /// The latest flips, newest first.
    recent: [Option<Duration>; FLIPS as usize - 1],
    /// How many flips have called for a wait, this one included.
    waits: u32,
    /// The end of the wait that the newest flip called for.
    held_until: Option<Duration>,
    /// When all is forgotten if nothing more happens.
    quiet_at: Duration,
}

impl Flap {
    /// Takes in a flip at `at` of an endpoint that is probed each `interval`. The wait is counted from the newest flip,
    /// so an endpoint that comes back waits from then on.
    pub fn flip(&mut self, at: Duration, interval: Duration) {
        if at >= self.quiet_at {
            *self = Self::default();
        }
        let window = interval.saturating_mul(WINDOW);
        let oldest = self.recent.last().copied().flatten();
        let often = oldest.is_some_and(|oldest| at.saturating_sub(oldest) <= window);
        self.held_until = None;
        if self.waits > 0 || often {
            self.held_until = Some(at.saturating_add(wait(self.waits, interval)));
            self.waits = self.waits.saturating_add(1);
        }
        self.recent.rotate_right(1);
        self.recent[0] = Some(at);
        // The quiet begins where the wait ends: an endpoint that only breaks under traffic is always quiet without it,
        // and would otherwise be forgiven each time for having had none.
        self.quiet_at = self.held_until.unwrap_or(at).saturating_add(window);
    }

    /// Until when its re-admission waits; `None` when it does not wait at `now`.
    #[must_use]
    pub fn held_until(&self, now: Duration) -> Option<Duration> {
        self.held_until.filter(|until| now < *until)
    }

    /// Whether it has flipped so often of late that its next return waits: shown as reason `Flapping`.
    #[must_use]
    pub fn is_flapping(&self, now: Duration) -> bool {
        self.waits > 0 && now < self.quiet_at
    }

    /// Whether there is nothing to remember at `now`: such a state need not be kept.
    #[must_use]
    pub fn is_quiet(&self, now: Duration) -> bool {
        now >= self.quiet_at
    }
}

/// How long an endpoint waits anew of which nothing more is known than that it was waiting, for at least `waited`: as
/// long as the shortest wait that takes longer than that, or as the longest there is.
#[must_use]
pub fn wait_anew(waited: Duration, interval: Duration) -> Duration {
    (0..u32::BITS).map(|earlier| wait(earlier, interval)).find(|wait| *wait > waited).unwrap_or(LONGEST_WAIT)
}

/// The wait after `earlier` others.
fn wait(earlier: u32, interval: Duration) -> Duration {
    let factor = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX).saturating_mul(FIRST_WAIT);
    interval.saturating_mul(factor).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seconds(at: u64) -> Duration {
        Duration::from_secs(at)
    }

    /// How long each of `flips` (in seconds) makes a return wait, at an interval of a second.
    fn waits(flips: &[u64]) -> Vec<Option<u64>> {
        let mut flap = Flap::default();
        let wait = |at: &u64| {
            flap.flip(seconds(*at), SECOND);
            flap.held_until(seconds(*at)).map(|until| (until - seconds(*at)).as_secs())
        };
        flips.iter().map(wait).collect()
    }

    #[test]
    fn the_third_flip_inside_ten_intervals_waits_and_each_further_one_twice_as_long() {
        assert_eq!(waits(&[100, 104, 108, 112, 116]), [None, None, Some(2), Some(4), Some(8)]);
        assert_eq!(waits(&[100, 101, 110]), [None, None, Some(2)], "ten intervals are inside");
        assert_eq!(waits(&[100, 101, 111, 112]), [None, None, None, None], "eleven are not");
        assert_eq!(waits(&[100, 109, 111, 112]), [None, None, None, Some(2)], "any three in a row count");
    }

    #[test]
    fn a_wait_is_never_longer_than_five_minutes() {
        let flips: Vec<_> = (0..60).collect();
        let last = waits(&flips);
        assert_eq!((last[9], last[10], last[59]), (Some(256), Some(300), Some(300)));
        let mut slow = Flap::default();
        for at in 0..3 {
            slow.flip(seconds(at * 3600), seconds(3600));
        }
        assert_eq!(slow.held_until(seconds(7200)), Some(seconds(7500)), "two intervals would be two hours");
    }

    #[test]
    fn ten_quiet_intervals_after_the_wait_make_it_forgotten() {
        let after = |quiet: u64| waits(&[100, 101, 102, 103, 103 + 4 + quiet])[4];
        assert_eq!(after(9), Some(8));
        assert_eq!(after(10), None);
        assert_eq!(waits(&[100, 101, 102, 103, 117, 118, 119]), [None, None, Some(2), Some(4), None, None, Some(2)]);
    }

    #[test]
    fn a_wait_that_was_forgotten_begins_anew_as_long_as_it_may_have_been_and_no_longer_than_any() {
        let anew = |waited| wait_anew(seconds(waited), SECOND).as_secs();
        assert_eq!([0, 1, 2, 3, 4, 100, 299, 300, 86_400].map(anew), [2, 2, 4, 4, 8, 128, 300, 300, 300]);
        assert_eq!(wait_anew(seconds(0), seconds(3600)), seconds(300));
    }

    #[test]
    fn a_wait_ends_by_itself() {
        let mut flap = Flap::default();
        for at in [100, 101, 102] {
            flap.flip(seconds(at), SECOND);
        }
        assert_eq!(flap.held_until(seconds(103)), Some(seconds(104)));
        assert_eq!((flap.held_until(seconds(104)), flap.is_flapping(seconds(104))), (None, true));
        assert_eq!((flap.is_flapping(seconds(113)), flap.is_flapping(seconds(114))), (true, false));
        assert!(!flap.is_quiet(seconds(113)) && flap.is_quiet(seconds(114)) && Flap::default().is_quiet(seconds(0)));
    }

    proptest! {
        #[test]
        fn a_wait_follows_from_the_flips_before_it(gaps in prop::collection::vec(0..40_u64, 1..30)) {
            let flips: Vec<u64> = gaps.iter().scan(50, |at, gap| { *at += gap; Some(*at) }).collect();
            prop_assert_eq!(waits(&flips), naive(&flips));
        }
    }

    /// The rule told backwards: each flip looks at the whole history.
    fn naive(flips: &[u64]) -> Vec<Option<u64>> {
        let mut told: Vec<Option<u64>> = vec![];
        for (at, now) in flips.iter().enumerate() {
            let calm = |i: &usize| *i == 0 || flips[i - 1] + told[i - 1].unwrap_or(0) + 10 <= flips[*i];
            let start = (0..=at).rev().find(calm).unwrap();
            let earlier = told[start..at].iter().flatten().count() as u32;
            let third = at >= start + 2 && flips[at - 2] + 10 >= *now;
            told.push((earlier > 0 || third).then(|| 2_u64.saturating_pow(earlier + 1).min(300)));
        }
        told
    }
}

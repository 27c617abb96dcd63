//! By how much intervals are stretched where rounds are skipped, and when that is said. Pure.

/// Nothing is said of fewer rounds.
const ROUNDS: u32 = 10;
/// Where so many times as many are skipped, nobody waits for one to begin.
const HOPELESS: u32 = 100;
/// What is said of how far this process keeps up is said of as long.
const STRETCHED_OVER: u64 = 10_000;

/// Rounds of a while: how many began, and how many were skipped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    began: u32,
    skipped: u32,
}

impl Stretch {
    /// A round began, or another's answer is taken for it.
    pub fn began(&mut self) {
        self.began = self.began.saturating_add(1);
    }

    /// So many were skipped.
    pub fn skipped(&mut self, rounds: u64) {
        self.skipped = self.skipped.saturating_add(u32::try_from(rounds).unwrap_or(u32::MAX));
    }

    /// Whether enough is known of `members`: each of them began twice, or what they skipped tells as much.
    pub fn is_known(self, members: u32) -> bool {
        let enough = members.saturating_mul(2).max(ROUNDS);
        self.began >= enough || self.skipped >= enough.saturating_mul(HOPELESS)
    }

    /// How many times as long as declared the time from one round to the next was, so far; counting begins anew.
    /// 1 where nothing was skipped; never less.
    pub fn take(&mut self) -> f64 {
        let Self { began, skipped } = std::mem::take(self);
        1.0 + f64::from(skipped) / f64::from(began.max(1))
    }
}

/// Tells, every ten seconds, how far this process keeps up.
#[derive(Debug, Default)]
pub(super) struct Late {
    next: u64,
    told: bool,
}

impl Late {
    /// Less is not worth a line in the log.
    const WORTH_TELLING: f64 = 1.1;

    /// How much longer than declared intervals were, where it is time to say so.
    pub fn look(&mut self, stretch: &mut Stretch, now: u64) -> Option<f64> {
        if now < self.next {
            return None;
        }
        self.next = now + STRETCHED_OVER;
        let times = stretch.take();
        let is_late = times > Self::WORTH_TELLING;
        if is_late && !self.told {
            tracing::warn!(
                times = (times * 10.0).round() / 10.0,
                "this process does not keep up: intervals are longer than declared, on average by this factor and the shortest by more; give it \
                 more CPU, allow more probes at once, or declare longer intervals"
            );
        } else if self.told && times == 1.0 {
            tracing::info!("all intervals are kept again");
        }
        self.told = is_late || (self.told && times > 1.0);
        Some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_round_skipped_is_twice_the_interval_and_none_is_once() {
        let mut stretch = Stretch::default();
        assert_eq!(stretch.take(), 1.0);
        (0..10).for_each(|_| stretch.began());
        assert_eq!((stretch.is_known(5), stretch.is_known(6), stretch.take()), (true, false, 1.0));
        (0..5).for_each(|_| stretch.began());
        stretch.skipped(5);
        assert_eq!((stretch.is_known(1), stretch.take(), stretch.take()), (false, 2.0, 1.0));
        stretch.skipped(999);
        assert!(!stretch.is_known(1));
        stretch.skipped(1);
        assert_eq!((stretch.is_known(1), stretch.take()), (true, 1001.0), "not one began");
    }
}

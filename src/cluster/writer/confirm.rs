//! When a status to which nothing happens is confirmed.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::REFRESHES_PER_SECOND;

/// How often each of `count` statuses is confirmed: `refresh`, stretched so that all of them stay below the limit.
#[must_use]
pub(super) fn refresh_period(refresh: Duration, count: usize) -> Duration {
    let all = Duration::from_secs(count as u64 / u64::from(REFRESHES_PER_SECOND));
    refresh.max(all)
}

/// Within what time each of `count` statuses is confirmed at the latest: when its turn has come, all the others may be
/// before it.
#[must_use]
pub fn confirmed_within(refresh: Duration, count: usize) -> Duration {
    2 * refresh_period(refresh, count)
}

/// A point of time in the later half of `period`, the same for the same object.
pub(super) fn spread(uid: &str, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let share = (hasher.finish() % 1000) as u32;
    period / 2 + period * share / 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_are_stretched_where_there_are_many() {
        let minute = Duration::from_secs(60);
        assert_eq!((refresh_period(minute, 0), refresh_period(minute, 240)), (minute, minute));
        assert_eq!(refresh_period(minute, 1000), Duration::from_secs(250), "four a second and no more");
        assert_eq!(confirmed_within(minute, 1000), Duration::from_secs(500));
    }

    #[test]
    fn turns_lie_in_the_later_half_and_apart() {
        let period = Duration::from_secs(100);
        let turns: Vec<_> = (0..100).map(|uid| spread(&uid.to_string(), period)).collect();
        assert!(turns.iter().all(|turn| *turn >= period / 2 && *turn <= period), "{turns:?}");
        let early = turns.iter().filter(|turn| **turn < period * 3 / 4).count();
        assert!((30..70).contains(&early), "{early} of a hundred in the first half of it");
        assert_eq!(spread("a", period), spread("a", period));
    }
}

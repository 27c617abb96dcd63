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

//! When the pods of all namespaces are searched for conditions of ours. Pure: no clock.

use std::time::Duration;

use tokio::time::Instant;

/// How long a search is followed by none: so often as long as it took, and within these.
const REST: u32 = 20;
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(600);
/// One that has not ended by then has broken down.
const LOST: Duration = Duration::from_secs(600);

/// The pods of a whole cluster are many: so one search at a time, the rarer the longer it takes, and after the first
/// only as long as there is a reason.
#[derive(Debug, Default)]
pub struct PodSearch {
    began: Option<Instant>,
    due: Option<Instant>,
    searched: bool,
}

impl PodSearch {
    /// Whether to search now; `wanted`: there is a reason to search once more.
    pub fn begin(&mut self, now: Instant, wanted: impl FnOnce() -> bool) -> bool {
        let running = self.began.is_some_and(|began| now < began + LOST);
        let early = self.due.is_some_and(|due| now < due);
        if running || early || (self.searched && !wanted()) {
            return false;
        }
        (self.searched, self.began) = (true, Some(now));
        true
    }

    /// A search has ended.
    pub fn ended(&mut self, now: Instant) {
        let took = self.began.take().map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        self.due = Some(now + took.saturating_mul(REST).clamp(SHORTEST, LONGEST));
    }

    /// The next search is not to wait longer than until `at`.
    pub fn hasten(&mut self, at: Instant) {
        self.due = self.due.map(|due| due.min(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pods_are_searched_for_once_and_then_only_while_there_is_a_reason() {
        let (start, mut search) = (Instant::now(), PodSearch::default());
        assert!(search.begin(start, || false), "once in each life");
        assert!(!search.begin(start + MINUTE, || true), "one at a time");
        search.ended(start);
        assert!(!search.begin(start + MINUTE, || false), "nothing asks for it");
        assert!(
            !search.begin(start + MINUTE - Duration::from_millis(1), || true) && search.begin(start + MINUTE, || true)
        );
    }

    #[test]
    fn the_longer_it_takes_the_longer_it_rests() {
        for (took, rest) in [(1, 60), (6, 120), (500, 600)] {
            let (start, mut search) = (Instant::now(), PodSearch::default());
            assert!(search.begin(start, || true));
            let end = start + Duration::from_secs(took);
            search.ended(end);
            let due = end + Duration::from_secs(rest);
            assert!(!search.begin(due - Duration::from_millis(1), || true) && search.begin(due, || true), "{took} s");
        }
    }

    #[test]
    fn what_was_missed_is_looked_for_soon_and_one_that_broke_down_is_not_waited_for() {
        let (start, mut search) = (Instant::now(), PodSearch::default());
        assert!(search.begin(start, || true) && search.begin(start + LOST, || true), "as if the first had panicked");
        search.ended(start + LOST);
        search.hasten(start + LOST + Duration::from_secs(5));
        assert!(search.begin(start + LOST + Duration::from_secs(5), || true));
    }
}

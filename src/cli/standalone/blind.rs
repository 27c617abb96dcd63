//! Which endpoints cannot be looked at from here, as seen between the engine and the prober.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    check::{Attempt, ObjectKey, Outcome, Report, Text},
    probe::Lane,
};

/// A target of a check: in a file it has one endpoint.
type Place = (ObjectKey, Text);

/// How often in a row each target could not be looked at. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Blind(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    in_a_row: Mutex<HashMap<Place, u32>>,
    more: Notify,
}

impl Blind {
    /// How many attempts at `target` of `check` ended on our side since the last that did not.
    pub fn attempts(&self, check: &ObjectKey, target: &Text) -> u32 {
        self.counts().get(&(check.clone(), target.clone())).copied().unwrap_or(0)
    }

    /// Waits until one could not look since this was waited for last. Cancel-safe. For one waiter.
    pub async fn more(&self) {
        self.0.more.notified().await;
    }

    fn note(&self, place: Place, outcome: &Outcome) {
        if matches!(outcome, Outcome::Local { .. }) {
            let mut counts = self.counts();
            let count = counts.entry(place).or_default();
            *count = count.saturating_add(1);
            self.0.more.notify_one();
        } else {
            self.counts().remove(&place);
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Place, u32>> {
        // Whatever panicked meanwhile left it as it was.
        self.0.in_a_row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane that keeps count.
pub(super) struct Counting<L> {
    pub lane: L,
    pub blind: Blind,
}

impl<L: Lane> Lane for Counting<L> {
    async fn attempt(&self, attempt: Attempt) -> Report {
        let place = (attempt.check.clone(), attempt.target.clone());
        let report = self.lane.attempt(attempt).await;
        self.blind.note(place, &report.outcome);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Reason;

    #[test]
    fn only_attempts_in_a_row_that_could_not_look_count() {
        let (blind, key, target) = (Blind::default(), ObjectKey::new("shop", "web"), Text::from("t"));
        let ended = |outcome| {
            blind.note((key.clone(), target.clone()), &outcome);
            blind.attempts(&key, &target)
        };
        let cannot = || Outcome::from_reason(Reason::CannotStart, "no such program");
        assert_eq!([ended(cannot()), ended(cannot())], [1, 2]);
        assert_eq!(ended(Outcome::from_reason(Reason::ExitCode, "exit code 1")), 0);
        assert_eq!(ended(cannot()), 1);
        assert_eq!(ended(Outcome::Success), 0);
        assert_eq!(blind.attempts(&key, &Text::from("other")), 0);
    }
}

//! What the writer knows of one HealthCheck.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    cluster::{gates::report::GatesReport, server_state::ServerState, status::Acceptance},
    engine::CheckView,
};

/// How long after a write what the watch shows may still be older than it.
const ECHO: Duration = Duration::from_secs(3);

/// A new object about which nothing is decided after this says so (`api.md`: `Ready` and `Healthy` on first sight); most
/// are decided at once, and need no such write.
const UNDECIDED: Duration = Duration::from_secs(1);

/// How many small changes of one object are written in a row without a longer wait: a person who mends something sees
/// what comes of it at once.
const SMALL: u32 = 5;
/// How long each of them takes to be made good: what goes on changing is written so often.
const REGAINED: Duration = Duration::from_secs(5);

/// How many small changes of one object may be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Small {
    /// When all of them may be again.
    full: Option<Instant>,
}

impl Small {
    /// Whether one may be written at `now`.
    pub(super) fn has_one(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full.saturating_duration_since(now) <= REGAINED * (SMALL - 1))
    }

    /// One was.
    pub(super) fn took_one(&mut self, now: Instant) {
        self.full = Some(self.full.map_or(now, |full| full.max(now)) + REGAINED);
    }
}

/// See the module's own words.
#[derive(Debug)]
pub(super) struct Record {
    /// As we last wrote it, or first saw it.
    pub(super) known: ServerState,
    /// What the watch showed last, and when.
    pub(super) seen: u64,
    pub(super) seen_at: Instant,
    /// The server's epoch is of our own making.
    pub(super) ours: bool,
    pub(super) acceptance: Option<Acceptance>,
    /// What its gates do, and the view that they have taken in.
    pub(super) gates: Option<(Box<GatesReport>, Arc<CheckView>)>,
    /// Since when a word of the gates is waited for.
    pub(super) gates_awaited: Option<Instant>,
    /// The override problem that an event was last made of, or that was none: `None` before the first acceptance.
    pub(super) told_override: Option<Option<String>>,
    /// Small changes that may be written.
    pub(super) small: Small,
    pub(super) born: Instant,
    /// When the last write was sent.
    pub(super) sent: Option<Instant>,
    pub(super) written: Option<Instant>,
    pub(super) refresh: Instant,
}

/// How long a status waits for what the gates make of the same verdicts, so that both are told by one write.
const GATES: Duration = Duration::from_secs(1);

impl Record {
    /// In a new life, what the status tells of overrides was told by an event then.
    pub(super) fn hear_of_overrides(&mut self, acceptance: &Acceptance) {
        self.told_override.get_or_insert_with(|| {
            let problem = acceptance.override_problem();
            let told = |problem: &String| self.known.tells(problem);
            problem.filter(told)
        });
    }

    /// The override problem that the status tells now, if no event has.
    pub(super) fn untold_override(&mut self) -> Option<String> {
        let problem = self.acceptance.as_ref()?.override_problem();
        let told = self.told_override.replace(problem.clone()).flatten();
        problem.filter(|problem| Some(problem) != told.as_ref())
    }

    /// Whether it has gates that act by it.
    pub(super) fn is_gated(&self) -> bool {
        self.acceptance.as_ref().and_then(|known| known.gates.as_ref()).is_some_and(|all| !all.is_empty())
    }

    /// Whether the gates have still to say what they make of `view`.
    pub(super) fn awaits_gates(&mut self, view: &Arc<CheckView>) -> bool {
        if !self.is_gated() || self.gates.as_ref().is_some_and(|(_, seen)| Arc::ptr_eq(seen, view)) {
            self.gates_awaited = None;
            return false;
        }
        self.gates_awaited.get_or_insert_with(Instant::now).elapsed() < GATES
    }

    /// Whether the watch has shown what became of the last write: one that is deaf shows nothing to compare with.
    pub(super) fn is_echoed(&self, now: Instant) -> bool {
        self.written.is_none_or(|at| now.duration_since(at) >= ECHO) && self.sent.is_none_or(|at| self.seen_at > at)
    }

    /// Whether it is without a status for longer than a decision takes.
    pub(super) fn is_undecided(&self) -> bool {
        !self.known.has_conditions() && self.known.health.is_none() && self.born.elapsed() >= UNDECIDED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_small_changes_are_written_at_once_and_a_stream_of_them_slowly() {
        let start = Instant::now();
        let mut small = Small::default();
        let mut written = vec![];
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            if small.has_one(now) {
                small.took_one(now);
                written.push(second);
            }
        }
        assert_eq!(written, [0, 1, 2, 3, 4, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]);
        let later = start + Duration::from_secs(200);
        for _ in 0..SMALL {
            assert!(small.has_one(later), "made good");
            small.took_one(later);
        }
        assert!(!small.has_one(later));
    }
}

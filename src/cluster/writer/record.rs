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
    pub(super) born: Instant,
    /// When the last write was sent.
    pub(super) sent: Option<Instant>,
    pub(super) written: Option<Instant>,
    pub(super) refresh: Instant,
}

/// How long a status waits for what the gates make of the same verdicts, so that both are told by one write.
const GATES: Duration = Duration::from_secs(1);

impl Record {
    /// Whether the gates have still to say what they make of `view`.
    pub(super) fn awaits_gates(&mut self, view: &Arc<CheckView>) -> bool {
        let gated = self.acceptance.as_ref().and_then(|known| known.gates.as_ref()).is_some_and(|all| !all.is_empty());
        if !gated || self.gates.as_ref().is_some_and(|(_, seen)| Arc::ptr_eq(seen, view)) {
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
        self.known.conditions.is_empty() && self.known.health.is_none() && self.born.elapsed() >= UNDECIDED
    }
}

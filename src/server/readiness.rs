//! Whether this process can do its work: named conditions set by whoever knows, and our own loops.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{engine::Board, telemetry::Beats};

/// Conditions of readiness, by name. Cheap to clone. A name is lower-case words joined by `-`, like `crd` or `sync`.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Readiness {
    /// `name` holds.
    pub fn ready(&self, name: &'static str) {
        self.set(name, Ok(()));
    }

    /// `name` does not hold, `why` in a few words for people. Also how a condition is announced before it is known.
    pub fn not_ready(&self, name: &'static str, why: impl Into<String>) {
        self.set(name, Err(why.into()));
    }

    /// `name` matters no longer.
    pub fn forget(&self, name: &'static str) {
        self.conditions().remove(name);
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        self.conditions().insert(name, state);
    }

    fn conditions(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Result<(), String>>> {
        // A panic while it was held leaves the map as it was, or with one more entry: both are valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every check of `/readyz` by name: the conditions, `board`, and `loop-<name>` for each of our loops.
pub(super) fn checks(readiness: &Readiness, beats: &Beats, board: &Board) -> BTreeMap<String, Result<(), String>> {
    let mut checks: BTreeMap<String, Result<(), String>> =
        readiness.conditions().iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect();
    let current = if board.is_current() { Ok(()) } else { Err(super::verdict::NOT_CURRENT.to_owned()) };
    checks.insert("board".into(), current);
    for (name, beat) in beats.all() {
        let state = if beat.is_alive() { Ok(()) } else { Err(format!("no sign of life since {:.3}", beat.at)) };
        checks.insert(format!("loop-{name}"), state);
    }
    checks
}

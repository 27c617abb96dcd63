//! What the status says that gates did in an earlier life. Pure.
//!
//! A freeze and a flap hold are memory. A replica that takes over in the midst of one finds endpoints that are published
//! against their verdicts, or withheld against them, and must not put that right at once: nothing has happened but a
//! restart. What follows from what it finds:
//! - a gate that was frozen starts frozen, until this replica's own probes have told;
//! - what was lost since the freeze began is lost together, for the detector too, so that the freeze goes on;
//! - what is healthy and withheld, where the gate was held or frozen, waits anew.

use std::time::Duration;

use jiff::Timestamp;

use crate::{api::status::GateStatus, check::GateReason, cluster::reconcile::Reconciler};

/// What one gate did when it was last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    frozen: bool,
    held: bool,
    since: Option<Timestamp>,
}

impl Former {
    /// What `found` says of the gate `name`.
    #[must_use]
    pub fn of(found: &[GateStatus], name: &str) -> Option<Self> {
        found.iter().find(|gate| gate.name == name).map(Self::read)
    }

    fn read(gate: &GateStatus) -> Self {
        let was = |reason: GateReason| gate.effective == reason.as_str();
        Self { frozen: was(GateReason::Frozen), held: was(GateReason::Held), since: gate.since.as_ref().map(|at| at.0) }
    }

    #[must_use]
    pub const fn was_frozen(self) -> bool {
        self.frozen
    }

    /// For how long an endpoint that is healthy and withheld may have waited by now; `None` where it was not for a hold.
    #[must_use]
    pub fn waited(self, now: Timestamp) -> Option<Duration> {
        let since = self.since.filter(|_| self.held || self.frozen)?;
        // A clock that was behind says the least.
        Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
    }
}

/// Since when gates were frozen when this life began, where any was.
#[must_use]
pub fn frozen_since(reconciler: &Reconciler) -> Option<Timestamp> {
    let gates = reconciler.gated().flat_map(|key| reconciler.found_gates(&key).to_vec());
    gates.map(|gate| Former::read(&gate)).filter(|former| former.frozen).filter_map(|former| former.since).min()
}

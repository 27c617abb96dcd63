//! What traffic shows of an endpoint, beside its probes. Pure: no clock, no I/O.
//!
//! Traffic has a state machine of its own, with its own counters and limits. Below a limit it moves nothing but its
//! counters, so that one bad answer in a thousand is no doubt that anybody sees, and no state changes at the pace at which
//! requests come. At a limit it ejects the endpoint, and
//! an ejected endpoint is unhealthy whatever its probes say, until
//!
//! - its probe has succeeded `successThreshold` times in a row since the last failure that traffic has shown, or
//! - traffic itself, which may still come while a limit keeps the endpoint published, succeeds as often as it must.
//!
//! Traffic never acquits an endpoint that its probes find unhealthy. Where nothing is probed, what it says is the verdict.

use super::{
    machine::{Machine, Seen},
    view::Counters,
};
use crate::check::{EndpointState, Thresholds};

/// See the module's own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    machine: Machine,
    /// Probes in a row that succeeded since traffic last spoke against it. Counted while it is ejected.
    proofs: u16,
}

impl Traffic {
    /// Takes up where an earlier life left off.
    pub fn resumed(state: EndpointState) -> Self {
        Self { machine: Machine::resumed(state.plain()), proofs: 0 }
    }

    pub const fn counters(&self) -> Counters {
        self.machine.counters()
    }

    pub const fn is_ejected(&self) -> bool {
        self.machine.state().is_unhealthy()
    }

    /// The verdict, where nothing is probed.
    pub const fn alone(&self) -> EndpointState {
        self.machine.state().plain()
    }

    /// The verdict, where probes alone would come to `probed`.
    pub const fn beside(&self, probed: EndpointState) -> EndpointState {
        if !self.is_ejected() {
            return probed;
        }
        match probed {
            EndpointState::Unhealthy => EndpointState::Unhealthy,
            _ if self.proofs > 0 => EndpointState::MostlyUnhealthy,
            _ => EndpointState::Unhealthy,
        }
    }

    /// Takes in `times` reports of the same.
    pub fn observe(&mut self, seen: Seen, times: u16, limits: &Thresholds) {
        self.machine.step_times(seen, times, limits);
        if matches!(seen, Seen::Failure(_)) {
            self.proofs = 0;
        }
    }

    /// A probe has ended, of an endpoint that is probed.
    pub fn probed(&mut self, seen: Seen, thresholds: &Thresholds) {
        if !self.is_ejected() {
            return;
        }
        match seen {
            Seen::Failure(_) => self.proofs = 0,
            Seen::Success => {
                self.proofs = self.proofs.saturating_add(1);
                if self.proofs >= u16::from(thresholds.success) {
                    self.release();
                }
            }
        }
    }

    /// It gets traffic again; counting starts anew.
    pub fn release(&mut self) {
        *self = Self::resumed(EndpointState::Healthy);
    }

    /// What was counted so far decides nothing any more; an ejection stands.
    pub fn recount(&mut self) {
        *self = Self::resumed(self.alone());
    }
}

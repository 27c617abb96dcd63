//! What of the verdicts may move traffic: desired → limited → published.
//!
//! Pure values: no clock, no I/O, no Kubernetes. A verdict is what was measured; a gate decides how far it is followed.
//!
//! - `decide` is the one function that says what is published, within floor and cap; `explain` tells people why.
//! - `flap` says how long an endpoint that keeps changing waits before it is let in again.
//! - `correlation` sees that so much was lost at once that our own side is the likelier cause.

mod correlation;
mod decide;
mod explain;
mod flap;
mod frozen;
mod member;
#[cfg(test)]
mod tests;

pub use correlation::{Detector, Frozen, Loss, Population, Watched};
pub use decide::{Decision, Effective, Ruling, Why, decide};
pub use explain::explain;
pub use flap::{Flap, wait_anew};
pub use member::{Freeze, Last, Member, Verdict};

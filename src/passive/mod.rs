//! What data planes tell of the traffic they send: reports taken in, and access logs read as such. The engine judges them
//! (`spec.passive`); here is only what a report, or a line of a log, says.
//!
//! `intake` passes reports on to the engine, as many at once as it has turns for, and counts what became of each.
//! `observation` is our own form, `http_logger` and `envoy` are those of data planes that need no change for it.

pub mod envoy;
mod http_logger;
mod intake;
mod observation;
mod scope;

pub use http_logger::{Unread, parse as parse_http_log};
pub use intake::{Intake, Overflow, Pending, Seat, Tally};
pub use observation::{MAX_REPORTS, Written, parse as parse_observations};
pub use scope::parse as parse_scope;

use crate::engine::Observation;

/// What a log says: what is known of endpoints, in its order, and how many of its lines say nothing of any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub reports: Vec<Observation>,
    /// Lines in which no upstream was asked, or in which it is not to blame for the end.
    pub unattributed: u64,
}

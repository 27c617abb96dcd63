//! The scheduler, the state machine and the board.
//!
//! `scheduler` is the loop, and `mail` what reaches it; `roster` changes what it runs, `rounds` runs it, `hearsay` takes in what a data plane reports, `publishing` shows it to readers; `table`, `record` and `group` are what it keeps. The rest is
//! pure: `spoken`, `wheel`, `phase`, `permits`, `sharing`, `stretch`, `stall`, `isolation`, `machine`, `moment`, `judgement`, `belief`, `aggregate`,
//! and of what a data plane reports: `traffic`, `testimony`. Beside it
//! stands `single_flight`, for what is probed when somebody asks.

mod aggregate;
mod belief;
mod board;
mod desired;
mod group;
mod hearsay;
mod isolation;
mod judgement;
mod machine;
mod mail;
mod moment;
mod permits;
mod phase;
mod publishing;
mod pulse;
mod record;
mod roster;
mod rounds;
mod scheduler;
mod sharing;
mod single_flight;
mod spoken;
mod stall;
mod stretch;
mod surroundings;
mod table;
mod testimony;
#[cfg(test)]
mod tests;
mod tick;
mod traffic;
mod view;
mod wheel;

pub use aggregate::{Demand, Member, aggregate};
pub use board::{Board, Subscription, Totals, WRITER_SILENCE};
pub use desired::{Declared, Desired, Engine, Prior, PriorAddress, PriorEndpoint};
pub use group::OUTAGE_TARGETS;
pub use hearsay::{About, Fate, Observation, Scope, When};
pub use moment::Moment;
pub use phase::stable_hash;
pub use scheduler::{Limits, Parts, start};
pub use single_flight::{Boarded, SingleFlight};
pub use surroundings::Surroundings;
pub use view::{
    CheckLive, CheckView, Counters, EndpointLive, EndpointView, Live, OVERRIDDEN, Outage, Overridden, Remarks,
};

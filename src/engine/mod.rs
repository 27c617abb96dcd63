//! The scheduler, the state machine and the board.

mod aggregate;
mod board;
mod desired;
mod machine;
mod phase;
mod view;
mod wheel;

pub use board::{Board, Subscription, Totals, WRITER_SILENCE};
pub use desired::{Desired, Engine, Prior, PriorEndpoint};
pub use view::{CheckLive, CheckView, Counters, EndpointLive, EndpointView, Outage};

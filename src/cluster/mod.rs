//! The operator in a cluster: watches, the active replica and its standby, and everything that is written to the API.
//!
//! `operator` wires and supervises. `lease` decides the role; `leader` (with `reconcile`, `index` and `writer`) or
//! `mirror` plays it. Pure parts: `index`, `reconcile`, `status`, `prior`, `annotate`, `queue`.

mod annotate;
mod annotation_plan;
mod boottime;
mod checks;
mod client;
mod egress_facts;
mod events;
mod index;
mod leader;
mod lease;
mod mirror;
mod operator;
mod orphans;
mod patch;
mod prior;
mod queue;
mod reconcile;
mod references;
mod review;
mod server_state;
mod source_watches;
mod status;
mod watch;
mod writer;

pub use checks::Selection;
pub use client::{CallError, Connection, call, client};
pub use operator::{Identity, Options, run};

//! The operator in a cluster: watches, the active replica and its standby, and everything that is written to the API.
//!
//! `operator` wires and supervises. `lease` decides the role; `leader` (with `reconcile`, `index` and `writer`) or
//! `mirror` plays it. `gates` moves traffic. Pure parts: `index`, `reconcile`, `status`, `prior`, `annotate`, `queue`.

mod annotate;
mod annotation_plan;
mod asked;
mod boottime;
mod checks;
mod client;
mod egress_facts;
mod events;
mod gates;
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
mod referred;
mod review;
mod server_state;
mod source_watches;
mod status;
mod uninstall;
mod watch;
mod writer;

pub use checks::{Object, Selection};
pub use client::{CallError, Connection, call, client, list_all};
pub use gates::Features;
pub use index::ProblemKind;
pub use operator::{Identity, Options, run};
pub use uninstall::{Release, Report, release};

/// A role begins to list. What the former one left on the board answers meanwhile, as long as it may be believed: a
/// change of roles never takes this replica out of its Service.
fn begin_sync(readiness: &crate::server::Readiness, board: &crate::engine::Board) {
    if board.is_current() {
        readiness.ready("sync");
    } else {
        readiness.not_ready("sync", "HealthChecks are being listed");
    }
}

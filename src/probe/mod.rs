//! One attempt of one kind: a value in, an outcome out.

mod ask;
pub mod canary;
mod dial;
mod egress;
mod exchange;
mod failure;
#[cfg(all(target_os = "linux", not(without_fast_lane)))]
mod fast;
#[cfg(any(not(target_os = "linux"), without_fast_lane))]
#[path = "fast/absent.rs"]
mod fast;
mod grpc;
mod http;
mod http2;
mod prober;
mod progress;
mod references;
mod resolve;
pub mod runner;
pub mod script;
mod tcp;
mod tls;

use std::future::Future;

use crate::check::{Attempt, Report};

pub use egress::{DeniedDynamic, EgressGuard, KUBELET_PORTS};
pub use fast::{Asks, Begun, FastLane, Question, TimedOut};
pub use http::KeptConnections;
pub use prober::{Prober, ScriptBackend, Settings};
pub use references::{NoReferences, ReferenceResult, References};
pub use resolve::NameServers;

/// Makes attempts. The scheduler knows no more of probing than this, so a faster lane can stand beside the ordinary one.
pub trait Lane: Send + Sync + 'static {
    /// Makes one attempt within the probe's own timeout. Never panics; cancelling (dropping the future) frees everything
    /// at once.
    fn attempt(&self, attempt: Attempt) -> impl Future<Output = Report> + Send;

    /// A lane beside this one that answers the questions it takes as this one does, at a fraction of the cost. `None`: there
    /// is none. It belongs to whoever asked for it.
    fn fast(&self) -> Option<FastLane> {
        None
    }
}

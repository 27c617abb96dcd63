//! What is known of our own side: whether anything that goes wrong out there may be our own fault.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// What the parts of a process tell each other of its own connections. Cheap to clone; each clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Surroundings(Arc<State>);

#[derive(Debug, Default)]
struct State {
    api_silent: AtomicBool,
    canary_failed: AtomicBool,
    isolated: AtomicBool,
}

impl Surroundings {
    /// Whoever talks to the API server says whether it answers.
    pub fn set_api_silent(&self, silent: bool) {
        if self.0.api_silent.swap(silent, Relaxed) != silent {
            tracing::info!(silent, "the API server {}", if silent { "does not answer" } else { "answers again" });
        }
    }

    /// Whether the API server does not answer. Without a cluster nobody says so.
    #[must_use]
    pub fn is_api_silent(&self) -> bool {
        self.0.api_silent.load(Relaxed)
    }

    /// The loopback canary says whether it fails.
    pub fn set_canary_failed(&self, failed: bool) {
        if self.0.canary_failed.swap(failed, Relaxed) != failed {
            let what = if failed { "cannot be connected to" } else { "can be connected to again" };
            tracing::warn!(failed, "this machine's own loopback {what}");
        }
    }

    #[must_use]
    pub fn has_canary_failed(&self) -> bool {
        self.0.canary_failed.load(Relaxed)
    }

    /// Whether the prober sees nothing any more, as the engine has found.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.0.isolated.load(Relaxed)
    }

    pub(crate) fn set_isolated(&self, isolated: bool) {
        if self.0.isolated.swap(isolated, Relaxed) != isolated {
            let what = if isolated { "is isolated: failures are not counted" } else { "is isolated no more" };
            tracing::warn!(isolated, "the prober {what}");
        }
    }
}

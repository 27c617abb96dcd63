//! Whether the Lease is held, as whoever writes asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::cluster::boottime;

/// Tells, at any moment, whether the Lease is held by the boot clock, and whether the release marker was last seen on
/// it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<HeldState>);

#[derive(Debug, Default)]
struct HeldState {
    /// Boot time in milliseconds.
    until: AtomicU64,
    released: AtomicBool,
}

impl Held {
    /// Whether writing is allowed at this very moment.
    #[must_use]
    pub fn now(&self) -> bool {
        boottime::now().as_millis() < u128::from(self.0.until.load(Relaxed))
    }

    /// Whether no gate may act.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.0.released.load(Relaxed)
    }

    pub(super) fn set_released(&self, released: bool) {
        if self.0.released.swap(released, Relaxed) != released {
            tracing::info!(released, "the release marker on the lease has {}", if released { "come" } else { "gone" });
        }
    }

    pub(super) fn until(&self, end: Duration) {
        self.0.until.store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn end(&self) {
        self.0.until.store(0, Relaxed);
    }
}

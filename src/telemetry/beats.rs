//! Which of our own loops still turn: what `/__health` lists and `readyz` judges.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// The loop that a replica has only while it is on standby.
pub const MIRROR: &str = "mirror";

/// The last sign of life of one loop.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    pub at: Timestamp,
    seen: Instant,
    /// A loop silent for longer than this has stopped.
    allowed_silence: Duration,
}

impl Beat {
    /// Whether the loop still turns.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.seen.elapsed() <= self.allowed_silence
    }
}

/// The loops of this process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Beats(Arc<Mutex<BTreeMap<&'static str, Beat>>>);

impl Beats {
    /// The loop `name` turned just now, and will again within `allowed_silence`.
    pub fn beat(&self, name: &'static str, allowed_silence: Duration) {
        let beat = Beat { at: Timestamp::now(), seen: Instant::now(), allowed_silence };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, beat);
    }

    /// The loop `name` ended as it should.
    pub fn end(&self, name: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Whether this process shows what another one wrote, and probes nothing itself.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(MIRROR)
    }

    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

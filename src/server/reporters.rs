//! Who reports, told once in a while: a line for every batch would bury the log.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::telemetry::Source;

/// A reporter is told of again after this.
const AGAIN: Duration = Duration::from_secs(600);
/// How many are remembered.
const CAPACITY: usize = 256;

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Reporters(Mutex<HashMap<(Source, String), Instant>>);

impl Reporters {
    /// Notes that `who` has reported, about `scope`.
    pub fn note(&self, source: Source, who: Option<&str>, scope: &str) {
        let key = (source, format!("{} {scope}", who.unwrap_or("-")));
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&key).is_some_and(|told| now.duration_since(*told) < AGAIN) {
            return;
        }
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(key, now);
        drop(known);
        tracing::info!(target: "audit", who = who.unwrap_or("-"), source = source.as_str(), scope, "reports traffic");
    }
}

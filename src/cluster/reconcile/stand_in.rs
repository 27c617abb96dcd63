//! What stands in for a check that cannot be run: on the board with nothing to probe, so that nobody takes its absence
//! for health.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::entry::Entry;
use crate::{
    check::{Check, Counts, Health, HealthReason, InitialState, MinHealthy, ObjectKey, Rhythm, Thresholds},
    engine::CheckView,
};

/// The view of one that the engine has not been given yet. `former` is what the board says of it.
pub(super) fn undecided(
    key: &ObjectKey,
    entry: &Entry,
    check: Option<&Check>,
    former: Option<&CheckView>,
    now: Timestamp,
) -> CheckView {
    CheckView {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: Arc::new(entry.labels.clone()),
        suspended: false,
        health: Health::Unknown,
        reason: HealthReason::ProbeError,
        message: "not probed yet: what its targets refer to cannot be listed".to_owned(),
        since: now,
        counts: Counts::default(),
        endpoints: Arc::default(),
        outages: former.map_or_else(Arc::default, |view| view.outages.clone()),
        probes: "".into(),
        interval: check.map_or(Duration::ZERO, |check| check.rhythm.interval),
        transitions: [0; 4],
        live: Arc::default(),
    }
}

/// A check that asks nothing, in place of one that cannot be run.
pub(super) fn bare(key: &ObjectKey, entry: &Entry, known: Option<&Check>) -> Check {
    const DEFAULT: Duration = Duration::from_secs(10);
    let rhythm =
        Rhythm { interval: DEFAULT, unhealthy_interval: DEFAULT, confirm_interval: DEFAULT, jitter_percent: 0 };
    Check {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: entry.labels.clone(),
        suspend: false,
        rhythm: known.map_or(rhythm, |check| check.rhythm),
        thresholds: Thresholds { success: 2, failure: 3, connect: None, http: None, timeout: None },
        initial_state: InitialState::Unknown,
        stale_after: known.map_or(DEFAULT * 3, |check| check.stale_after),
        min_healthy: MinHealthy::Percent(100),
        annotations: false,
        targets: vec![],
    }
}

//! What stands in for a check that cannot be run: on the board with nothing to probe, so that nobody takes its absence
//! for health.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::entry::Entry;
use crate::{
    check::{Check, Counts, Health, HealthReason, InitialState, MinHealthy, ObjectKey, Overrides, Rhythm, Thresholds},
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
    let suspended = check.is_some_and(|check| check.suspend);
    let (reason, message) = if suspended {
        (HealthReason::Suspended, "suspended")
    } else {
        (HealthReason::ProbeError, "not probed yet: what its targets refer to cannot be listed")
    };
    CheckView {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: entry.labels.clone(),
        suspended,
        health: Health::Unknown,
        reason,
        message: message.to_owned(),
        since: former.filter(|view| view.health == Health::Unknown).map_or(now, |view| view.since),
        counts: Counts::default(),
        targets: check.map_or_else(Arc::default, Check::target_names),
        unlisted: Health::Unknown,
        endpoints: Arc::default(),
        outages: former.map_or_else(Arc::default, |view| view.outages.clone()),
        probes: "".into(),
        interval: check.map_or(Duration::ZERO, |check| check.rhythm.interval),
        idle_interval: check.map_or(Duration::ZERO, |check| check.rhythm.idle()),
        transitions: [0; 4],
        live: Arc::default(),
    }
}

/// Whether `view` tells readers what `there` does.
pub(super) fn says_the_same(there: &CheckView, view: &CheckView) -> bool {
    let essence = |view: &CheckView| (view.generation, view.suspended, view.health, view.reason, view.interval);
    essence(there) == essence(view) && there.message == view.message && there.labels == view.labels
}

/// A check that asks nothing, in place of one that cannot be run.
pub(super) fn bare(key: &ObjectKey, entry: &Entry, known: Option<&Check>) -> Check {
    const DEFAULT: Duration = Duration::from_secs(10);
    let rhythm = Rhythm {
        interval: DEFAULT,
        unhealthy_interval: DEFAULT,
        confirm_interval: DEFAULT,
        no_traffic_interval: None,
        jitter_percent: 0,
    };
    Check {
        key: key.clone(),
        uid: entry.uid.clone(),
        generation: entry.generation,
        labels: entry.labels.clone(),
        suspend: false,
        rhythm: known.map_or(rhythm, |check| check.rhythm),
        thresholds: Thresholds { success: 2, failure: Some(3), connect: None, http: None, timeout: None },
        initial_state: InitialState::Unknown,
        stale_after: known.map_or(DEFAULT * 3, |check| check.stale_after),
        min_healthy: MinHealthy::Percent(100),
        annotations: false,
        targets: vec![],
        passive: None,
        gates: vec![],
        overrides: Overrides::default(),
    }
}

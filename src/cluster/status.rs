//! From the board to a HealthCheck's status. Pure.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::index::Problem;
use crate::{
    api::{
        self, HealthCheckStatus,
        conditions::{self, ConditionStatus, HEALTHY, READY, STALLED, Statement},
        status::{Counters, Counts, MAX_OUTAGES, MAX_TARGETS, Outage, TargetStatus},
    },
    check::{EndpointState, Health, HealthReason},
    engine::{CheckView, EndpointView},
};

/// The longest message of a condition we write; the API allows 32768.
const CONDITION_MESSAGE: usize = 1024;

/// What was made of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    pub uid: std::sync::Arc<str>,
    pub generation: i64,
    /// Everything that is wrong with it; empty: accepted.
    pub problems: Vec<Problem>,
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    pub prober: &'a str,
    pub epoch: i64,
}

/// The status that `view` and `acceptance` call for. `previous` are the conditions that were written last: they know
/// since when a condition says what it says.
#[must_use]
pub fn compose(
    view: &CheckView,
    acceptance: &Acceptance,
    previous: &[Condition],
    author: Author<'_>,
    now: Timestamp,
) -> HealthCheckStatus {
    HealthCheckStatus {
        observed_generation: Some(acceptance.generation),
        health: Some(view.health.as_str().to_owned()),
        since: Some(Time(view.since)),
        summary: Some(view.counts.summary()),
        counts: Some(Counts {
            total: view.counts.total,
            healthy: view.counts.healthy,
            unhealthy: view.counts.unhealthy,
            unknown: view.counts.unknown,
        }),
        conditions: conditions_of(view, acceptance, previous, &Time(now)),
        targets: targets(&view.endpoints),
        outages: view.outages.iter().take(MAX_OUTAGES).map(outage).collect(),
        observed_at: Some(Time(now)),
        prober: Some(author.prober.to_owned()),
        epoch: Some(author.epoch),
        probes: Some(view.probes.to_string()),
    }
}

fn conditions_of(view: &CheckView, acceptance: &Acceptance, previous: &[Condition], now: &Time) -> Vec<Condition> {
    let mut list = previous.to_vec();
    let observed_generation = Some(acceptance.generation);
    let problems = join(&acceptance.problems);
    let worst = acceptance.problems.iter().map(|problem| problem.kind).min();
    let (status, reason) = match worst {
        None => (ConditionStatus::True, "Accepted"),
        Some(kind) => (ConditionStatus::False, kind.as_str()),
    };
    conditions::set(
        &mut list,
        &Statement { kind: READY, status, reason, message: &problems, observed_generation },
        now,
    );

    let terminal = worst.filter(|kind| kind.is_terminal());
    let (reason, message) = match terminal {
        Some(_) => (HealthReason::ProbeError, problems.as_str()),
        None => (view.reason, view.message.as_str()),
    };
    let status = match view.health {
        Health::Healthy | Health::Degraded => ConditionStatus::True,
        Health::Unhealthy => ConditionStatus::False,
        Health::Unknown => ConditionStatus::Unknown,
    };
    let healthy = Statement { kind: HEALTHY, status, reason: reason.as_str(), message, observed_generation };
    conditions::set(&mut list, &healthy, now);

    match terminal {
        Some(kind) => conditions::set(
            &mut list,
            &Statement {
                kind: STALLED,
                status: ConditionStatus::True,
                reason: kind.as_str(),
                message: &problems,
                observed_generation,
            },
            now,
        ),
        None => conditions::remove(&mut list, STALLED),
    }
    list
}

/// All problems on one line, each with its field.
fn join(problems: &[Problem]) -> String {
    let all = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if all.chars().count() <= CONDITION_MESSAGE {
        return all;
    }
    let mut cut: String = all.chars().take(CONDITION_MESSAGE - 1).collect();
    cut.push('…');
    cut
}

fn severity(state: EndpointState) -> u8 {
    match state {
        EndpointState::Unhealthy => 0,
        EndpointState::MostlyUnhealthy => 1,
        EndpointState::Unknown => 2,
        EndpointState::MostlyHealthy => 3,
        EndpointState::Healthy => 4,
    }
}

fn targets(endpoints: &[EndpointView]) -> Vec<TargetStatus> {
    let mut rows: Vec<_> = endpoints.iter().collect();
    rows.sort_by_key(|row| severity(row.state));
    rows.into_iter().take(MAX_TARGETS).map(target).collect()
}

fn target(row: &EndpointView) -> TargetStatus {
    let counters = row.live.counters();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TargetStatus {
        name: row.target.to_string(),
        endpoint: some(&row.label),
        state: row.state.as_str().to_owned(),
        since: Some(Time(row.since)),
        reason: row.reason.map(|reason| reason.as_str().to_owned()).or_else(|| row.stale.then(|| "Stale".to_owned())),
        message: some(&row.message),
        latency: row.live.latency().map(millis),
        certificate_expires: row.certificate_expires.and_then(|at| Timestamp::from_second(at).ok()).map(Time),
        counters: Some(Counters {
            success: counters.success.into(),
            connect: counters.connect.into(),
            http: counters.http.into(),
            timeout: counters.timeout.into(),
        }),
    }
}

/// Rounded up: nothing takes no time.
fn millis(latency: Duration) -> api::Duration {
    api::Duration::from_millis(u64::try_from(latency.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

fn outage(outage: &crate::engine::Outage) -> Outage {
    Outage {
        start: Time(outage.start),
        end: outage.end.map(Time),
        reason: outage.reason.clone(),
        targets: outage.targets.clone(),
    }
}

/// What of a status is worth a write: everything but who wrote it when, and what moves at every probe.
#[must_use]
pub fn fingerprint(status: &HealthCheckStatus) -> u64 {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let drop = |value: &mut Value, names: &[&str]| {
        if let Some(object) = value.as_object_mut() {
            for name in names {
                object.remove(*name);
            }
        }
    };
    drop(&mut value, &["observedAt", "prober", "epoch"]);
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        drop(condition, &["lastTransitionTime"]);
    }
    for target in value["targets"].as_array_mut().into_iter().flatten() {
        drop(target, &["latency", "counters", "certificateExpires"]);
    }
    let mut hasher = DefaultHasher::new();
    value.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What consumers act on: a change of it is written before anything else.
#[must_use]
pub fn headline(status: &HealthCheckStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.observed_generation.hash(&mut hasher);
    status.health.hash(&mut hasher);
    status.summary.hash(&mut hasher);
    for condition in &status.conditions {
        (&condition.type_, &condition.status, &condition.reason).hash(&mut hasher);
    }
    hasher.finish()
}

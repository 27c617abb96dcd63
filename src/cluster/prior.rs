//! A status read back: what an earlier life knew, for the engine and for a standby's board.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{HealthCheck, HealthCheckStatus, conditions, status::TargetStatus},
    check::{Check, Counts, EndpointState, Health, HealthReason, Kind, ObjectKey, Place, Reason, shared},
    engine::{
        CheckLive, CheckView, Counters, EndpointLive, EndpointView, Live, OVERRIDDEN, Outage, Prior, PriorAddress,
        PriorEndpoint, Remarks,
    },
};

/// What `status` says, unless it says nothing. `refresh` is how often statuses are confirmed.
#[must_use]
pub fn prior(status: &HealthCheckStatus, refresh: Duration) -> Option<Prior> {
    let observed_at = at(status.observed_at.as_ref())?;
    let health = Health::parse(status.health.as_deref()?)?;
    let condition = conditions::find(&status.conditions, conditions::HEALTHY);
    let counts = status.counts.unwrap_or_default();
    Some(Prior {
        observed_at,
        refresh,
        observed_generation: status.observed_generation,
        health,
        reason: condition.and_then(|condition| HealthReason::parse(&condition.reason)).unwrap_or(HealthReason::Pending),
        message: condition.map(|condition| condition.message.clone()).unwrap_or_default(),
        since: at(status.since.as_ref()).unwrap_or(observed_at),
        unknown: counts.unknown,
        endpoints: status
            .targets
            .iter()
            .map(|row| PriorEndpoint {
                target: row.name.clone(),
                label: row.endpoint.clone().unwrap_or_default(),
                state: EndpointState::parse(&row.state).unwrap_or_default(),
                since: at(row.since.as_ref()).unwrap_or(observed_at),
                reason: row.reason.as_deref().and_then(Reason::parse),
                message: row.message.clone().unwrap_or_default(),
                overridden: row.reason.as_deref() == Some(OVERRIDDEN),
                addresses: row
                    .addresses
                    .iter()
                    .filter_map(|address| {
                        Some(PriorAddress {
                            ip: address.address.parse().ok()?,
                            state: EndpointState::parse(&address.state)?,
                            since: at(address.since.as_ref()).unwrap_or(observed_at),
                        })
                    })
                    .collect(),
            })
            .collect(),
        outages: outages(status),
    })
}

fn at(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}

fn outages(status: &HealthCheckStatus) -> Vec<Outage> {
    status
        .outages
        .iter()
        .map(|outage| Outage {
            start: outage.start.0,
            end: at(outage.end.as_ref()),
            reason: outage.reason.clone(),
            targets: outage.targets.clone(),
        })
        .collect()
}

/// How `object` looks to one who only reads its status. Older than `believed_for`, nothing in it is believed.
#[must_use]
pub fn mirrored(object: &HealthCheck, check: Option<&Check>, believed_for: Duration, now: Timestamp) -> CheckView {
    let status = object.status.clone().unwrap_or_default();
    let prior = prior(&status, believed_for);
    let fresh =
        prior.as_ref().is_some_and(|prior| now.duration_since(prior.observed_at).unsigned_abs() <= believed_for);
    let meta = &object.metadata;
    let created = meta.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let suspended = object.spec.suspend;
    let (health, reason) = match &prior {
        _ if suspended => (Health::Unknown, HealthReason::Suspended),
        Some(prior) if fresh => (prior.health, prior.reason),
        Some(_) => (Health::Unknown, HealthReason::Stale),
        None => (Health::Unknown, HealthReason::Pending),
    };
    let counts = status.counts.unwrap_or_default();
    let counts = if fresh {
        Counts { total: counts.total, healthy: counts.healthy, unhealthy: counts.unhealthy, unknown: counts.unknown }
    } else {
        Counts { total: counts.total, unknown: counts.total, ..Counts::default() }
    };
    let rows = prior.iter().flat_map(|prior| &prior.endpoints);
    let kind = |target: &str| {
        let target = check.and_then(|check| check.targets.iter().find(|known| *known.name == *target));
        target.map_or(Kind::Untold, |target| match target.place {
            Place::Check { .. } => Kind::HealthCheck,
            _ => target.probe.tag(),
        })
    };
    let optional = |target: &str| {
        check.is_some_and(|check| check.targets.iter().any(|known| known.optional && *known.name == *target))
    };
    let written: BTreeMap<_, _> = status
        .targets
        .iter()
        .map(|row| ((row.name.as_str(), row.endpoint.as_deref().unwrap_or_default()), row))
        .collect();
    let written = |row: &PriorEndpoint| written.get(&(row.target.as_str(), row.label.as_str())).copied();
    let targets = object.spec.targets.iter().map(|target| target.name.as_str().into()).collect();
    let unlisted = if fresh { unlisted(&status, reason) } else { Health::Unknown };
    CheckView {
        key: ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()),
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        generation: meta.generation.unwrap_or(0),
        labels: check
            .map_or_else(|| shared::labels(meta.labels.clone().unwrap_or_default()), |check| check.labels.clone()),
        suspended,
        health,
        reason,
        message: match &prior {
            Some(prior) if fresh => prior.message.clone(),
            Some(_) => "the last status is too old".to_owned(),
            None => String::new(),
        },
        since: prior.as_ref().map_or(created, |prior| prior.since),
        counts,
        targets,
        unlisted,
        endpoints: rows
            .map(|row| EndpointView {
                target: row.target.as_str().into(),
                label: row.label.as_str().into(),
                identity: format!("{}/{}", row.target, row.label).into(),
                kind: kind(&row.target),
                optional: optional(&row.target),
                state: if fresh { row.state } else { EndpointState::Unknown },
                stale: !fresh,
                measured: !fresh || row.state != EndpointState::Unknown,
                since: row.since.into(),
                named: false,
                remarks: Remarks {
                    reason: row.reason,
                    message: row.message.as_str().into(),
                    certificate_expires: written(row)
                        .and_then(|row| row.certificate_expires.as_ref())
                        .map(|time| time.0.as_second()),
                    ..Remarks::default()
                }
                .kept(),
                live: written(row).map_or_else(Live::default, live),
            })
            .collect(),
        outages: outages(&status).into(),
        probes: status.probes.as_deref().unwrap_or_default().into(),
        interval: object.spec.interval.to_std(),
        idle_interval: check.map_or_else(|| object.spec.interval.to_std(), |check| check.rhythm.idle()),
        transitions: [0; 4],
        live: beat(prior.as_ref()),
    }
}

/// What holds of a target without a row. A status has room for so many rows, and its writer puts those that are not
/// healthy first: where all of them are there, what was left out is healthy.
fn unlisted(status: &HealthCheckStatus, reason: HealthReason) -> Health {
    let counts = status.counts.unwrap_or_default();
    let healthy = |row: &&TargetStatus| EndpointState::parse(&row.state).is_some_and(EndpointState::is_healthy);
    let rows = status.targets.len();
    let bad = rows - status.targets.iter().filter(healthy).count();
    let left_out = counts.total as usize > rows;
    let bad_are_there = (counts.unhealthy + counts.unknown) as usize <= bad;
    match left_out && bad_are_there && reason != HealthReason::NoTargets {
        true => Health::Healthy,
        false => Health::Unknown,
    }
}

/// Counters and latency as of the last write: a standby has no newer ones.
fn live(row: &TargetStatus) -> Live {
    let counters = row.counters.unwrap_or_default();
    let live = EndpointLive::default();
    // Ours saturate there too.
    let count = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let counters = Counters {
        success: count(counters.success),
        connect: count(counters.connect),
        http: count(counters.http),
        timeout: count(counters.timeout),
    };
    live.set(counters, row.latency.map(|latency| latency.to_std()));
    Live::new(live)
}

/// The owner's last confirmation stands for the last beat: probes are not told one by one.
fn beat(prior: Option<&Prior>) -> Arc<CheckLive> {
    let live = CheckLive::default();
    if let Some(prior) = prior {
        live.beat(prior.observed_at);
    }
    Arc::new(live)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mirror_shows_what_the_status_says_of_the_probes() {
        let object: HealthCheck = serde_json::from_value(json!({
            "apiVersion": crate::api::API_VERSION, "kind": crate::api::KIND,
            "metadata": {"name": "db", "namespace": "shop", "uid": "1", "generation": 1},
            "spec": {"targets": [{"name": "a", "host": "10.0.0.1", "port": 1}]},
            "status": {
                "health": "Unhealthy", "summary": "0/1", "observedAt": "2026-01-01T00:00:00Z",
                "conditions": [],
                "targets": [{
                    "name": "a", "endpoint": "10.0.0.1:1", "state": "Unhealthy", "latency": "7ms",
                    "certificateExpires": "2026-02-01T00:00:00Z",
                    "counters": {"success": 0, "connect": 3, "http": 70_000, "timeout": 1},
                }],
            },
        }))
        .expect("an object");
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().expect("a time");
        let view = mirrored(&object, None, Duration::from_secs(60), now);
        let [row] = &view.endpoints[..] else { panic!("{view:?}") };
        assert_eq!(row.live.latency(), Some(Duration::from_millis(7)));
        assert_eq!(row.live.counters(), Counters { success: 0, connect: 3, http: u16::MAX, timeout: 1 });
        assert_eq!(row.certificate_expires, Some(1_769_904_000));
        assert_eq!(view.live.last_beat(), Some(now - Duration::from_secs(10)));
    }

    /// `rows` of `total` are in the status, `bad` of all are not healthy.
    fn left_out(total: u32, rows: usize, bad: u32, reason: HealthReason) -> Health {
        let state = |row: usize| if row < bad as usize { "Unhealthy" } else { "Healthy" };
        let status: HealthCheckStatus = serde_json::from_value(json!({
            "conditions": [],
            "counts": {"total": total, "healthy": total - bad, "unhealthy": bad, "unknown": 0},
            "targets": (0..rows).map(|row| json!({"name": format!("t{row}"), "state": state(row)})).collect::<Vec<_>>(),
        }))
        .expect("a status");
        unlisted(&status, reason)
    }

    #[test]
    fn what_a_status_has_no_room_for_is_healthy_where_all_that_is_not_has_its_row() {
        let reason = HealthReason::MinimumMet;
        assert_eq!(left_out(140, 100, 3, reason), Health::Healthy);
        assert_eq!(left_out(140, 100, 100, reason), Health::Healthy);
        assert_eq!(left_out(140, 100, 101, reason), Health::Unknown);
        assert_eq!(left_out(100, 100, 0, reason), Health::Unknown);
        assert_eq!(left_out(140, 100, 3, HealthReason::NoTargets), Health::Unknown);
    }
}

//! From the board to a HealthCheck's status. Pure.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::index::Problem;
use crate::{
    api::{
        self, HealthCheckStatus,
        conditions::{self, ConditionStatus, HEALTHY, READY, STALLED, Statement},
        status::{AddressStatus, Counters, Counts, GateStatus, MAX_OUTAGES, MAX_TARGETS, Outage, TargetStatus},
    },
    check::{Health, HealthReason, Text},
    engine::{CheckView, EndpointView},
};

/// The longest message of a condition we write; the API allows 32768.
const CONDITION_MESSAGE: usize = 1024;

/// What was made of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    pub uid: Text,
    pub generation: i64,
    /// Everything that is wrong with it; empty: accepted.
    pub problems: Vec<Problem>,
    /// The names of its gates; `None`: nobody can read them.
    pub gates: Option<Vec<Text>>,
    /// What of the override annotation cannot be read, each with its mend.
    pub override_problems: Vec<String>,
}

impl Acceptance {
    /// All of them in one line, which leaves room in a condition for what the gates do; `None` where there are none.
    #[must_use]
    pub fn override_problem(&self) -> Option<String> {
        (!self.override_problems.is_empty()).then(|| cut(self.override_problems.join("; "), CONDITION_MESSAGE / 2))
    }

    fn has_gates(&self) -> bool {
        self.gates.as_ref().is_some_and(|gates| !gates.is_empty())
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    pub prober: &'a str,
    pub epoch: i64,
}

/// The status that `view` and `acceptance` call for, but for the gates (`gates::report::tell`). `previous` are the conditions that were written last: they know
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
        gates: vec![],
        gate: None,
    }
}

/// The first status of an object about which nothing is decided yet. It says of nothing when it was observed, so nobody
/// takes it for a verdict.
#[must_use]
pub fn pending(generation: i64, author: Author<'_>, now: Timestamp) -> HealthCheckStatus {
    let mut list = vec![];
    for kind in [READY, HEALTHY] {
        let reason = HealthReason::Pending.as_str();
        let message = "what it refers to is being looked up";
        let observed_generation = Some(generation);
        let statement = Statement { kind, status: ConditionStatus::Unknown, reason, message, observed_generation };
        conditions::set(&mut list, &statement, &Time(now));
    }
    HealthCheckStatus {
        observed_generation: Some(generation),
        health: Some(Health::Unknown.as_str().to_owned()),
        conditions: list,
        prober: Some(author.prober.to_owned()),
        epoch: Some(author.epoch),
        ..HealthCheckStatus::default()
    }
}

fn conditions_of(view: &CheckView, acceptance: &Acceptance, previous: &[Condition], now: &Time) -> Vec<Condition> {
    let mut list = previous.to_vec();
    let observed_generation = Some(acceptance.generation);
    let problems = join(&acceptance.problems);
    // With gates it is their condition that tells.
    let ignored = acceptance.override_problem().filter(|_| !acceptance.has_gates()).unwrap_or_default();
    let told = if problems.is_empty() { ignored } else { problems.clone() };
    let worst = acceptance.problems.iter().map(|problem| problem.kind).min();
    let (status, reason) = match worst {
        None => (ConditionStatus::True, "Accepted"),
        Some(kind) => (ConditionStatus::False, kind.as_str()),
    };
    conditions::set(&mut list, &Statement { kind: READY, status, reason, message: &told, observed_generation }, now);

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
    cut(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "), CONDITION_MESSAGE)
}

fn cut(all: String, limit: usize) -> String {
    if all.chars().count() <= limit {
        return all;
    }
    let mut cut: String = all.chars().take(limit - 1).collect();
    cut.push('…');
    cut
}

fn targets(endpoints: &[EndpointView]) -> Vec<TargetStatus> {
    let mut rows: Vec<_> = endpoints.iter().collect();
    rows.sort_by_key(|row| row.state.severity());
    rows.into_iter().take(MAX_TARGETS).map(target).collect()
}

fn target(row: &EndpointView) -> TargetStatus {
    let counters = row.live.counters();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TargetStatus {
        name: row.target.to_string(),
        endpoint: some(&row.label),
        state: row.state.as_str().to_owned(),
        since: Some(Time(row.since.time())),
        reason: row.reason_word().map(ToOwned::to_owned),
        message: some(&row.message),
        latency: row.live.latency().map(millis),
        certificate_expires: row.certificate_expires.and_then(|at| Timestamp::from_second(at).ok()).map(Time),
        counters: Some(Counters {
            success: counters.success.into(),
            connect: counters.connect.into(),
            http: counters.http.into(),
            timeout: counters.timeout.into(),
        }),
        addresses: row.addresses.iter().flat_map(|addresses| addresses.iter()).filter_map(address).collect(),
    }
}

fn address(row: &EndpointView) -> Option<AddressStatus> {
    let address = row.address()?;
    Some(AddressStatus {
        address: address.to_string(),
        state: row.state.as_str().to_owned(),
        since: Some(Time(row.since.time())),
    })
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
    // By name, so that a field which is added must be thought of.
    let HealthCheckStatus {
        observed_generation,
        health,
        since,
        summary,
        counts,
        conditions,
        targets,
        outages,
        observed_at: _,
        prober: _,
        epoch: _,
        probes,
        gates,
        gate,
    } = status;
    let mut hasher = DefaultHasher::new();
    (observed_generation, health, second(since.as_ref()), summary, probes, gate).hash(&mut hasher);
    counts.map(|Counts { total, healthy, unhealthy, unknown }| (total, healthy, unhealthy, unknown)).hash(&mut hasher);
    // Their numbers keep a list from running into the next.
    (conditions.len(), targets.len(), outages.len(), gates.len()).hash(&mut hasher);
    for Condition { type_, status, reason, message, observed_generation, last_transition_time: _ } in conditions {
        (type_, status, reason, message, observed_generation).hash(&mut hasher);
    }
    for row in targets {
        let TargetStatus { name, endpoint, state, since, reason, message, addresses, .. } = row;
        (name, endpoint, state, second(since.as_ref()), reason, message, addresses.len()).hash(&mut hasher);
        for AddressStatus { address, state, since } in addresses {
            (address, state, second(since.as_ref())).hash(&mut hasher);
        }
    }
    for Outage { start, end, reason, targets } in outages {
        (second(Some(start)), second(end.as_ref()), reason, targets).hash(&mut hasher);
    }
    for GateStatus { name, effective, desired_ready, published_ready, since, message } in gates {
        (name, effective, desired_ready, published_ready, second(since.as_ref()), message).hash(&mut hasher);
    }
    hasher.finish()
}

/// A time as exactly as the API keeps it.
fn second(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

/// What consumers act on: a change of it is written before anything else.
#[must_use]
pub fn headline(status: &HealthCheckStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.observed_generation.hash(&mut hasher);
    status.health.hash(&mut hasher);
    status.summary.hash(&mut hasher);
    for gate in &status.gates {
        (&gate.name, &gate.effective).hash(&mut hasher);
    }
    for condition in &status.conditions {
        (&condition.type_, &condition.status, &condition.reason).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        check::{Counts as CheckCounts, EndpointState, ObjectKey, Reason},
        cluster::index::ProblemKind,
        engine::{Live, Remarks},
    };

    fn because(reason: Option<Reason>) -> Option<Arc<Remarks>> {
        Remarks { reason, ..Remarks::default() }.kept()
    }

    fn row(index: usize, state: EndpointState) -> EndpointView {
        EndpointView {
            target: format!("t{index}").into(),
            label: format!("10.0.0.1:{index}").into(),
            identity: index.to_string().into(),
            kind: crate::check::Kind::Tcp,
            optional: false,
            state,
            stale: false,
            measured: true,
            since: Timestamp::UNIX_EPOCH.into(),
            remarks: because(state.is_unhealthy().then_some(Reason::ConnectionRefused)),
            named: false,
            live: Live::default(),
        }
    }

    fn view(health: Health, reason: HealthReason, rows: Vec<EndpointView>) -> CheckView {
        CheckView {
            key: ObjectKey::new("shop", "db"),
            uid: "u".into(),
            generation: 3,
            labels: Arc::default(),
            suspended: false,
            health,
            reason,
            message: "why".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            counts: CheckCounts { total: 2, healthy: 1, unhealthy: 1, unknown: 0 },
            targets: Arc::default(),
            unlisted: Health::Unknown,
            endpoints: rows.into(),
            outages: Arc::from([]),
            probes: "tcp".into(),
            interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(1),
            transitions: [0; 4],
            live: Arc::default(),
        }
    }

    fn accepted(problems: Vec<Problem>) -> Acceptance {
        Acceptance { uid: "u".into(), generation: 3, problems, gates: Some(vec![]), override_problems: vec![] }
    }

    fn problem(kind: ProblemKind) -> Problem {
        Problem { kind, path: "spec.targets[0].port".to_owned(), message: "is wrong".to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    const AUTHOR: Author<'_> = Author { prober: "p", epoch: 1 };

    fn says(status: &HealthCheckStatus, kind: &str) -> String {
        let condition = conditions::find(&status.conditions, kind);
        condition.map(|each| format!("{}/{}", each.status, each.reason)).unwrap_or_default()
    }

    #[test]
    fn failing_rows_come_first_and_a_hundred_at_most() {
        let mut rows: Vec<_> = (0..150).map(|index| row(index, EndpointState::Healthy)).collect();
        rows[140] = row(140, EndpointState::Unhealthy);
        rows[120] = row(120, EndpointState::Unknown);
        let status =
            compose(&view(Health::Degraded, HealthReason::MinimumMet, rows), &accepted(vec![]), &[], AUTHOR, at(9));
        let names: Vec<_> = status.targets.iter().map(|row| row.name.as_str()).collect();
        assert_eq!((names.len(), &names[..3]), (100, &["t140", "t120", "t0"][..]));
    }

    #[test]
    fn a_row_that_is_too_old_says_so_unless_it_has_a_reason_of_its_own() {
        let stale = EndpointView { stale: true, ..row(0, EndpointState::Unknown) };
        let blind = EndpointView { remarks: because(Some(Reason::NoDescriptors)), ..stale.clone() };
        let rows = vec![stale, blind, row(2, EndpointState::Unknown)];
        let status = compose(&view(Health::Unknown, HealthReason::Stale, rows), &accepted(vec![]), &[], AUTHOR, at(9));
        let reasons: Vec<_> = status.targets.iter().map(|row| row.reason.as_deref()).collect();
        assert_eq!(reasons, [Some("Stale"), Some("NoDescriptors"), None]);
    }

    #[test]
    fn a_sick_target_leaves_ready_alone() {
        let sick = view(Health::Unhealthy, HealthReason::TargetsUnhealthy, vec![row(0, EndpointState::Unhealthy)]);
        let status = compose(&sick, &accepted(vec![]), &[], AUTHOR, at(9));
        assert_eq!(says(&status, READY), "True/Accepted");
        assert_eq!(says(&status, HEALTHY), "False/TargetsUnhealthy");
        assert_eq!(says(&status, STALLED), "");
    }

    #[test]
    fn what_a_person_must_mend_is_stalled_and_what_may_mend_itself_is_not() {
        let view = view(Health::Unknown, HealthReason::NoTargets, vec![]);
        let of = |kind| compose(&view, &accepted(vec![problem(kind)]), &[], AUTHOR, at(9));
        let stalled = of(ProblemKind::Cycle);
        assert_eq!(says(&stalled, STALLED), "True/Cycle");
        assert_eq!(says(&stalled, HEALTHY), "Unknown/ProbeError");
        let waiting = of(ProblemKind::InvalidReference);
        assert_eq!(
            (says(&waiting, READY), says(&waiting, STALLED)),
            ("False/InvalidReference".to_owned(), String::new())
        );
        // Mended, it is taken away again.
        let mended = compose(&view, &accepted(vec![]), &stalled.conditions, AUTHOR, at(10));
        assert_eq!(says(&mended, STALLED), "");
    }

    #[test]
    fn who_confirmed_it_when_is_worth_no_write_and_a_reason_is() {
        let healthy = view(Health::Healthy, HealthReason::AllTargetsHealthy, vec![row(0, EndpointState::Healthy)]);
        let one = compose(&healthy, &accepted(vec![]), &[], AUTHOR, at(9));
        healthy.endpoints[0]
            .live
            .set(crate::engine::Counters { success: 9, ..Default::default() }, Some(Duration::from_secs(1)));
        let other = compose(&healthy, &accepted(vec![]), &[], Author { prober: "q", epoch: 2 }, at(99));
        assert_ne!(one, other);
        assert_eq!(fingerprint(&one), fingerprint(&other));
        let degraded = view(Health::Degraded, HealthReason::MinimumMet, vec![row(0, EndpointState::Unhealthy)]);
        let degraded = compose(&degraded, &accepted(vec![]), &one.conditions, AUTHOR, at(100));
        assert_ne!(fingerprint(&one), fingerprint(&degraded));
        assert_ne!(headline(&one), headline(&degraded));
        // From Healthy to Degraded the condition stays True, so its time does not move.
        let time = |status: &HealthCheckStatus| {
            conditions::find(&status.conditions, HEALTHY).map(|each| each.last_transition_time.clone())
        };
        assert_eq!(time(&one), time(&degraded));
    }

    #[test]
    fn an_undecided_object_says_so_and_leaves_no_verdict_behind() {
        let status = pending(3, AUTHOR, Timestamp::UNIX_EPOCH);
        for kind in [READY, HEALTHY] {
            let condition = conditions::find(&status.conditions, kind).expect("set");
            assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "Pending"));
            assert_eq!(condition.observed_generation, Some(3));
        }
        assert_eq!(status.health.as_deref(), Some("Unknown"));
        assert!(super::super::prior::prior(&status, Duration::from_secs(60)).is_none());
    }
}

//! What the gates of a check do, as it is told: in the status, in metrics and in events.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        HealthCheckStatus,
        conditions::{self, ConditionStatus, GATES_APPLIED, Statement},
        status::GateStatus,
    },
    check::{GateReason, Text, clean_message},
    cluster::status::Acceptance,
    gate::Effective,
    telemetry::GateSeries,
};

/// The longest message of a gate, in characters (the CRD's own bound).
const GATE_MESSAGE: usize = 256;
/// The longest message of the condition.
const CONDITION_MESSAGE: usize = 1024;

/// What a gate says that is let go because the operator goes.
pub const RELEASED_MESSAGE: &str =
    "the operator is being uninstalled, and holds nothing back; install or upgrade it and the gate acts again";

/// What one gate does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateReport {
    pub name: Text,
    pub effective: GateReason,
    /// How many endpoints the verdicts would publish as ready.
    pub desired: u32,
    /// How many are; in a dry run, would be.
    pub published: u32,
    /// How many are not.
    pub withheld: u32,
    /// For people.
    pub message: String,
}

/// What all gates of one check do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatesReport {
    /// Of the object it speaks of.
    pub uid: Text,
    pub generation: i64,
    /// In declared order.
    pub gates: Vec<GateReport>,
}

impl From<Effective> for GateReason {
    fn from(effective: Effective) -> Self {
        match effective {
            Effective::Enforced => Self::Enforced,
            Effective::FailOpen => Self::FailOpen,
            Effective::FailStatic => Self::FailStatic,
            Effective::FailClosed => Self::FailClosed,
            Effective::Capped => Self::Capped,
            Effective::Frozen => Self::Frozen,
            Effective::Held => Self::Held,
        }
    }
}

impl GatesReport {
    /// For the metrics.
    #[must_use]
    pub fn series(&self) -> Vec<GateSeries> {
        let of = |gate: &GateReport| GateSeries {
            gate: gate.name.clone(),
            ready: gate.published,
            withheld: gate.withheld,
            rule: gate.effective.as_str(),
        };
        self.gates.iter().map(of).collect()
    }
}

impl GateReport {
    /// Nothing is decided, and nothing written.
    #[must_use]
    pub fn idle(name: &Text, effective: GateReason, message: impl Into<String>) -> Self {
        Self { name: name.clone(), effective, desired: 0, published: 0, withheld: 0, message: message.into() }
    }
}

/// The more it differs from what the verdicts ask for, the sooner it is told: of several gates the first is the reason
/// of the condition, and the one in the column.
const fn severity(reason: GateReason) -> u8 {
    match reason {
        GateReason::Released => 0,
        GateReason::Conflict => 1,
        GateReason::Forbidden => 2,
        GateReason::NotFound => 3,
        GateReason::WriteFailed => 4,
        GateReason::InvalidOverride => 5,
        GateReason::Pending => 6,
        GateReason::FailClosed => 7,
        GateReason::FailOpen => 8,
        GateReason::FailStatic => 9,
        GateReason::Capped => 10,
        GateReason::Frozen => 11,
        GateReason::Held => 12,
        GateReason::DryRun => 13,
        GateReason::Enforced => 14,
    }
}

/// Puts what the gates do into `status`. `declared` are the gates of the spec; `None`: nobody can read them, so what
/// was said stays. Without a report for this version of the object, what was said of the same gates stays too: a restart
/// changes nothing. `previous` are the gates as they were last written.
pub fn tell(
    status: &mut HealthCheckStatus,
    acceptance: &Acceptance,
    report: Option<&GatesReport>,
    previous: &[GateStatus],
    now: Timestamp,
) {
    let problem = acceptance.override_problem();
    let Some(declared) = &acceptance.gates else {
        status.gates = previous.to_vec();
        status.gate = column(&status.gates, problem.is_some());
        return;
    };
    if declared.is_empty() {
        conditions::remove(&mut status.conditions, GATES_APPLIED);
        return;
    }
    let known = |name: &str| previous.iter().find(|gate| gate.name == name);
    let report = report.filter(|report| Some(report.generation) == status.observed_generation);
    status.gates = match report {
        Some(report) => report.gates.iter().map(|gate| row(gate, known(&gate.name), now)).collect(),
        None => declared
            .iter()
            .map(|name| {
                let pending = || row(&GateReport::idle(name, GateReason::Pending, ""), None, now);
                known(name).cloned().unwrap_or_else(pending)
            })
            .collect(),
    };
    status.gate = column(&status.gates, problem.is_some());
    if report.is_none() && status.gates == previous {
        return;
    }
    let worst = status.gates.iter().filter_map(|gate| GateReason::parse(&gate.effective)).min_by_key(|r| severity(*r));
    let mut reason = worst.unwrap_or(GateReason::Pending);
    if problem.is_some() && severity(GateReason::InvalidOverride) < severity(reason) {
        reason = GateReason::InvalidOverride;
    }
    let gates = status.gates.iter().map(|gate| match gate.message.as_deref() {
        Some(message) => format!("{}: {message}", gate.name),
        None => format!("{}: {}", gate.name, gate.effective),
    });
    let message = cut(problem.into_iter().chain(gates).collect::<Vec<_>>().join("; "), CONDITION_MESSAGE);
    let statement = Statement {
        kind: GATES_APPLIED,
        status: match reason.is_applied() {
            Some(true) => ConditionStatus::True,
            Some(false) => ConditionStatus::False,
            None => ConditionStatus::Unknown,
        },
        reason: reason.as_str(),
        message: &message,
        observed_generation: status.observed_generation,
    };
    conditions::set(&mut status.conditions, &statement, &Time(now));
}

fn row(gate: &GateReport, known: Option<&GateStatus>, now: Timestamp) -> GateStatus {
    let since = known.filter(|known| known.effective == gate.effective.as_str()).and_then(|known| known.since.clone());
    let message = cut(clean_message(&gate.message), GATE_MESSAGE);
    GateStatus {
        name: gate.name.to_string(),
        effective: gate.effective.as_str().to_owned(),
        desired_ready: gate.desired,
        published_ready: gate.published,
        since: Some(since.unwrap_or(Time(now))),
        message: Some(message).filter(|message| !message.is_empty()),
    }
}

/// The gate that is limited most, and whether an override is ignored: that is nowhere else to be seen in a list.
fn column(gates: &[GateStatus], ignored: bool) -> Option<String> {
    let rank = |gate: &&GateStatus| GateReason::parse(&gate.effective).map_or(u8::MAX, severity);
    let ignored = if ignored { ", InvalidOverride" } else { "" };
    gates.iter().min_by_key(rank).map(|gate| format!("{}: {}{ignored}", gate.name, gate.effective))
}

fn cut(text: String, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text;
    }
    text.chars().take(limit - 1).chain(['…']).collect()
}

/// The gates whose effective rule changed from `before` to `after`, as they are now; of those that only show what they
/// would do, those that would do something else. A first evaluation is no change.
pub fn changes<'a>(before: &'a [GateStatus], after: &'a [GateStatus]) -> impl Iterator<Item = &'a GateStatus> {
    let pending = GateReason::Pending.as_str();
    after.iter().filter(move |gate| {
        let known = before.iter().find(|known| known.name == gate.name);
        let was = known.map_or(pending, |known| known.effective.as_str());
        if was == gate.effective {
            return known.is_some_and(|known| would(known) != would(gate));
        }
        let expected =
            [GateReason::Enforced, GateReason::DryRun].into_iter().any(|good| gate.effective == good.as_str());
        gate.effective != pending && !(was == pending && expected)
    })
}

/// What a dry run would do: the rule, as its message begins with it, and how many would be ready. `None` for others.
fn would(gate: &GateStatus) -> Option<(&str, u32)> {
    let rule = gate.message.as_deref().and_then(|message| message.split_once(':')).map_or("", |(rule, _)| rule);
    (gate.effective == GateReason::DryRun.as_str()).then_some((rule, gate.published_ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(gates: &[(&str, GateReason)]) -> GatesReport {
        GatesReport {
            uid: "u".into(),
            generation: 3,
            gates: gates
                .iter()
                .map(|(name, effective)| GateReport {
                    desired: 1,
                    published: 2,
                    ..GateReport::idle(&(*name).into(), *effective, "why")
                })
                .collect(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn told(
        before: &HealthCheckStatus,
        declared: &[&str],
        report: Option<&GatesReport>,
        now: i64,
    ) -> HealthCheckStatus {
        told_with(before, declared, report, &[], now)
    }

    fn told_with(
        before: &HealthCheckStatus,
        declared: &[&str],
        report: Option<&GatesReport>,
        problems: &[String],
        now: i64,
    ) -> HealthCheckStatus {
        let mut status = HealthCheckStatus {
            observed_generation: Some(3),
            conditions: before.conditions.clone(),
            ..HealthCheckStatus::default()
        };
        let gates = Some(declared.iter().map(|name| (*name).into()).collect());
        let acceptance = Acceptance { gates, override_problems: problems.to_vec(), ..Acceptance::default() };
        tell(&mut status, &acceptance, report, &before.gates, at(now));
        status
    }

    fn says(status: &HealthCheckStatus) -> String {
        let condition = conditions::find(&status.conditions, GATES_APPLIED);
        condition.map(|each| format!("{}/{}", each.status, each.reason)).unwrap_or_default()
    }

    #[test]
    fn the_gate_that_is_limited_most_is_the_reason_and_in_the_column() {
        let empty = HealthCheckStatus::default();
        let one =
            told(&empty, &["a", "b"], Some(&report(&[("a", GateReason::Enforced), ("b", GateReason::FailOpen)])), 1);
        assert_eq!((says(&one).as_str(), one.gate.as_deref()), ("True/FailOpen", Some("b: FailOpen")));
        let two =
            told(&one, &["a", "b"], Some(&report(&[("a", GateReason::Conflict), ("b", GateReason::FailOpen)])), 2);
        assert_eq!((says(&two).as_str(), two.gate.as_deref()), ("False/Conflict", Some("a: Conflict")));
        assert_eq!(two.gates[1].since, one.gates[1].since, "since then it has been that word");
        assert_eq!(two.gates[0].since, Some(Time(at(2))));
        let told_of: Vec<_> = changes(&one.gates, &two.gates).map(|gate| gate.name.as_str()).collect();
        assert_eq!(told_of, ["a"]);
        let held = report(&[("a", GateReason::Held)]);
        let three = told_with(&two, &["a"], Some(&held), &["override 'x': no '='".to_owned()], 3);
        assert_eq!(
            (says(&three).as_str(), three.gate.as_deref()),
            ("False/InvalidOverride", Some("a: Held, InvalidOverride"))
        );
        let none = told(&three, &[], None, 4);
        assert_eq!((says(&none).as_str(), none.gates.len(), none.gate), ("", 0, None));
    }

    #[test]
    fn without_a_report_what_was_said_stays_and_what_is_new_is_pending() {
        let empty = HealthCheckStatus::default();
        let before = told(&empty, &["a"], Some(&report(&[("a", GateReason::FailStatic)])), 1);
        let restarted = told(&before, &["a"], None, 9);
        assert_eq!((&restarted.gates, &restarted.gate), (&before.gates, &before.gate));
        assert_eq!(restarted.conditions, before.conditions);
        let edited = told(&before, &["a", "b"], None, 9);
        assert_eq!((says(&edited).as_str(), edited.gates[1].effective.as_str()), ("Unknown/Pending", "Pending"));
        assert_eq!(changes(&[], &edited.gates).count(), 1, "of a it was never told that it is FailStatic");
        let enforced = told(&empty, &["a"], Some(&report(&[("a", GateReason::Enforced)])), 1);
        assert_eq!(changes(&[], &enforced.gates).count(), 0, "nothing has changed");
    }

    #[test]
    fn a_dry_run_that_would_do_something_else_is_a_change() {
        let dry = |would: &str, published| {
            let mut report = report(&[("a", GateReason::DryRun)]);
            report.gates[0].message = format!("would be {would}: {published} of 3 published");
            report.gates[0].published = published;
            report
        };
        let of = |before: &HealthCheckStatus, report: &GatesReport| {
            let after = told(before, &["a"], Some(report), 2);
            (changes(&before.gates, &after.gates).count(), after)
        };
        let (first, all) = of(&HealthCheckStatus::default(), &dry("Enforced", 3));
        let (again, _) = of(&all, &dry("Enforced", 3));
        let (one_less, fewer) = of(&all, &dry("Enforced", 2));
        let (opened, _) = of(&fewer, &dry("FailOpen", 2));
        assert_eq!((first, again, one_less, opened), (0, 0, 1, 1));
    }

    #[test]
    fn messages_fit() {
        let names = ["a", "b", "c"];
        let mut long = report(&names.map(|name| (name, GateReason::Enforced)));
        for gate in &mut long.gates {
            gate.message = "é\n".repeat(400);
        }
        let status = told_with(&HealthCheckStatus::default(), &names, Some(&long), &["é".repeat(2000)], 1);
        let message = status.gates[0].message.as_deref().expect("told");
        assert!(message.chars().count() <= 256 && !message.contains('\n'));
        let condition = conditions::find(&status.conditions, GATES_APPLIED).expect("told");
        assert_eq!(condition.message.chars().count(), CONDITION_MESSAGE);
    }
}

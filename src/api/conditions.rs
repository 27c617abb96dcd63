//! Conditions: one word for each question a tool may ask, with the reason and when its answer last changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Accepted as written, and a prober owns it. A sick target never makes it False.
pub const READY: &str = "Ready";
/// The verdict.
pub const HEALTHY: &str = "Healthy";
/// What the gates do: only where there are any.
pub const GATES_APPLIED: &str = "GatesApplied";
/// Nothing will change before a human acts; absent otherwise.
pub const STALLED: &str = "Stalled";

/// The answer of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition is to say. When it last changed is worked out by [`set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    pub kind: &'a str,
    pub status: ConditionStatus,
    /// CamelCase, never empty.
    pub reason: &'a str,
    pub message: &'a str,
    /// Generation of the spec it is about.
    pub observed_generation: Option<i64>,
}

/// Says `statement` in `conditions`. `lastTransitionTime` becomes `now` only when the status changes (or the
/// condition is new): a new reason or message alone is no transition, as in the API conventions of Kubernetes.
pub fn set(conditions: &mut Vec<Condition>, statement: &Statement<'_>, now: &Time) {
    let known = conditions.iter_mut().find(|condition| condition.type_ == statement.kind);
    let last_transition_time = match &known {
        Some(condition) if condition.status == statement.status.as_str() => condition.last_transition_time.clone(),
        _ => now.clone(),
    };
    let condition = Condition {
        type_: statement.kind.to_owned(),
        status: statement.status.as_str().to_owned(),
        reason: statement.reason.to_owned(),
        message: statement.message.to_owned(),
        observed_generation: statement.observed_generation,
        last_transition_time,
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// Takes the condition of this kind away, if it is there.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.type_ != kind);
}

/// The condition of this kind.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(k8s_openapi::jiff::Timestamp::from_second(second).expect("in range"))
    }

    fn healthy(status: ConditionStatus, reason: &'static str) -> Statement<'static> {
        Statement { kind: HEALTHY, status, reason, message: "", observed_generation: Some(1) }
    }

    #[test]
    fn only_a_change_of_status_moves_the_time() {
        let mut conditions = Vec::new();
        set(&mut conditions, &healthy(ConditionStatus::Unknown, "Pending"), &at(1));
        set(&mut conditions, &healthy(ConditionStatus::True, "AllTargetsHealthy"), &at(2));
        set(&mut conditions, &healthy(ConditionStatus::True, "MinimumMet"), &at(3));
        let condition = find(&conditions, HEALTHY).expect("was set");
        assert_eq!((condition.reason.as_str(), &condition.last_transition_time), ("MinimumMet", &at(2)));
        set(&mut conditions, &healthy(ConditionStatus::False, "TargetsUnhealthy"), &at(4));
        assert_eq!(find(&conditions, HEALTHY).map(|condition| &condition.last_transition_time), Some(&at(4)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn a_removed_condition_is_gone_and_the_others_stay() {
        let mut conditions = Vec::new();
        set(&mut conditions, &healthy(ConditionStatus::True, "AllTargetsHealthy"), &at(1));
        set(&mut conditions, &Statement { kind: STALLED, ..healthy(ConditionStatus::True, "Cycle") }, &at(1));
        remove(&mut conditions, STALLED);
        assert!(find(&conditions, STALLED).is_none() && find(&conditions, HEALTHY).is_some());
    }
}

//! What checks are by probes that are made now: the same rule as the board's, over one answer of each endpoint instead of
//! all that were counted. Thresholds, overrides and what traffic says have no part in it. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{EndpointAnswer, answer::error};
use crate::{
    check::{Check, Counts, EndpointState, Health, HealthReason, Kind, ObjectKey, Place, Text},
    engine::{Demand, Member, aggregate},
};

/// How deep checks are followed into one another: deeper than may be declared.
const MAX_DEPTH: usize = 8;

/// What a check is by one probe of each of its endpoints.
#[derive(Clone, Debug)]
pub struct Fresh {
    pub health: Health,
    pub reason: HealthReason,
    pub counts: Counts,
    /// What is not well, for people; empty where all is.
    pub message: String,
    /// Every endpoint and member that was asked.
    pub endpoints: Vec<EndpointAnswer>,
    /// Of the slowest of them.
    pub latency_seconds: f64,
}

/// What was found of one check: its declaration and what its own endpoints answered, or why nobody could look.
pub(super) type Found = Result<(Arc<Check>, Vec<EndpointAnswer>), String>;

/// A target that follows another check.
pub(super) struct Followed {
    target: Text,
    optional: bool,
    pub check: ObjectKey,
}

/// A check that waits until what it follows has been judged.
struct Waiting {
    check: Arc<Check>,
    own: Vec<EndpointAnswer>,
    follows: Vec<Followed>,
}

impl Fresh {
    /// Nobody could look.
    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self {
            health: Health::Unknown,
            reason: HealthReason::ProbeError,
            counts: Counts::default(),
            message: why.into(),
            endpoints: vec![],
            latency_seconds: 0.0,
        }
    }

    fn of(check: &Check, endpoints: Vec<EndpointAnswer>) -> Self {
        let member = |answer: &EndpointAnswer| Member {
            state: state(answer.healthy),
            optional: answer.optional,
            undecided: false,
            stale: false,
            blind: answer.healthy.is_none(),
            isolated: false,
            newcomer: false,
        };
        let members: Vec<_> = endpoints.iter().map(member).collect();
        let mandatory = check.targets.iter().any(|target| !target.optional);
        let verdict = aggregate(&members, Demand { min: check.min_healthy, mandatory, decided: false });
        Self {
            health: verdict.health,
            reason: verdict.reason,
            counts: verdict.counts,
            message: error(&endpoints),
            latency_seconds: endpoints.iter().map(|answer| answer.latency_seconds).fold(0.0, f64::max),
            endpoints,
        }
    }
}

/// What one answer says of an endpoint.
#[must_use]
pub const fn state(healthy: Option<bool>) -> EndpointState {
    match healthy {
        Some(true) => EndpointState::Healthy,
        Some(false) => EndpointState::Unhealthy,
        None => EndpointState::Unknown,
    }
}

/// The targets of `check` that follow another one, or the one that is asked about if it does.
pub(super) fn followed<'a>(check: &'a Check, target: Option<&'a str>) -> impl Iterator<Item = Followed> + 'a {
    let wanted = move |name: &str| target.is_none_or(|target| name == target);
    check.targets.iter().filter(move |declared| wanted(&declared.name)).filter_map(|declared| match &declared.place {
        Place::Check { name } => Some(Followed {
            target: declared.name.clone(),
            optional: declared.optional,
            check: ObjectKey::of(check.key.namespace.clone(), name.clone()),
        }),
        _ => None,
    })
}

/// What each check is by all that was found. `target`: the only one of its targets that counts, where there is one.
///
/// Each is judged once, those before it that it follows: many targets may name one check, on every level anew.
pub(super) fn judge<'a>(
    found: HashMap<ObjectKey, Found>,
    target: impl Fn(&ObjectKey) -> Option<&'a str>,
) -> HashMap<ObjectKey, Fresh> {
    let mut judged = HashMap::with_capacity(found.len());
    let mut waiting = HashMap::with_capacity(found.len());
    for (key, found) in found {
        match found {
            Err(why) => {
                judged.insert(key, Fresh::unknown(why));
            }
            Ok((check, _)) if check.suspend => {
                judged.insert(key, Fresh { reason: HealthReason::Suspended, ..Fresh::unknown("suspended") });
            }
            Ok((check, own)) => {
                let follows = followed(&check, target(&key)).collect();
                waiting.insert(key, Waiting { check, own, follows });
            }
        }
    }
    let mut depth = 0;
    while depth < MAX_DEPTH && !waiting.is_empty() {
        depth += 1;
        let is_ready = |one: &Waiting| one.follows.iter().all(|followed| !waiting.contains_key(&followed.check));
        let ready: Vec<_> = waiting.iter().filter(|(_, one)| is_ready(one)).map(|(key, _)| key.clone()).collect();
        if ready.is_empty() {
            // A circle is refused where it is declared; an API server takes it all the same. There is one here, or something
            // would be ready; what follows it begins anew above it.
            depth = 0;
            for key in circling(&waiting) {
                waiting.remove(&key);
                judged.insert(key, Fresh::unknown("HealthChecks follow one another in a circle"));
            }
        }
        for key in ready {
            if let Some(one) = waiting.remove(&key) {
                let fresh = one.judge(&judged);
                judged.insert(key, fresh);
            }
        }
    }
    let too_deep = |key| (key, Fresh::unknown("HealthChecks follow one another too deep"));
    judged.extend(waiting.into_keys().map(too_deep));
    judged
}

impl Waiting {
    fn judge(self, judged: &HashMap<ObjectKey, Fresh>) -> Fresh {
        let mut answers = self.own;
        let nobody = Fresh::unknown("not looked at");
        answers.extend(self.follows.iter().map(|followed| {
            let fresh = judged.get(&followed.check).unwrap_or(&nobody);
            EndpointAnswer::of_member(&followed.target, followed.optional, &followed.check.name, fresh)
        }));
        Fresh::of(&self.check, answers)
    }
}

/// Those of `waiting` that are in a circle, where each follows another of them: what nobody follows is in none. What leads
/// to a circle by more than [`MAX_DEPTH`] others is taken for one.
fn circling(waiting: &HashMap<ObjectKey, Waiting>) -> HashSet<ObjectKey> {
    let mut left: HashSet<&ObjectKey> = waiting.keys().collect();
    for _ in 0..MAX_DEPTH {
        let follows = left.iter().filter_map(|key| waiting.get(*key)).flat_map(|one| &one.follows);
        let followed: HashSet<_> = follows.map(|followed| &followed.check).collect();
        let before = left.len();
        left.retain(|key| followed.contains(key));
        if left.len() == before {
            break;
        }
    }
    left.into_iter().cloned().collect()
}

impl EndpointAnswer {
    /// Of a target that follows another check.
    fn of_member(target: &str, optional: bool, name: &str, fresh: &Fresh) -> Self {
        let healthy = match fresh.health {
            Health::Healthy | Health::Degraded => Some(true),
            Health::Unhealthy => Some(false),
            Health::Unknown => None,
        };
        let error = match (fresh.health, fresh.message.as_str()) {
            (Health::Healthy, _) => String::new(),
            (health, "") => format!("HealthCheck {name} is {health} ({})", fresh.reason),
            (health, why) => format!("HealthCheck {name} is {health}: {why}"),
        };
        Self {
            target: target.to_owned(),
            endpoint: String::new(),
            optional,
            healthy,
            error: crate::check::clean_message(&error),
            reason: None,
            latency_seconds: fresh.latency_seconds,
            kind: Kind::HealthCheck,
            certificate_expires: None,
            neutral: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::{Mode, compile};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn check(name: &str, spec: Value) -> Arc<Check> {
        let object = json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        });
        let object: crate::api::HealthCheck = serde_json::from_value(object).expect("a HealthCheck");
        Arc::new(compile(&object, Mode::Standalone).expect("a check"))
    }

    /// A check whose own endpoint answers, if it has one, and that follows `others`.
    fn found(name: &str, own: Option<bool>, others: &[&str], min: u32) -> (ObjectKey, Found) {
        let mut targets = vec![];
        if own.is_some() {
            targets.push(json!({"name": "own", "host": "10.0.0.1", "port": 80}));
        }
        for (at, other) in others.iter().enumerate() {
            targets.push(json!({"name": format!("t{at}"), "healthCheck": {"name": other}}));
        }
        let check = check(name, json!({"minHealthy": min, "targets": targets}));
        let answer = own.map(|healthy| EndpointAnswer {
            healthy: Some(healthy),
            ..EndpointAnswer::of_member("own", false, "", &Fresh::unknown(if healthy { "" } else { "down" }))
        });
        (key(name), Ok((check, answer.into_iter().collect())))
    }

    fn healths(found: impl IntoIterator<Item = (ObjectKey, Found)>) -> Vec<(String, Health, String)> {
        let judged = judge(found.into_iter().collect(), |_| None);
        let mut told: Vec<_> =
            judged.into_iter().map(|(key, fresh)| (key.name.to_string(), fresh.health, fresh.message)).collect();
        told.sort();
        told
    }

    #[test]
    fn each_check_is_judged_once_however_many_follow_it() {
        // 64^5 ways lead down to the last one.
        let names: Vec<_> = (0..6).map(|level| format!("c{level}")).collect();
        let level = |level: usize| match names.get(level + 1) {
            Some(next) => found(&names[level], None, &[&**next; 64], 64),
            None => found(&names[level], Some(true), &[], 1),
        };
        let told = healths((0..6).map(level));
        assert!(told.len() == 6 && told.iter().all(|(_, health, _)| *health == Health::Healthy), "{told:?}");
    }

    #[test]
    fn a_circle_is_unknown_and_what_follows_it_counts_it_so() {
        for _ in 0..20 {
            let told = healths([
                found("a", Some(true), &["b"; 63], 1),
                found("b", Some(true), &["a"; 63], 1),
                found("self", None, &["self"], 1),
                found("over", Some(true), &["a", "well"], 2),
                found("top", None, &["over", "self"], 1),
                found("sick", Some(false), &["a"], 2),
                found("well", Some(true), &[], 1),
            ]);
            let health: Vec<_> = told.iter().map(|(name, health, _)| (&**name, *health)).collect();
            let circle = "HealthChecks follow one another in a circle";
            assert_eq!(
                health,
                [
                    ("a", Health::Unknown),
                    ("b", Health::Unknown),
                    ("over", Health::Degraded),
                    ("self", Health::Unknown),
                    ("sick", Health::Unhealthy),
                    ("top", Health::Degraded),
                    ("well", Health::Healthy),
                ]
            );
            assert_eq!([&*told[0].2, &told[1].2, &told[3].2], [circle; 3]);
        }
    }

    #[test]
    fn what_follows_too_deep_is_unknown() {
        let names: Vec<_> = (0..1000).map(|level| format!("c{level:04}")).collect();
        let told = healths((0..1000).map(|level| match names.get(level + 1) {
            Some(next) => found(&names[level], None, &[next], 1),
            None => found(&names[level], Some(true), &[], 1),
        }));
        let well = told.iter().filter(|(_, health, _)| *health == Health::Healthy).count();
        let deep = told.iter().filter(|(_, _, why)| why == "HealthChecks follow one another too deep").count();
        assert_eq!((well, deep), (MAX_DEPTH, 1000 - MAX_DEPTH));
    }

    #[test]
    fn of_one_target_only_what_it_follows_counts() {
        let found = HashMap::from([
            found("a", None, &["b", "c"], 1),
            found("b", Some(true), &[], 1),
            found("c", Some(false), &[], 1),
        ]);
        let judged = judge(found, |asked| (*asked == key("a")).then_some("t0"));
        assert_eq!(judged[&key("a")].health, Health::Healthy);
        assert_eq!(judged[&key("a")].endpoints.len(), 1);
    }
}

//! What checks are by probes that are made now: the same rule as the board's, over one answer of each endpoint instead of
//! all that were counted. Thresholds, overrides and what traffic says have no part in it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{EndpointAnswer, Inner, OnDemand, Question, Refusal, Running, answer::error};
use crate::{
    check::{Check, Counts, EndpointState, Health, HealthReason, ObjectKey, Place, Target},
    engine::{Declared, Demand, Member, SingleFlight, aggregate},
};

/// How many sets of several checks are asked at once; who comes beyond that is told to come back.
const MAX_SWEEPS: usize = 4;
/// How many checks of one set are asked at once.
const CHECKS_AT_ONCE: usize = 8;
/// How long a whole set may take. What has not answered then is Unknown.
const DEADLINE: Duration = Duration::from_secs(30);
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
}

/// By the check.
pub type FreshSet = Arc<BTreeMap<ObjectKey, Fresh>>;
type Set = (Vec<ObjectKey>, Option<String>);

/// Sets that are being asked.
pub(super) struct Sweeps {
    flights: SingleFlight<Set, Result<FreshSet, Refusal>>,
    permits: Semaphore,
    deadline: Duration,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self::within(DEADLINE)
    }
}

impl Sweeps {
    /// None of them takes longer than `deadline`.
    pub fn within(deadline: Duration) -> Self {
        Self { flights: SingleFlight::default(), permits: Semaphore::new(MAX_SWEEPS), deadline }
    }

    fn too_late(&self) -> String {
        format!("not answered within {:?}", self.deadline)
    }
}

impl Fresh {
    /// Nobody could look.
    fn unknown(why: impl Into<String>) -> Self {
        Self {
            health: Health::Unknown,
            reason: HealthReason::ProbeError,
            counts: Counts::default(),
            message: why.into(),
            endpoints: vec![],
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

impl OnDemand {
    /// Asks every one of `keys` now, or one target of each; shares the answers of who is just asking the same. A check that
    /// cannot be asked is Unknown and says why. Whether the answers were shared.
    ///
    /// # Errors
    /// Why nothing was probed.
    pub async fn fresh(&self, keys: Vec<ObjectKey>, target: Option<String>) -> (Result<FreshSet, Refusal>, bool) {
        let inner = self.0.clone();
        let set = (keys.clone(), target.clone());
        let boarded = self.0.sweeping.flights.board(set, || async move {
            let home = inner.home.clone();
            AbortOnDropHandle::new(home.spawn(async move { inner.sweep(keys, target).await })).await.unwrap_or_else(
                |error| {
                    tracing::error!(%error, "probing a set on demand broke down; this is a bug");
                    Err(Refusal::Busy)
                },
            )
        });
        let joined = boarded.joined;
        (boarded.result().await, joined)
    }
}

/// What was found of one check: its declaration and what its own endpoints answered, or why nobody could look.
type Found = Result<(Arc<Check>, Vec<EndpointAnswer>), String>;

impl Inner {
    async fn sweep(&self, keys: Vec<ObjectKey>, target: Option<String>) -> Result<FreshSet, Refusal> {
        let permits = if keys.len() == 1 { &*self.permits } else { &self.sweeping.permits };
        let Ok(_permit) = permits.try_acquire() else { return Err(Refusal::Busy) };
        let running = self.running()?;
        let deadline = Instant::now() + self.sweeping.deadline;
        let declared = self.declared(&running, &keys, target.as_deref(), deadline).await;
        let asking = declared.into_iter().map(|(key, declared)| {
            let target = target.clone().filter(|_| keys.contains(&key));
            let asking = self.answers(running.clone(), declared, target);
            async move {
                let answers = tokio::time::timeout_at(deadline, asking).await;
                (key, answers.unwrap_or_else(|_| Err(self.sweeping.too_late())))
            }
        });
        // Each is begun when its turn comes, and not before.
        let asking: Vec<_> = asking.collect();
        let found: HashMap<ObjectKey, Found> = stream::iter(asking).buffer_unordered(CHECKS_AT_ONCE).collect().await;
        let fresh = |key: ObjectKey| {
            let fresh = judge(&key, target.as_deref(), &found, 0);
            (key, fresh)
        };
        Ok(Arc::new(keys.iter().cloned().map(fresh).collect()))
    }

    /// What is declared under `keys`, and under whatever they follow.
    async fn declared(
        &self,
        running: &Running,
        keys: &[ObjectKey],
        target: Option<&str>,
        deadline: Instant,
    ) -> HashMap<ObjectKey, Result<Declared, String>> {
        let look_up = |key: ObjectKey| async move {
            let declared = match tokio::time::timeout_at(deadline, running.declares.declared(&key)).await {
                Ok(Ok(Some(declared))) => Ok(declared),
                Ok(Ok(None)) => {
                    Err(format!("HealthCheck {key} is not probed: it cannot work as it is declared, or is gone"))
                }
                Ok(Err(why)) => Err(why),
                Err(_) => Err(self.sweeping.too_late()),
            };
            (key, declared)
        };
        let mut known = HashMap::new();
        let (mut next, mut target) = (keys.to_vec(), target);
        while !next.is_empty() {
            let looking: Vec<_> = next.drain(..).map(look_up).collect();
            let found: Vec<_> = stream::iter(looking).buffer_unordered(CHECKS_AT_ONCE).collect().await;
            let mut members = HashSet::new();
            for (key, declared) in found {
                if let Ok(declared) = &declared {
                    members.extend(followed(&declared.check, target).map(|(_, member)| member));
                }
                known.insert(key, declared);
            }
            next.extend(members.into_iter().filter(|member| !known.contains_key(member)));
            // Whatever is followed counts as a whole.
            target = None;
        }
        known
    }

    /// What the endpoints of a check answer that are its own.
    async fn answers(&self, running: Running, declared: Result<Declared, String>, target: Option<String>) -> Found {
        let declared = declared?;
        let check = declared.check.clone();
        if check.suspend {
            return Ok((check, vec![]));
        }
        let wanted = |name: &str| target.as_deref().is_none_or(|target| target == name);
        if !declared.endpoints.iter().any(|endpoint| wanted(&endpoint.target)) {
            return Ok((check, vec![]));
        }
        let question = Question::as_declared(target);
        let boarded = self.board(check.key.clone(), question.clone(), || running.ask(declared, question));
        match boarded.result().await {
            Ok(answer) => Ok((check, answer.endpoints)),
            Err(Refusal::NotFound(why) | Refusal::Invalid(why) | Refusal::Unavailable(why)) => Err(why),
            Err(Refusal::Busy) => Err("too many probes are asked for at once; try again".to_owned()),
            Err(Refusal::NotProbing) => Err("nothing is probed here at the moment; try again".to_owned()),
        }
    }
}

/// The targets of `check` that follow another one, or the one that is asked about if it does.
fn followed<'a>(check: &'a Check, target: Option<&'a str>) -> impl Iterator<Item = (&'a Target, ObjectKey)> {
    let wanted = move |declared: &&Target| target.is_none_or(|target| *declared.name == *target);
    check.targets.iter().filter(wanted).filter_map(|declared| match &declared.place {
        Place::Check { name } => {
            Some((declared, ObjectKey { namespace: check.key.namespace.clone(), name: name.clone() }))
        }
        _ => None,
    })
}

/// What `key` is by all that was found.
fn judge(key: &ObjectKey, target: Option<&str>, found: &HashMap<ObjectKey, Found>, depth: usize) -> Fresh {
    let (check, own) = match found.get(key) {
        Some(Ok(found)) => found,
        Some(Err(why)) => return Fresh::unknown(why),
        None => return Fresh::unknown("not looked at"),
    };
    if check.suspend {
        return Fresh { reason: HealthReason::Suspended, ..Fresh::unknown("suspended") };
    }
    // A circle is refused where it is declared; an API server takes it all the same.
    if depth >= MAX_DEPTH {
        return Fresh::unknown("HealthChecks follow one another too deep");
    }
    let mut answers = own.clone();
    for (declared, member) in followed(check, target) {
        let fresh = judge(&member, None, found, depth + 1);
        answers.push(EndpointAnswer::of_member(&declared.name, declared.optional, &member.name, &fresh));
    }
    Fresh::of(check, answers)
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
            latency_seconds: fresh.endpoints.iter().map(|answer| answer.latency_seconds).fold(0.0, f64::max),
            kind: "healthCheck",
            certificate_expires: None,
        }
    }
}

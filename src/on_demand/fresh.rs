//! Sets of checks that are asked now, with whatever they follow.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    EndpointAnswer, Inner, OnDemand, Question, Refusal, Running,
    judge::{Found, Fresh, followed, judge},
};
use crate::{
    check::{EndpointState, ObjectKey},
    engine::{Declared, EndpointView, SingleFlight},
};

/// How many sets of several checks are asked at once; who comes beyond that is told to come back.
const MAX_SWEEPS: usize = 4;
/// How many checks of one set are asked at once.
const CHECKS_AT_ONCE: usize = 8;

/// By the check.
pub type FreshSet = Arc<BTreeMap<ObjectKey, Fresh>>;
type Set = (Vec<ObjectKey>, Option<String>);

/// Sets that are being asked.
pub(super) struct Sweeps {
    flights: SingleFlight<Set, Result<FreshSet, Refusal>>,
    permits: Semaphore,
    deadline: Duration,
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

impl Inner {
    async fn sweep(&self, keys: Vec<ObjectKey>, target: Option<String>) -> Result<FreshSet, Refusal> {
        let permits = if keys.len() == 1 { &*self.permits } else { &self.sweeping.permits };
        let Ok(_permit) = permits.try_acquire() else { return Err(Refusal::Busy) };
        let mut running = self.running()?;
        if let Some(remembering) = running.declares.remembering() {
            running.declares = remembering;
        }
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
        let mut judged = judge(found, |key| target.as_deref().filter(|_| keys.contains(key)));
        let fresh = |key: &ObjectKey| {
            let fresh = judged.remove(key).unwrap_or_else(|| Fresh::unknown("not looked at"));
            (key.clone(), fresh)
        };
        Ok(Arc::new(keys.iter().map(fresh).collect()))
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
                    members.extend(followed(&declared.check, target).map(|followed| followed.check));
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
            Ok(mut answer) => {
                self.stand(&check.key, &mut answer.endpoints);
                Ok((check, answer.endpoints))
            }
            Err(Refusal::NotFound(why) | Refusal::Invalid(why) | Refusal::Unavailable(why)) => Err(why),
            Err(Refusal::Busy) => Err("too many probes are asked for at once; try again".to_owned()),
            Err(Refusal::NotProbing) => Err("nothing is probed here at the moment; try again".to_owned()),
        }
    }

    /// Where an answer changes nothing, what the board has stands.
    fn stand(&self, key: &ObjectKey, answers: &mut [EndpointAnswer]) {
        if !answers.iter().any(|answer| answer.neutral) {
            return;
        }
        let Some(view) = self.board.as_ref().and_then(|board| board.get(key)) else { return };
        let rows: HashMap<_, _> = view.endpoints.iter().map(|row| ((&*row.target, &*row.label), row)).collect();
        let healthy = |row: &EndpointView| match row.verdict() {
            EndpointState::Unknown => None,
            state => Some(state.is_healthy()),
        };
        for answer in answers.iter_mut().filter(|answer| answer.neutral) {
            let row = rows.get(&(&*answer.target, &*answer.endpoint)).filter(|row| row.measured && !row.stale);
            answer.healthy = row.and_then(|row| healthy(row));
        }
    }
}

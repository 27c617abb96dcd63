//! Probes that somebody asks for, now: of declared endpoints, beside their rhythm. They count for nothing: no verdict, no
//! counter and no gate moves by them, so that nobody can talk a target up or down.

mod answer;
mod question;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;

pub use answer::{Answer, EndpointAnswer};
pub use question::Question;

use crate::{
    check::{Attempt, Endpoint, ObjectKey, Report},
    engine::{Declared, Engine, SingleFlight},
    probe::Lane,
};

/// How many runs there may be at once; who comes beyond that is told to come back.
const MAX_RUNS: usize = 32;
/// How many endpoints of one run are asked at once.
const AT_ONCE: usize = 64;

/// Why nothing was probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such check, or it has no such target.
    NotFound(String),
    /// The question cannot be asked of what is declared.
    Invalid(String),
    /// Too many ask at once.
    Busy,
    /// This process does not probe.
    NotProbing,
}

type Asking = dyn Fn(Attempt) -> BoxFuture<'static, Report> + Send + Sync;
type Outcome = Result<Answer, Refusal>;

/// See the module's own words. Cheap to clone.
#[derive(Clone)]
pub struct OnDemand(Arc<Inner>);

/// Who makes probes, and who knows of what.
#[derive(Clone)]
struct Running {
    ask: Arc<Asking>,
    engine: Engine,
}

struct Inner {
    /// Where probes are made, so that none of them takes a turn of the listeners.
    home: Handle,
    /// `None` while another replica probes.
    running: Mutex<Option<Running>>,
    flights: SingleFlight<(ObjectKey, Question), Outcome>,
    permits: Arc<Semaphore>,
}

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnDemand").field("flights", &self.0.flights).finish_non_exhaustive()
    }
}

impl OnDemand {
    /// Probes on the current runtime, from [`Self::begin`] on.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes the runtime of whoever calls")]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            home: Handle::current(),
            running: Mutex::default(),
            flights: SingleFlight::default(),
            permits: Arc::new(Semaphore::new(MAX_RUNS)),
        }))
    }

    /// From now on `lane` probes what `engine` runs.
    pub fn begin(&self, lane: Arc<impl Lane>, engine: Engine) {
        let ask = move |attempt| {
            let lane = lane.clone();
            Box::pin(async move { lane.attempt(attempt).await }) as BoxFuture<'static, Report>
        };
        self.set(Some(Running { ask: Arc::new(ask), engine }));
    }

    /// Another replica probes.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, running: Option<Running>) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// Asks `question` of `key` now, or shares the answer of who is just asking the same. Whether it was shared.
    ///
    /// # Errors
    /// Why nothing was probed.
    pub async fn probe(&self, key: ObjectKey, question: Question) -> (Outcome, bool) {
        let inner = self.0.clone();
        let work = {
            let (key, question) = (key.clone(), question.clone());
            || async move {
                let home = inner.home.clone();
                AbortOnDropHandle::new(home.spawn(inner.run(key, question))).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a probe on demand broke down; this is a bug");
                    Err(Refusal::Busy)
                })
            }
        };
        let boarded = self.0.flights.board((key, question), work);
        let joined = boarded.joined;
        (boarded.result().await, joined)
    }
}

impl Inner {
    async fn run(self: Arc<Self>, key: ObjectKey, question: Question) -> Outcome {
        let Ok(_permit) = self.permits.try_acquire() else { return Err(Refusal::Busy) };
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Running { ask, engine }) = running else { return Err(Refusal::NotProbing) };
        let Some(Declared { check, endpoints }) = engine.declared(&key).await else {
            return Err(Refusal::NotFound(format!("no HealthCheck \"{key}\" is probed")));
        };
        let asked = question.choose(&check, endpoints)?;
        let attempt = |endpoint: &Endpoint| {
            let (target, dial, probe) = (endpoint.target.clone(), endpoint.dial.clone(), endpoint.probe.clone());
            ask(Attempt { check: key.clone(), target, dial, probe, known: vec![], kept: None })
        };
        // Each is made when its turn comes, and not before: a future that waits costs no more than its box.
        let attempts: Vec<_> = asked.iter().map(attempt).collect();
        let reports: Vec<Report> = stream::iter(attempts).buffered(AT_ONCE).collect().await;
        let whole = question.target.is_none();
        Ok(Answer::of(asked.into_iter().zip(reports).collect(), whole.then_some(check.min_healthy)))
    }
}

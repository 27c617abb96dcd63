//! Probes that somebody asks for, now: of declared endpoints, beside their rhythm. They count for nothing: no verdict, no
//! counter and no gate moves by them, so that nobody can talk a target up or down.

mod answer;
mod fresh;
mod question;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::task::AbortOnDropHandle;

pub use answer::{Answer, EndpointAnswer};
pub use fresh::{Fresh, FreshSet, state};
pub use question::Question;

use crate::{
    check::{Attempt, Endpoint, ObjectKey, Report},
    engine::{Boarded, Declared, Engine, SingleFlight},
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
    /// This process does not probe yet, or not any more.
    NotProbing,
    /// What the check consists of cannot be found out; why, for people.
    Unavailable(String),
}

/// Knows what checks consist of.
pub trait Declares: Send + Sync + 'static {
    /// The check under `key` with all its endpoints; `None` where there is none.
    ///
    /// # Errors
    /// Why it cannot be told, for people.
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>>;
}

impl Declares for Engine {
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>> {
        Box::pin(async move { Ok(Self::declared(self, key).await) })
    }
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
    declares: Arc<dyn Declares>,
}

struct Inner {
    /// Where probes are made, so that none of them takes a turn of the listeners.
    home: Handle,
    /// `None` before anything can be probed.
    running: Mutex<Option<Running>>,
    flights: SingleFlight<(ObjectKey, Question), Outcome>,
    permits: Arc<Semaphore>,
    /// Of what is asked of many checks at once.
    sweeping: fresh::Sweeps,
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
        Self::with(fresh::Sweeps::default())
    }

    /// The same, where nobody is kept waiting but who asked: [`Self::fresh`] may take as long as `deadline`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn patient(deadline: std::time::Duration) -> Self {
        Self::with(fresh::Sweeps::within(deadline))
    }

    fn with(sweeping: fresh::Sweeps) -> Self {
        Self(Arc::new(Inner {
            home: Handle::current(),
            running: Mutex::default(),
            flights: SingleFlight::default(),
            permits: Arc::new(Semaphore::new(MAX_RUNS)),
            sweeping,
        }))
    }

    /// From now on `lane` probes what `declares` knows of.
    pub fn begin(&self, lane: Arc<impl Lane>, declares: impl Declares) {
        let ask = move |attempt| {
            let lane = lane.clone();
            Box::pin(async move { lane.attempt(attempt).await }) as BoxFuture<'static, Report>
        };
        self.set(Some(Running { ask: Arc::new(ask), declares: Arc::new(declares) }));
    }

    /// Nothing is probed here from now on.
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
        let boarded = self.0.board(key.clone(), question.clone(), || inner.run(key, question));
        let joined = boarded.joined;
        (boarded.result().await, joined)
    }
}

impl Inner {
    /// Takes part in the run of this question that is under way, or in `work`, which is done at home.
    fn board<F>(&self, key: ObjectKey, question: Question, work: impl FnOnce() -> F) -> Boarded<Outcome>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let home = self.home.clone();
        self.flights.board((key, question), || {
            let work = work();
            async move {
                AbortOnDropHandle::new(home.spawn(work)).await.unwrap_or_else(|error| {
                    tracing::error!(%error, "a probe on demand broke down; this is a bug");
                    Err(Refusal::Busy)
                })
            }
        })
    }

    fn running(&self) -> Result<Running, Refusal> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Refusal::NotProbing)
    }

    async fn run(self: Arc<Self>, key: ObjectKey, question: Question) -> Outcome {
        let Ok(_permit) = self.permits.try_acquire() else { return Err(Refusal::Busy) };
        let running = self.running()?;
        match running.declares.declared(&key).await {
            Ok(Some(declared)) => running.ask(declared, question).await,
            Ok(None) => Err(Refusal::NotFound(format!("no HealthCheck \"{key}\" is probed"))),
            Err(why) => Err(Refusal::Unavailable(why)),
        }
    }
}

impl Running {
    /// Asks `question` of what is declared.
    async fn ask(self, declared: Declared, question: Question) -> Outcome {
        let Declared { check, endpoints } = declared;
        let asked = question.choose(&check, endpoints)?;
        let attempt = |endpoint: &Endpoint| {
            let (target, dial, probe) = (endpoint.target.clone(), endpoint.dial.clone(), endpoint.probe.clone());
            (self.ask)(Attempt { check: check.key.clone(), target, dial, probe, known: vec![], kept: None })
        };
        // Each is made when its turn comes, and not before: a future that waits costs no more than its box.
        let attempts: Vec<_> = asked.iter().map(attempt).collect();
        let reports: Vec<Report> = stream::iter(attempts).buffered(AT_ONCE).collect().await;
        let whole = question.target.is_none();
        Ok(Answer::of(asked.into_iter().zip(reports).collect(), whole.then_some(check.min_healthy)))
    }
}

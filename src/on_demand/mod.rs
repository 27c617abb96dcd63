//! Probes that somebody asks for, now: of declared endpoints, beside their rhythm. They count for nothing: no verdict, no
//! counter and no gate moves by them, so that nobody can talk a target up or down.

mod answer;
mod fresh;
mod judge;
mod question;
mod turns;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream};
use tokio::{runtime::Handle, sync::Semaphore, time::Instant};
use tokio_util::task::AbortOnDropHandle;

pub use answer::{Answer, EndpointAnswer};
pub use fresh::FreshSet;
pub use judge::{Fresh, state};
pub use question::Question;

use turns::Turns;

use crate::{
    check::{Attempt, Endpoint, ObjectKey, Report},
    engine::{Board, Boarded, Declared, Engine, SingleFlight},
    probe::Lane,
};

/// How many runs there may be at once; who comes beyond that is told to come back.
const MAX_RUNS: usize = 32;
/// How many endpoints of one run are asked at once.
const AT_ONCE: usize = 64;
/// How many endpoints are asked at once in all, unless said otherwise.
const ATTEMPTS: usize = 64;
/// How long a set of checks may take, and how long an endpoint waits for its turn.
const DEADLINE: Duration = Duration::from_secs(30);

/// What probes on demand are bounded by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many attempts may be made at once, in all, beside those of the rhythm. Each has a descriptor.
    pub attempts: usize,
    /// How long a set of checks may take, and how long an endpoint of a run waits for its turn.
    pub deadline: Duration,
    /// What stands where an answer is neither good nor bad; `None`: nothing does.
    pub board: Option<Arc<Board>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { attempts: ATTEMPTS, deadline: DEADLINE, board: None }
    }
}

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

    /// The same for as long as one set is asked, which may remember what it has found out. `None`: it costs nothing to
    /// find out again.
    fn remembering(&self) -> Option<Arc<dyn Declares>> {
        None
    }
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
    turns: Arc<Turns>,
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
    turns: Arc<Turns>,
    board: Option<Arc<Board>>,
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
        Self::with(Settings::default())
    }

    /// The same within other bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn with(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            home: Handle::current(),
            running: Mutex::default(),
            flights: SingleFlight::default(),
            permits: Arc::new(Semaphore::new(MAX_RUNS)),
            sweeping: fresh::Sweeps::within(settings.deadline),
            turns: Arc::new(Turns::new(settings.attempts, settings.deadline)),
            board: settings.board,
        }))
    }

    /// From now on `lane` probes what `declares` knows of.
    pub fn begin(&self, lane: Arc<impl Lane>, declares: impl Declares) {
        let ask = move |attempt| {
            let lane = lane.clone();
            Box::pin(async move { lane.attempt(attempt).await }) as BoxFuture<'static, Report>
        };
        let turns = self.0.turns.clone();
        self.set(Some(Running { ask: Arc::new(ask), declares: Arc::new(declares), turns }));
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
        let until = Instant::now() + self.turns.patience();
        let attempt = |endpoint: &Endpoint| {
            let (target, dial, probe) = (endpoint.target.clone(), endpoint.dial.clone(), endpoint.probe.clone());
            let attempt = Attempt { check: check.key.clone(), target, dial, probe, known: vec![], kept: None };
            self.turns.clone().take((self.ask)(attempt), until)
        };
        // Each is made when its turn comes, and not before: a future that waits costs no more than its box.
        let attempts: Vec<_> = asked.iter().map(attempt).collect();
        let reports: Vec<Report> = stream::iter(attempts).buffered(AT_ONCE).collect().await;
        let whole = question.target.is_none();
        Ok(Answer::of(asked.into_iter().zip(reports).collect(), whole.then_some(check.min_healthy)))
    }
}

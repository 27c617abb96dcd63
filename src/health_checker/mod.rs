//! The drop-in for gruntwork's health-checker: whatever is asked, everything is probed at once, now.

mod answer;
mod checks;
mod words;

use std::{sync::Arc, time::Duration};

use axum::Router;
use futures::future::join_all;

use crate::{
    check::Outcome,
    engine::SingleFlight,
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        script::{Scripts, Setup},
    },
};
use answer::Verdict;
use checks::OneCheck;

pub use words::Words;

/// Scripts that run at once, over all requests. Beyond it the machine is kept from being run over, and a script waits.
const SCRIPTS_AT_ONCE: usize = 256;

/// What is probed, and how.
#[derive(Clone, Debug)]
pub struct Asked {
    /// TCP ports of this machine.
    pub ports: Vec<u16>,
    pub scripts: Vec<Words>,
    /// Of each script.
    pub script_timeout: Duration,
    /// Requests that come while a run is under way get its result.
    pub single_flight: bool,
}

/// Probes everything, for whoever asks.
pub struct HealthChecker {
    prober: Arc<Prober>,
    checks: Arc<[OneCheck]>,
    flight: Option<SingleFlight<(), Verdict>>,
}

impl HealthChecker {
    /// Ready to be asked. Scripts get the environment of this process, as it is now.
    #[must_use]
    pub fn new(asked: &Asked) -> Self {
        let at_once = SCRIPTS_AT_ONCE.max(asked.scripts.len());
        let scripts = Scripts::new(&Setup { at_once, per_namespace: at_once, ..Setup::default() });
        let settings = Settings { scripts: ScriptBackend::Local(Arc::new(scripts)), ..Settings::standalone() };
        Self {
            prober: Arc::new(Prober::new(settings)),
            checks: checks::all(asked).into(),
            flight: asked.single_flight.then(SingleFlight::default),
        }
    }

    /// The longest that an answer can take: every check is bounded by its own timeout, and they run beside each other.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.checks.iter().map(OneCheck::timeout).max().unwrap_or_default()
    }

    /// The names of all checks, ports first, as the header has them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.checks.iter().map(OneCheck::name)
    }

    /// Tells of scripts that could not be started if somebody asked now. It may come yet.
    pub fn warn_of_missing(&self) {
        for check in self.checks.iter() {
            if let Some(program) = check.missing() {
                tracing::warn!(
                    check = check.name(),
                    "'{program}' is no program that can be run; it fails until it is one"
                );
            }
        }
    }

    /// Answers every path and method.
    pub fn router(self) -> Router {
        answer::router(Arc::new(self))
    }

    async fn verdict(&self) -> Verdict {
        let (prober, checks) = (Arc::clone(&self.prober), Arc::clone(&self.checks));
        let work = || async move { run(&prober, &checks).await };
        match &self.flight {
            None => work().await,
            Some(flight) => {
                let boarded = flight.board((), work);
                tracing::debug!("{}", if boarded.joined { "joined the run of another request" } else { "began a run" });
                boarded.result().await
            }
        }
    }
}

/// Runs all checks beside each other. One that could not be made does not pass either: nobody has seen that it is well.
async fn run(prober: &Prober, checks: &[OneCheck]) -> Verdict {
    let reports = join_all(checks.iter().map(|check| prober.attempt(check.attempt()))).await;
    let mut failed = vec![];
    for (check, report) in checks.iter().zip(reports) {
        let millis = u64::try_from(report.latency.as_millis()).unwrap_or(u64::MAX);
        if report.outcome == Outcome::Success {
            tracing::debug!(check = check.name(), millis, "check passed");
            continue;
        }
        let reason = report.outcome.reason().map_or("", crate::check::Reason::as_str);
        tracing::warn!(check = check.name(), reason, millis, "check failed: {}", report.outcome.message());
        failed.push(check.name());
    }
    Verdict::of(&failed)
}

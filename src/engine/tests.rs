//! The engine as a whole, on paused time, with a lane that answers as told.

mod changes;
mod idle;
mod isolation;
mod late;
mod overrides;
mod reports;
mod restart;
mod rounds;
mod sharing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Board, CheckView, Desired, Engine, Limits, OUTAGE_TARGETS, Parts, Surroundings, start};
use crate::{
    check::{
        Attempt, Check, Dial, Endpoint, EndpointState, Found, Health, HealthReason, Host, HttpProbe, InitialState,
        Labels, MinHealthy, ObjectKey, Outcome, Overrides, Place, Probe, ProbeKind, Reason, Report, Resolve, Rhythm,
        Target, TcpProbe, Thresholds,
    },
    probe::Lane,
    telemetry::{Beats, Metrics},
};

#[derive(Clone, Debug)]
enum Answer {
    Good,
    Bad(Reason),
    /// Nothing for as long as the probe waits.
    Hang,
    /// Ignores its own timeout and answers this late.
    Late(Duration),
}

#[derive(Debug, Default)]
struct Script {
    answers: HashMap<String, Answer>,
    starts: HashMap<String, Vec<Instant>>,
    running: usize,
    most_running: usize,
    /// Where the name of a target leads to; each answers as the target does.
    found: HashMap<String, Vec<[u8; 4]>>,
    /// How many attempts have handed on what is kept now.
    handed_on: HashMap<String, usize>,
    /// What is kept, of all endpoints.
    kept: Arc<()>,
}

/// What an attempt of [`Puppet`] leaves for the next.
struct Left {
    times: usize,
    _alive: Arc<()>,
}

#[derive(Clone, Debug, Default)]
struct Puppet(Arc<Mutex<Script>>);

impl Puppet {
    fn say(&self, target: &str, answer: Answer) {
        self.0.lock().unwrap().answers.insert(target.to_owned(), answer);
    }

    fn leads(&self, target: &str, addresses: &[[u8; 4]]) {
        self.0.lock().unwrap().found.insert(target.to_owned(), addresses.to_vec());
    }

    fn starts(&self, target: &str) -> Vec<Instant> {
        self.0.lock().unwrap().starts.get(target).cloned().unwrap_or_default()
    }

    fn handed_on(&self, target: &str) -> usize {
        self.0.lock().unwrap().handed_on.get(target).copied().unwrap_or_default()
    }

    fn kept(&self) -> usize {
        Arc::strong_count(&self.0.lock().unwrap().kept) - 1
    }

    fn hits(&self, target: &str) -> usize {
        self.starts(target).len()
    }
}

struct Leave(Puppet);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().running -= 1;
    }
}

impl Lane for Puppet {
    async fn attempt(&self, attempt: Attempt) -> Report {
        let (answer, _leave) = {
            let mut script = self.0.lock().unwrap();
            script.running += 1;
            script.most_running = script.most_running.max(script.running);
            script.starts.entry(attempt.target.to_string()).or_default().push(Instant::now());
            (script.answers.get(&*attempt.target).cloned().unwrap_or(Answer::Good), Leave(self.clone()))
        };
        let timeout = attempt.probe.timeout;
        let (wait, outcome) = match answer {
            Answer::Good => (Duration::from_millis(2), Outcome::Success),
            Answer::Bad(reason) => (Duration::from_millis(2), Outcome::from_reason(reason, "as told")),
            Answer::Hang => (timeout, Outcome::from_reason(Reason::TimeoutConnect, "no answer")),
            Answer::Late(by) => (by, Outcome::Success),
        };
        sleep(wait).await;
        if let Some(kept) = &attempt.kept {
            let before = kept.take().and_then(|left| left.downcast::<Left>().ok());
            let times = before.map_or(0, |left| left.times + 1);
            let mut script = self.0.lock().unwrap();
            kept.put(Box::new(Left { times, _alive: script.kept.clone() }));
            script.handed_on.insert(attempt.target.to_string(), times);
        }
        let found = self.0.lock().unwrap().found.get(&*attempt.target).cloned();
        let one = |address: [u8; 4]| (address.into(), Report::new(outcome.clone(), wait));
        let found = found.map(|found| Found { reports: found.into_iter().map(one).collect(), unheard: None });
        Report { found: found.map(Box::new), ..Report::new(outcome, wait) }
    }
}

struct Bench {
    engine: Engine,
    board: Arc<Board>,
    lane: Puppet,
    metrics: Metrics,
    surroundings: Surroundings,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self::limited(Limits { in_flight: 1000, per_host: 1000 })
    }

    fn limited(limits: Limits) -> Self {
        let (board, lane, stop) = (Arc::new(Board::new()), Puppet::default(), CancellationToken::new());
        let (metrics, surroundings) = (Metrics::default(), Surroundings::default());
        let parts = Parts {
            lane: Arc::new(lane.clone()),
            board: board.clone(),
            limits,
            surroundings: surroundings.clone(),
            metrics: metrics.clone(),
            beats: Beats::default(),
        };
        let (engine, _) = start(parts, stop.clone());
        Self { engine, board, lane, metrics, surroundings, stop }
    }

    async fn run(&self, check: &Check) {
        self.engine.upsert(desired(check)).await;
        self.engine.settle().await;
    }

    fn view(&self, name: &str) -> Arc<CheckView> {
        self.board.get(&ObjectKey::new("shop", name)).expect("the check is on the board")
    }

    fn health(&self, name: &str) -> (Health, HealthReason) {
        let view = self.view(name);
        (view.health, view.reason)
    }

    fn state(&self, name: &str, at: usize) -> EndpointState {
        self.view(name).endpoints[at].state
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn tcp() -> Arc<Probe> {
    Arc::new(Probe { timeout: Duration::from_secs(1), kind: ProbeKind::Tcp(TcpProbe::default()) })
}

fn http() -> Arc<Probe> {
    Arc::new(Probe { timeout: Duration::from_secs(1), kind: ProbeKind::Http(HttpProbe::default()) })
}

fn target(name: &str) -> Target {
    let place = Place::Host(Host::Address([10, 0, 0, 1].into()));
    Target { name: name.into(), place, resolve: Resolve::Any, port: None, optional: false, zone: None, probe: tcp() }
}

fn member(name: &str, of: &str) -> Target {
    Target { place: Place::Check { name: of.into() }, ..target(name) }
}

/// Probed each second, flips after three failures and two successes.
fn check(name: &str, targets: Vec<Target>) -> Check {
    let second = Duration::from_secs(1);
    Check {
        key: ObjectKey::new("shop", name),
        uid: name.into(),
        generation: 1,
        labels: Labels::default(),
        suspend: false,
        rhythm: Rhythm {
            interval: second,
            unhealthy_interval: second,
            confirm_interval: second,
            no_traffic_interval: None,
            jitter_percent: 0,
        },
        thresholds: Thresholds { success: 2, failure: Some(3), connect: None, http: None, timeout: None },
        initial_state: InitialState::Unknown,
        stale_after: Duration::from_secs(30),
        min_healthy: MinHealthy::Percent(100),
        annotations: true,
        targets,
        passive: None,
        gates: vec![],
        overrides: Overrides::default(),
    }
}

fn desired(check: &Check) -> Desired {
    let endpoints = check
        .targets
        .iter()
        .filter(|target| !matches!(target.place, Place::Check { .. }))
        .map(|target| Endpoint {
            target: target.name.clone(),
            identity: target.name.clone(),
            label: format!("{}:80", target.name).into(),
            dial: Some(Dial {
                host: Host::Address([10, 0, 0, 1].into()),
                // Each asks something else, of one host.
                port: Some(super::stable_hash(&[&check.uid, &target.name]) as u16),
            }),
            port: Some(80),
            resolve: target.resolve,
            optional: target.optional,
            probe: target.probe.clone(),
        })
        .collect();
    Desired { check: Arc::new(check.clone()), endpoints, prior: None }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

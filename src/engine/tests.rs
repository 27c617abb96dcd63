//! The engine as a whole, on paused time, with a lane that answers as told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

use super::{Board, CheckView, Desired, Engine, Limits, Parts, Prior, PriorEndpoint, start};
use crate::{
    check::{
        Attempt, Check, Dial, Endpoint, EndpointState, Health, HealthReason, Host, HttpProbe, InitialState, MinHealthy,
        ObjectKey, Outcome, Place, Probe, ProbeKind, Reason, Redirects, Report, Rhythm, Scheme, StatusRange, Target,
        TcpProbe, Thresholds, Tls,
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
}

#[derive(Clone, Debug, Default)]
struct Puppet(Arc<Mutex<Script>>);

impl Puppet {
    fn say(&self, target: &str, answer: Answer) {
        self.0.lock().unwrap().answers.insert(target.to_owned(), answer);
    }

    fn starts(&self, target: &str) -> Vec<Instant> {
        self.0.lock().unwrap().starts.get(target).cloned().unwrap_or_default()
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
        Report::new(outcome, wait)
    }
}

struct Bench {
    engine: Engine,
    board: Arc<Board>,
    lane: Puppet,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Bench {
    fn new() -> Self {
        Self::limited(Limits { in_flight: 1000, per_host: 1000 })
    }

    fn limited(limits: Limits) -> Self {
        let (board, lane, stop) = (Arc::new(Board::new()), Puppet::default(), CancellationToken::new());
        let metrics = Metrics::default();
        let parts = Parts {
            lane: Arc::new(lane.clone()),
            board: board.clone(),
            limits,
            metrics: metrics.clone(),
            beats: Beats::default(),
        };
        let (engine, _) = start(parts, stop.clone());
        Self { engine, board, lane, metrics, stop }
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
    let http = HttpProbe {
        scheme: Scheme::Http,
        port: None,
        path: "/".into(),
        method: "GET".into(),
        host: None,
        headers: vec![],
        expected_statuses: vec![StatusRange { first: 200, last: 399 }],
        redirects: Redirects::None,
        connection: crate::check::Connection::Reset,
        tls: Tls::default(),
    };
    Arc::new(Probe { timeout: Duration::from_secs(1), kind: ProbeKind::Http(http) })
}

fn target(name: &str) -> Target {
    let place = Place::Host(Host::Address([10, 0, 0, 1].into()));
    Target { name: name.into(), place, port: None, optional: false, probe: tcp() }
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
        labels: [].into(),
        suspend: false,
        rhythm: Rhythm { interval: second, unhealthy_interval: second, confirm_interval: second, jitter_percent: 0 },
        thresholds: Thresholds { success: 2, failure: 3, connect: None, http: None, timeout: None },
        initial_state: InitialState::Unknown,
        stale_after: Duration::from_secs(30),
        min_healthy: MinHealthy::Percent(100),
        annotations: true,
        targets,
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
            dial: Some(Dial { host: Host::Address([10, 0, 0, 1].into()), port: Some(80) }),
            optional: target.optional,
            probe: target.probe.clone(),
        })
        .collect();
    Desired { check: Arc::new(check.clone()), endpoints, prior: None }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_new_check_is_probed_within_a_second_and_flips_at_its_thresholds() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Pending));
    sleep(seconds(1) + Duration::from_millis(10)).await;
    assert!(bench.lane.hits("a") >= 1);
    assert_eq!(bench.health("web"), (Health::Healthy, HealthReason::AllTargetsHealthy));

    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let before = bench.lane.hits("a");
    while bench.lane.hits("a") < before + 2 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.health("web").0, Health::Healthy, "two failures decide nothing");
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.health("web"), (Health::Unhealthy, HealthReason::TargetsUnhealthy));
    assert_eq!(bench.view("web").message, "a: as told");
    assert_eq!(bench.view("web").endpoints[0].live.counters().connect, 3);

    bench.lane.say("a", Answer::Good);
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.state("web", 0), EndpointState::MostlyUnhealthy);
    sleep(Duration::from_millis(1010)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    let view = bench.view("web");
    assert_eq!(view.transitions, [2, 0, 1, 0]);
    assert_eq!(view.outages.len(), 1);
    assert!(view.outages[0].end.is_some() && view.outages[0].reason == "ConnectionRefused");
}

#[tokio::test(start_paused = true)]
async fn rounds_lie_on_a_grid_however_long_the_answers_take() {
    let bench = Bench::new();
    bench.lane.say("slow", Answer::Late(Duration::from_millis(700)));
    bench.run(&check("web", vec![target("slow"), target("quick")])).await;
    sleep(seconds(120)).await;
    for name in ["slow", "quick"] {
        // The first round comes soon, the others on the grid.
        let starts = bench.lane.starts(name)[1..].to_vec();
        assert!((118..=121).contains(&starts.len()), "{name}: {}", starts.len());
        for pair in starts.windows(2) {
            let gap = (pair[1] - pair[0]).as_millis();
            assert!((998..=1002).contains(&gap), "{name}: {gap} ms");
        }
    }
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_for_its_whole_timeout_is_still_asked_every_round() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Hang);
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(60)).await;
    assert!(bench.lane.hits("a") >= 58, "{} rounds", bench.lane.hits("a"));
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
    assert_eq!(bench.lane.0.lock().unwrap().most_running, 1, "probes of one endpoint never overlap");
}

#[tokio::test(start_paused = true)]
async fn overdue_rounds_are_skipped_and_counted_and_never_queued() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Late(Duration::from_millis(3_500)));
    bench.run(&check("web", vec![target("a"), target("b")])).await;
    sleep(seconds(70)).await;
    let hits = bench.lane.hits("a");
    assert!((18..=21).contains(&hits), "{hits}");
    let skipped = bench.metrics.skipped_rounds.get();
    assert!((44..=54).contains(&skipped), "{skipped}");
    assert!(bench.lane.hits("b") >= 69, "the neighbour keeps its rhythm");
}

#[tokio::test(start_paused = true)]
async fn a_full_house_is_lag_and_never_a_failure() {
    let bench = Bench::limited(Limits { in_flight: 2, per_host: 2 });
    let names: Vec<String> = (0..6).map(|n| format!("t{n}")).collect();
    for name in &names {
        bench.lane.say(name, Answer::Late(Duration::from_millis(200)));
    }
    bench.run(&check("web", names.iter().map(|name| target(name)).collect())).await;
    sleep(seconds(30)).await;
    assert_eq!(bench.lane.0.lock().unwrap().most_running, 2);
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert!(names.iter().all(|name| bench.lane.hits(name) >= 27), "six of 200 ms fit into a second on two permits");
}

#[tokio::test(start_paused = true)]
async fn removing_a_check_frees_its_probes_and_its_permits() {
    let bench = Bench::limited(Limits { in_flight: 1, per_host: 1 });
    bench.lane.say("a", Answer::Late(seconds(1000)));
    bench.lane.say("b", Answer::Late(seconds(1000)));
    bench.run(&check("stuck", vec![target("a"), target("b")])).await;
    sleep(seconds(3)).await;
    bench.engine.remove(ObjectKey::new("shop", "stuck")).await;
    bench.run(&check("web", vec![target("c")])).await;
    sleep(seconds(2)).await;
    assert!(bench.board.get(&ObjectKey::new("shop", "stuck")).is_none());
    assert_eq!(bench.lane.0.lock().unwrap().running, 0);
    assert_eq!(bench.health("web").0, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn an_edit_keeps_what_it_does_not_change() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a"), target("b")])).await;
    sleep(seconds(5)).await;
    let success = |at: usize| bench.view("web").endpoints[at].live.counters().success;
    let (a, since) = (success(0), bench.view("web").since);

    let mut edited = check("web", vec![target("a"), Target { probe: http(), ..target("b") }]);
    edited.rhythm.interval = seconds(2);
    bench.run(&edited).await;
    assert_eq!(success(0), a, "an edit of interval and of another target keeps the counters");
    assert_eq!(success(1), 0, "another question starts the counters again");
    assert_eq!(bench.health("web").0, Health::Healthy, "and keeps the verdict");
    assert!(bench.view("web").endpoints[1].message.contains("before the probe was changed"));
    sleep(seconds(2)).await;
    assert_eq!(&*bench.view("web").endpoints[1].message, "");
    assert_eq!(bench.view("web").since, since);
    assert_eq!(bench.view("web").transitions, [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_in_time_keeps_its_state() {
    let bench = Bench::new();
    bench.lane.say("b", Answer::Bad(Reason::UnexpectedStatus));
    let both = check("web", vec![target("a"), target("b")]);
    let one = check("web", vec![target("a")]);
    bench.run(&both).await;
    sleep(seconds(5)).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unhealthy);
    bench.run(&one).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    sleep(seconds(8)).await;
    bench.run(&both).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unhealthy, "back within ten seconds");
    bench.run(&one).await;
    sleep(seconds(12)).await;
    bench.run(&both).await;
    assert_eq!(bench.state("web", 1), EndpointState::Unknown, "back too late: nothing is known");
    assert_eq!(bench.health("web").0, Health::Healthy, "a newcomer does not unsettle the check");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_seen_any_more_goes_stale_and_recovers() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    sleep(seconds(28)).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "our own trouble is not the target's");
    sleep(seconds(3)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
    bench.lane.say("a", Answer::Good);
    sleep(seconds(2)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_could_look_says_so() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::EgressDenied));
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::ProbeError));
    assert!(bench.view("web").outages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn suspending_stops_the_probes_and_resuming_starts_them() {
    let bench = Bench::new();
    let running = check("web", vec![target("a")]);
    let suspended = Check { suspend: true, ..running.clone() };
    bench.run(&running).await;
    sleep(seconds(3)).await;
    bench.run(&suspended).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Suspended));
    assert_eq!(bench.board.totals().suspended, 1);
    let hits = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert_eq!(bench.lane.hits("a"), hits);
    bench.run(&running).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "the verdict is still fresh");
    sleep(seconds(2)).await;
    assert!(bench.lane.hits("a") > hits);
}

#[tokio::test(start_paused = true)]
async fn composites_follow_their_members_and_a_missing_one_is_unknown() {
    let bench = Bench::new();
    bench.run(&check("all", vec![member("front", "web"), member("back", "db")])).await;
    bench.run(&check("top", vec![member("all", "all")])).await;
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("all").0, Health::Unknown);
    assert!(bench.view("all").message.contains("back: no such HealthCheck"), "{}", bench.view("all").message);
    bench.run(&check("db", vec![target("b")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("top").0, Health::Healthy);
    bench.lane.say("b", Answer::Bad(Reason::ConnectionRefused));
    sleep(seconds(4)).await;
    assert_eq!(bench.health("all").0, Health::Unhealthy);
    assert_eq!(bench.health("top").0, Health::Unhealthy, "two steps up");
    bench.engine.remove(ObjectKey::new("shop", "db")).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("all").0, Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn checks_that_name_each_other_do_not_hang_the_engine() {
    let bench = Bench::new();
    bench.run(&check("one", vec![member("m", "two")])).await;
    bench.run(&check("two", vec![member("m", "one")])).await;
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert_eq!(bench.health("one").0, Health::Unknown);
}

fn prior(age: Duration, state: EndpointState, health: Health) -> Prior {
    let reason =
        if health == Health::Healthy { HealthReason::AllTargetsHealthy } else { HealthReason::TargetsUnhealthy };
    let since = Timestamp::from_second(1_000_000_000).unwrap();
    Prior {
        observed_at: Timestamp::now() - age,
        refresh: seconds(300),
        observed_generation: Some(1),
        health,
        reason,
        message: String::new(),
        since,
        unknown: 0,
        endpoints: vec![PriorEndpoint {
            target: "a".into(),
            label: "a:80".into(),
            state,
            since,
            reason: None,
            message: String::new(),
        }],
        outages: vec![],
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_itself_is_no_transition() {
    for (state, health, answer) in [
        (EndpointState::Healthy, Health::Healthy, Answer::Good),
        (EndpointState::Unhealthy, Health::Unhealthy, Answer::Bad(Reason::ConnectionRefused)),
    ] {
        let bench = Bench::new();
        bench.lane.say("a", answer);
        let mut wanted = desired(&check("web", vec![target("a")]));
        wanted.prior = Some(prior(seconds(120), state, health));
        let mut subscription = bench.board.subscribe();
        bench.engine.upsert(wanted).await;
        bench.engine.settle().await;
        assert_eq!(bench.health("web").0, health);
        sleep(seconds(10)).await;
        let view = bench.view("web");
        assert_eq!((view.health, view.transitions), (health, [0; 4]));
        assert_eq!(view.since.as_second(), 1_000_000_000);
        assert_eq!(view.endpoints[0].since.as_second(), 1_000_000_000);
        assert_eq!(subscription.changed().await, [ObjectKey::new("shop", "web")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_too_old_is_not_believed() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::NoDescriptors));
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.prior = Some(prior(seconds(331), EndpointState::Healthy, Health::Healthy));
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
}

#[tokio::test(start_paused = true)]
async fn an_object_made_again_under_its_name_starts_anew() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    sleep(seconds(3)).await;
    let again = Check { uid: "another".into(), ..check("web", vec![target("a")]) };
    bench.run(&again).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Pending));
    assert_eq!(&*bench.view("web").uid, "another");
    assert_eq!(bench.board.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn confirm_and_unhealthy_intervals_take_effect_from_the_round_that_brings_them() {
    let bench = Bench::new();
    let mut check = check("web", vec![target("a")]);
    check.rhythm.interval = seconds(60);
    check.rhythm.confirm_interval = seconds(1);
    check.rhythm.unhealthy_interval = seconds(5);
    check.stale_after = seconds(200);
    bench.run(&check).await;
    sleep(seconds(2)).await;
    bench.lane.say("a", Answer::Bad(Reason::ConnectionRefused));
    let hits = bench.lane.hits("a");
    while bench.lane.hits("a") == hits {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(2_050)).await;
    assert_eq!(bench.health("web").0, Health::Unhealthy, "confirmed by two more, a second apart");
    let hits = bench.lane.hits("a");
    sleep(seconds(20)).await;
    assert_eq!(bench.lane.hits("a") - hits, 4);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_are_spread_and_none_is_skipped() {
    let bench = Bench::limited(Limits { in_flight: 20_000, per_host: 20_000 });
    for group in 0..100 {
        let targets = (0..100).map(|n| target(&format!("t{group}-{n}"))).collect();
        bench.run(&check(&format!("c{group}"), targets)).await;
    }
    sleep(seconds(2)).await;
    let before = bench.lane.0.lock().unwrap().starts.values().map(Vec::len).sum::<usize>();
    advance(Duration::ZERO).await;
    sleep(seconds(10)).await;
    let after = bench.lane.0.lock().unwrap().starts.values().map(Vec::len).sum::<usize>();
    assert!((99_000..=101_000).contains(&(after - before)), "{}", after - before);
    assert_eq!(bench.metrics.skipped_rounds.get(), 0);
    assert_eq!(bench.board.totals().count(Health::Healthy), 100);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_named_twice_is_one_and_leaves_as_one() {
    let bench = Bench::new();
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.endpoints.push(wanted.endpoints[0].clone());
    for _ in 0..2 {
        bench.engine.upsert(wanted.clone()).await;
        bench.engine.settle().await;
        assert_eq!(bench.view("web").endpoints.len(), 1);
    }
    bench.engine.remove(ObjectKey::new("shop", "web")).await;
    bench.engine.settle().await;
    let hits = bench.lane.hits("a");
    sleep(seconds(5)).await;
    assert_eq!(bench.lane.hits("a"), hits);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_no_transition_for_a_composite_that_comes_before_its_members() {
    let bench = Bench::new();
    let mut composite = desired(&check("all", vec![member("m", "web")]));
    composite.prior = Some(Prior { endpoints: vec![], ..prior(seconds(60), EndpointState::Healthy, Health::Healthy) });
    let mut single = desired(&check("web", vec![target("a")]));
    single.prior = Some(prior(seconds(60), EndpointState::Healthy, Health::Healthy));
    bench.engine.upsert(composite).await;
    sleep(seconds(2)).await;
    assert!(bench.board.is_empty(), "nothing is published before everything is there");
    bench.engine.upsert(single).await;
    bench.engine.settle().await;
    let view = bench.view("all");
    assert_eq!((view.health, view.transitions), (Health::Healthy, [0; 4]));
}

#[tokio::test(start_paused = true)]
async fn a_probe_edited_while_we_were_away_marks_the_verdict() {
    let bench = Bench::new();
    let mut wanted = desired(&check("web", vec![target("a")]));
    wanted.prior =
        Some(Prior { observed_generation: Some(0), ..prior(seconds(60), EndpointState::Healthy, Health::Healthy) });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.health("web").0, Health::Healthy);
    assert!(bench.view("web").endpoints[0].message.contains("before the probe was changed"));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_was_suspended_over_a_restart_is_not_believed_when_probing_resumes() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Hang);
    let running = check("web", vec![target("a")]);
    let suspended = Check { suspend: true, ..running.clone() };
    let mut wanted = desired(&suspended);
    let prior =
        Prior { reason: HealthReason::Suspended, ..prior(seconds(60), EndpointState::Healthy, Health::Unknown) };
    wanted.prior = Some(prior);
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    assert_eq!(bench.state("web", 0), EndpointState::Healthy, "a restart alone changes no row");
    bench.run(&running).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
}

#[tokio::test(start_paused = true)]
async fn an_initial_state_ends_where_nothing_can_be_looked_at() {
    let bench = Bench::new();
    bench.lane.say("a", Answer::Bad(Reason::SecretMissing));
    let check = Check { initial_state: InitialState::Healthy, ..check("web", vec![target("a")]) };
    bench.run(&check).await;
    sleep(seconds(20)).await;
    assert_eq!(bench.health("web").0, Health::Healthy, "as declared, for as long as a verdict would be believed");
    sleep(seconds(15)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::ProbeError));
}

fn row(name: &str, state: EndpointState) -> PriorEndpoint {
    let since = Timestamp::from_second(1_000_000_000).unwrap();
    PriorEndpoint {
        target: name.into(),
        label: format!("{name}:80"),
        state,
        since,
        reason: None,
        message: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_a_stale_check_stale() {
    let bench = Bench::new();
    bench.lane.say("b", Answer::Bad(Reason::NoDescriptors));
    let mut wanted = desired(&check("web", vec![target("a"), target("b")]));
    wanted.prior = Some(Prior {
        reason: HealthReason::Stale,
        unknown: 1,
        endpoints: vec![row("a", EndpointState::Healthy), row("b", EndpointState::Unknown)],
        ..prior(seconds(60), EndpointState::Healthy, Health::Unknown)
    });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(60)).await;
    assert_eq!(bench.health("web"), (Health::Unknown, HealthReason::Stale));
    assert_eq!(bench.view("web").transitions, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_check_with_more_rows_than_the_status_holds_is_no_transition() {
    let bench = Bench::new();
    let names: Vec<String> = (0..250).map(|n| format!("t{n}")).collect();
    for name in &names[..101] {
        bench.lane.say(name, Answer::Bad(Reason::ConnectionRefused));
    }
    let mut wide = check("wide", names.iter().map(|name| target(name)).collect());
    wide.min_healthy = MinHealthy::Percent(50);
    let mut wanted = desired(&wide);
    wanted.prior = Some(Prior {
        reason: HealthReason::MinimumMet,
        endpoints: names[..100].iter().map(|name| row(name, EndpointState::Unhealthy)).collect(),
        ..prior(seconds(60), EndpointState::Healthy, Health::Degraded)
    });
    bench.engine.upsert(wanted).await;
    bench.engine.settle().await;
    sleep(seconds(10)).await;
    assert_eq!(bench.health("wide"), (Health::Degraded, HealthReason::MinimumMet));
    assert_eq!(bench.view("wide").transitions, [0; 4]);
    assert_eq!(bench.view("wide").counts.summary(), "149/250");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_nothing_can_decide_is_not_left_out_of_a_composite() {
    let bench = Bench::new();
    bench.run(&check("web", vec![target("a")])).await;
    bench.run(&check("all", vec![member("web", "web")])).await;
    sleep(seconds(2)).await;
    assert_eq!(bench.health("all").0, Health::Healthy);
    let empty = Desired { endpoints: vec![], ..desired(&check("empty", vec![target("none")])) };
    bench.engine.upsert(empty).await;
    bench.run(&check("all", vec![member("web", "web"), member("empty", "empty")])).await;
    assert_eq!(bench.health("empty"), (Health::Unknown, HealthReason::NoTargets));
    assert_eq!(bench.health("all").0, Health::Unknown);
}

#[tokio::test(start_paused = true)]
async fn replacing_the_only_sick_target_is_no_recovery_before_it_was_probed() {
    let bench = Bench::new();
    bench.lane.say("db", Answer::Bad(Reason::ConnectionRefused));
    bench.lane.say("new", Answer::Hang);
    let optional = Target { optional: true, ..target("dr") };
    bench.run(&check("db", vec![target("db"), optional.clone()])).await;
    sleep(seconds(5)).await;
    assert_eq!(bench.health("db").0, Health::Unhealthy);
    bench.run(&check("db", vec![target("new"), optional])).await;
    assert_eq!(bench.health("db"), (Health::Unknown, HealthReason::Pending));
}

//! `POST /v1/healthchecks/{namespace}/{name}/probe`, with the engine behind it and a lane that answers as told.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use healthcheck_operator::{
    check::{Attempt, Kind, ObjectKey, Outcome, ProbeKind, Reason, Report},
    engine::{Board, Engine},
    on_demand::{OnDemand, Question},
    probe::Lane,
    server::{Access, AccessRequest, Authorizer, Decision},
    telemetry::Metrics,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Fixture, LONG, answer, config, engine};

/// What each target answers, by name, once it is let go; and all that was asked.
#[derive(Clone)]
pub struct Told {
    pub asked: Arc<Mutex<Vec<Attempt>>>,
    pub asking: Arc<AtomicUsize>,
    pub free: Arc<watch::Sender<bool>>,
    /// Every target is sick.
    pub sick: Arc<AtomicBool>,
    /// Every answer counts for nothing.
    pub neutral: Arc<AtomicBool>,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            asked: Arc::default(),
            asking: Arc::default(),
            free: Arc::new(watch::Sender::new(true)),
            sick: Arc::default(),
            neutral: Arc::default(),
        }
    }
}

impl Told {
    pub async fn has_asked(&self, times: usize) {
        tokio::time::timeout(LONG, async {
            while self.asking.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("asked in time");
    }
}

impl Lane for Told {
    async fn attempt(&self, attempt: Attempt) -> Report {
        let outcome = match &*attempt.target {
            _ if self.sick.load(Ordering::SeqCst) => {
                Outcome::from_reason(Reason::ConnectionRefused, "connection refused")
            }
            _ if self.neutral.load(Ordering::SeqCst) => {
                Outcome::Neutral { message: "got '404', which counts for nothing".to_owned() }
            }
            "sick" => Outcome::from_reason(Reason::UnexpectedStatus, "unexpected status code; got '202', want '200'"),
            "blind" => Outcome::from_reason(Reason::NoDescriptors, "no file descriptor left"),
            _ => Outcome::Success,
        };
        self.asked.lock().expect("no panic").push(attempt);
        self.asking.fetch_add(1, Ordering::SeqCst);
        let mut free = self.free.subscribe();
        let _ = free.wait_for(|free| *free).await;
        Report::new(outcome, Duration::from_millis(2))
    }
}

pub struct Bench {
    pub fixture: Fixture,
    pub board: Arc<Board>,
    pub engine: Engine,
    pub on_demand: OnDemand,
    pub told: Told,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Bench {
    /// An engine that runs `specs`, which are suspended: whatever is asked was asked for.
    pub async fn new(access: Access, specs: &[(&str, Value)]) -> Self {
        Self::with(access, specs, json!({"suspend": true})).await
    }

    /// The same with `more` in every spec.
    pub async fn with(access: Access, specs: &[(&str, Value)], more: Value) -> Self {
        let (board, told, stop) = (Arc::new(Board::new()), Told::default(), CancellationToken::new());
        let specs = specs.iter().map(|(name, spec)| {
            let mut spec = spec.clone();
            for (name, value) in more.as_object().expect("a map") {
                spec[name] = value.clone();
            }
            (*name, spec)
        });
        let engine = engine(told.clone(), &board, &Metrics::default(), specs, &stop).await;
        let on_demand = OnDemand::new();
        on_demand.begin(Arc::new(told.clone()), engine.clone());
        let fixture = Fixture::asking(board.clone(), &config(&[]), access, Some(on_demand.clone())).await;
        Self { fixture, board, engine, on_demand, told, stop }
    }

    pub async fn post(&self, name: &str, body: &str) -> Answer {
        let url = format!("http://{}/v1/healthchecks/shop/{name}/probe", self.fixture.admin);
        answer(self.fixture.http.post(url).bearer_auth("good").body(body.to_owned())).await
    }

    async fn asks(&self, name: &str, body: &str) -> (u16, Value) {
        let answer = self.post(name, body).await;
        (answer.code, serde_json::from_str(&answer.body).expect("JSON"))
    }
}

/// Each at a path of its own: answers are given by the name of the target, and what is the same would be asked once.
fn http(check: &str, name: &str) -> Value {
    let path = format!("/{check}/{name}");
    json!({"name": name, "host": "10.0.0.1", "port": 80, "probe": {"http": {"path": path}}})
}

pub fn specs() -> Vec<(&'static str, Value)> {
    vec![
        ("well", json!({"targets": [http("well", "fine")]})),
        ("sick", json!({"targets": [http("sick", "sick")]})),
        ("blind", json!({"targets": [http("blind", "blind")]})),
        ("both", json!({"minHealthy": 1, "targets": [http("both", "fine"), http("both", "sick")]})),
        ("tcp", json!({"targets": [{"name": "db", "host": "10.0.0.2", "port": 5432}]})),
        ("other", json!({"targets": [{"name": "w", "healthCheck": {"name": "well"}}]})),
    ]
}

#[tokio::test]
async fn a_probe_is_made_now_and_answered_in_two_words_that_are_always_there() {
    let bench = Bench::new(Access::Open, &specs()).await;
    for (name, healthy, error) in [
        ("well", json!(true), ""),
        ("sick", json!(false), "unexpected status code; got '202', want '200'"),
        ("blind", Value::Null, "no file descriptor left"),
        ("both", json!(true), ""),
    ] {
        let (code, said) = bench.asks(name, "").await;
        assert_eq!((code, &said["healthy"], &said["error"]), (200, &healthy, &json!(error)), "{said}");
    }
    let (_, both) = bench.asks("both", "{}").await;
    let rows: Vec<_> = both["endpoints"].as_array().expect("rows").iter().map(|row| row["healthy"].clone()).collect();
    assert_eq!(rows, [json!(true), json!(false)]);
    assert_eq!(both["endpoints"][1]["endpoint"], "10.0.0.1:80");
    assert_eq!(both["endpoints"][1]["reason"], "UnexpectedStatus");
    let (_, one) = bench.asks("both", r#"{"target": "sick"}"#).await;
    assert_eq!((one["healthy"].clone(), one["endpoints"].as_array().map(Vec::len)), (json!(false), Some(1)));
    // It moved nothing.
    for view in bench.board.all() {
        assert!(
            view.endpoints
                .iter()
                .all(|row| row.kind == Kind::HealthCheck || (!row.measured && row.live.latency().is_none()))
        );
    }
}

#[tokio::test]
async fn what_is_asked_instead_is_asked_of_declared_places_alone() {
    let bench = Bench::new(Access::Open, &specs()).await;
    let body = r#"{"method": "HEAD", "path": "/deep?x=1", "expectedStatus": "204-206", "timeout": "7s"}"#;
    assert_eq!(bench.asks("well", body).await.0, 200);
    let asked = bench.told.asked.lock().expect("no panic").pop().expect("asked");
    let ProbeKind::Http(probe) = &asked.probe.kind else { panic!("{asked:?}") };
    assert_eq!((&*probe.method, &*probe.path, asked.probe.timeout), ("HEAD", "/deep?x=1", Duration::from_secs(7)));
    assert_eq!(probe.expected_statuses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["204-206"]);
    assert_eq!(asked.dial.expect("a place").host.with_port(None), "10.0.0.1");
    for (name, body, code, says) in [
        ("nothing", "", 404, "no HealthCheck \"shop/nothing\""),
        ("well", r#"{"target": "x"}"#, 404, "has no target \"x\""),
        ("well", r#"{"path": "@evil.example/"}"#, 400, "path: must begin with '/'"),
        ("well", r#"{"host": "evil.example"}"#, 400, "host: no such field"),
        ("well", "nonsense", 400, "not JSON"),
        ("tcp", r#"{"path": "/"}"#, 400, "path: target 'db' is asked by tcp, not by http"),
        ("tcp", r#"{"expectedStatus": 200}"#, 400, "expectedStatus: target 'db'"),
        ("other", "", 400, "has no endpoint that could be probed"),
    ] {
        let (status, said) = bench.asks(name, body).await;
        assert_eq!(status, code, "{name} {body}: {said}");
        assert!(said["error"].as_str().expect("text").contains(says), "{name} {body}: {said}");
    }
    let url = format!("http://{}/v1/healthchecks/shop/well/probe", bench.fixture.admin);
    assert_eq!(answer(bench.fixture.http.get(&url)).await.code, 405);
    assert_eq!(answer(bench.fixture.http.post(&url).body(vec![b' '; 17 * 1024])).await.code, 413);
    assert_eq!(bench.told.asked.lock().expect("no panic").len(), 0, "none of these was asked");
}

#[tokio::test]
async fn who_asks_the_same_at_the_same_time_shares_one_run() {
    let bench = Bench::new(Access::Open, &specs()).await;
    bench.told.free.send_replace(false);
    let release = async {
        bench.told.has_asked(1).await;
        bench.told.free.send_replace(true);
    };
    // All of them take part at their first turn, which is before the one run can end.
    let asking = (0..20).map(|_| bench.on_demand.probe(ObjectKey::new("shop", "sick"), Question::default()));
    let (answers, ()) = tokio::join!(join_all(asking), release);
    assert!(answers.iter().all(|(answer, _)| answer.as_ref().is_ok_and(|answer| answer.healthy == Some(false))));
    assert_eq!(answers.iter().filter(|(_, joined)| *joined).count(), 19);
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), 1);
    bench.asks("sick", "").await;
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), 2, "one that ended is not remembered");
}

#[tokio::test]
async fn more_than_may_run_at_once_are_told_to_come_back() {
    let bench = Bench::new(Access::Open, &specs()).await;
    bench.told.free.send_replace(false);
    let bodies: Vec<_> = (1..=40).map(|seconds| format!(r#"{{"timeout": "{seconds}s"}}"#)).collect();
    let release = async {
        bench.told.has_asked(32).await;
        let refused = bench.post("well", r#"{"timeout": "50s"}"#).await;
        assert_eq!((refused.code, &refused.headers["retry-after"]), (429, &"1".parse().expect("a value")));
        bench.told.free.send_replace(true);
    };
    let (answers, ()) = tokio::join!(join_all(bodies.iter().map(|body| bench.asks("well", body))), release);
    assert!(answers.iter().filter(|(code, _)| *code == 200).count() >= 32);
    assert!(answers.iter().all(|(code, _)| matches!(code, 200 | 429)));
    assert_eq!(bench.asks("well", "").await.0, 200);
}

#[tokio::test]
async fn a_replica_that_does_not_probe_says_so() {
    let bench = Bench::new(Access::Open, &specs()).await;
    bench.on_demand.end();
    let (code, said) = bench.asks("well", "").await;
    assert!(code == 503 && said["error"].as_str().expect("text").contains("at the moment"), "{code} {said}");
    bench.on_demand.begin(Arc::new(bench.told.clone()), bench.engine.clone());
    assert_eq!(bench.asks("well", "").await.0, 200);
    bench.engine.remove(ObjectKey::new("shop", "well")).await;
    bench.engine.settle().await;
    assert_eq!(bench.asks("well", "").await.0, 404);
}

#[derive(Debug, Default)]
pub struct Asked(pub Mutex<Vec<String>>);

impl Authorizer for Asked {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        let AccessRequest { verb, namespace, name, subresource } = request;
        self.0.lock().expect("no panic").push(format!("{verb} {namespace}/{name}/{subresource}"));
        let allowed = token == "good" && name == "well";
        Box::pin(async move {
            if allowed { Decision::Allowed(Some("alice".into())) } else { Decision::Forbidden("may not".into()) }
        })
    }
}

#[tokio::test]
async fn the_cluster_is_asked_whether_somebody_may_probe_this_check() {
    let asked = Arc::new(Asked::default());
    let bench = Bench::new(Access::Cluster(asked.clone()), &specs()).await;
    assert_eq!(bench.asks("well", "").await.0, 200);
    assert_eq!(bench.asks("sick", "nonsense").await.0, 403, "who may not is told nothing of the question");
    let nobody =
        answer(bench.fixture.http.post(format!("http://{}/v1/healthchecks/shop/well/probe", bench.fixture.admin)));
    assert_eq!(nobody.await.code, 401);
    assert_eq!(*asked.0.lock().expect("no panic"), ["create shop/well/probe", "create shop/sick/probe"]);
    assert_eq!(bench.told.asking.load(Ordering::SeqCst), 1);
}

//! `POST /v1/observations` and its access logs, with the engine behind them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use healthcheck_operator::{
    check::{Attempt, ObjectKey, Outcome, Report},
    engine::{Board, Engine},
    passive::Intake,
    probe::Lane,
    server::{Access, AccessRequest, Authorizer, Decision},
    telemetry::Source,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::support::{Answer, Fixture, LONG, answer, config, engine};

/// Whose probes all go well: what becomes unhealthy is by reports.
#[derive(Clone)]
struct Well;

impl Lane for Well {
    async fn attempt(&self, _: Attempt) -> Report {
        Report::new(Outcome::Success, Duration::from_millis(1))
    }
}

pub struct Bench {
    pub fixture: Fixture,
    engine: Engine,
    pub intake: Intake,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Two endpoints each, of checks that listen, that do not, and that rest.
fn specs() -> [(&'static str, Value); 3] {
    let targets = json!([
        {"name": "a", "host": "10.0.0.1", "port": 80}, {"name": "b", "host": "10.0.0.2", "port": 80},
        {"name": "c", "host": "fd00::1", "port": 80, "optional": true},
    ]);
    [
        // Probed so seldom that no probe gets in between.
        ("web", json!({"interval": "1h", "passive": {}, "minHealthy": 1, "targets": targets})),
        ("deaf", json!({"interval": "1h", "targets": targets})),
        ("resting", json!({"suspend": true, "passive": {}, "targets": targets})),
    ]
}

impl Bench {
    async fn new(access: Access) -> Self {
        Self::listening(access, &[]).await
    }

    pub async fn listening(access: Access, flags: &[&str]) -> Self {
        let (board, stop) = (Arc::new(Board::new()), CancellationToken::new());
        let metrics = healthcheck_operator::telemetry::Metrics::default();
        let engine = engine(Well, &board, &metrics, specs(), &stop).await;
        board.set_synced();
        let intake = Intake::new(metrics.observations.clone());
        intake.begin(engine.clone());
        let fixture = Fixture::reporting(board.clone(), &config(flags), access, None, intake.clone(), metrics).await;
        let bench = Self { fixture, engine, intake, stop };
        bench.wait("web", "a", "Healthy").await;
        bench.wait("web", "b", "Healthy").await;
        bench
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1/observations{path}", self.fixture.admin)
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        answer(self.fixture.http.post(self.url(path)).bearer_auth("good").body(body.into())).await
    }

    async fn report(&self, batch: Value) -> (u16, Value) {
        let answer = self.post("", batch.to_string()).await;
        (answer.code, serde_json::from_str(&answer.body).expect("JSON"))
    }

    async fn log(&self, scope: &str, batch: Value) -> (u16, Value) {
        let answer = self.post(&format!("/access-log?scope={scope}"), batch.to_string()).await;
        (answer.code, serde_json::from_str(&answer.body).expect("JSON"))
    }

    async fn declares(&self, path: &str, size: usize) -> String {
        self.declared(&format!("/v1/observations{path}"), size).await
    }

    /// The begin of the answer to who says how much is to come, and waits.
    async fn declared(&self, path: &str, size: usize) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.fixture.admin).await.expect("a connection");
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut start = [0; 12];
        let read = stream.read_exact(&mut start);
        tokio::time::timeout(LONG, read).await.expect("in time").expect("an answer");
        String::from_utf8_lossy(&start).into_owned()
    }

    /// The row of a target in `/v1`.
    async fn row(&self, check: &str, target: &str) -> Value {
        let url = format!("http://{}/v1/healthchecks/shop/{check}", self.fixture.admin);
        let body = answer(self.fixture.http.get(url).bearer_auth("good")).await.body;
        let whole: Value = serde_json::from_str(&body).expect("JSON");
        let rows = whole["endpoints"].as_array().unwrap_or_else(|| panic!("{whole}"));
        rows.iter().find(|row| row["target"] == target).unwrap_or_else(|| panic!("{whole}")).clone()
    }

    pub async fn wait(&self, check: &str, target: &str, state: &str) {
        tokio::time::timeout(LONG, async {
            while self.row(check, target).await["state"] != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{check}/{target} never was {state}"));
    }

    async fn metric(&self, line: &str) -> Option<u64> {
        let body = answer(self.fixture.http.get(format!("http://{}/metrics", self.fixture.admin))).await.body;
        let value = body.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
        value.map(|value| value.parse().expect("a number"))
    }

    pub async fn observed(&self, source: &str, result: &str) -> u64 {
        let line = "healthcheck_operator_observations_total";
        self.metric(&format!("{line}{{source=\"{source}\",result=\"{result}\"}}")).await.unwrap_or(0)
    }

    pub async fn batches(&self, source: &str, result: &str) -> u64 {
        let line = "healthcheck_operator_observation_batches_total";
        self.metric(&format!("{line}{{source=\"{source}\",result=\"{result}\"}}")).await.unwrap_or(0)
    }
}

fn seen(check: &str, endpoint: &str, outcome: Value, count: u32) -> Value {
    json!({"healthCheck": check, "endpoint": endpoint, "outcome": outcome, "count": count})
}

#[tokio::test]
async fn failures_in_traffic_eject_at_their_limits_and_successes_let_back() {
    let bench = Bench::new(Access::Open).await;
    for (outcome, reason, word, limit) in [
        (json!({"status": 503}), "PassiveUnexpectedStatus", "http", 5),
        (json!("connectFailure"), "PassiveConnectFailure", "connect", 2),
        (json!({"timeout": true}), "PassiveTimeout", "timeout", 7),
    ] {
        let (code, said) = bench.report(json!([seen("shop/web", "10.0.0.1:80", outcome.clone(), limit - 1)])).await;
        assert_eq!((code, &said["accepted"]), (200, &json!(limit - 1)), "{said}");
        let row = bench.row("web", "a").await;
        assert_eq!((&row["state"], &row["passiveCounters"][word]), (&json!("Healthy"), &json!(limit - 1)), "{row}");
        // By the name of the target this time. What is neutral stands between, and changes nothing.
        let last = json!([seen("shop/web", "a", json!({"status": 404}), 100), seen("shop/web", "a", outcome, 1)]);
        assert_eq!(bench.report(last).await.0, 200);
        bench.wait("web", "a", "Unhealthy").await;
        let row = bench.row("web", "a").await;
        let message = row["message"].as_str().expect("text");
        assert_eq!(row["reason"], reason);
        assert!(message.starts_with(&format!("{limit} failures in a row seen in traffic, the last one")), "{message}");
        assert_eq!(bench.row("web", "b").await["state"], "Healthy");
        let health =
            answer(bench.fixture.http.get(format!("http://{}/healthz/shop/web/a", bench.fixture.public))).await;
        assert_eq!(health.code, 503, "{}", health.body);

        bench.report(json!([seen("shop/web", "a", json!({"status": 200}), 4)])).await;
        let row = bench.row("web", "a").await;
        assert_eq!((&row["state"], &row["passiveCounters"]["success"]), (&json!("Unhealthy"), &json!(4)), "{row}");
        bench.report(json!([seen("shop/web", "a", json!({"status": 200}), 1)])).await;
        bench.wait("web", "a", "Healthy").await;
    }
}

#[tokio::test]
async fn what_is_not_taken_is_told_and_counted() {
    let bench = Bench::new(Access::Open).await;
    let good = || json!({"status": 200});
    let (code, said) = bench
        .report(json!([
            seen("shop/web", "10.0.0.1:80", good(), 3),
            seen("shop/none", "10.0.0.1:80", good(), 1),
            seen("shop/web", "10.0.0.9:80", good(), 2),
            seen("shop/web", "nobody", good(), 1),
            seen("shop/deaf", "10.0.0.1:80", good(), 4),
            seen("shop/resting", "10.0.0.1:80", good(), 5),
            seen("shop/web", "[fd00:0::1]:80", good(), 6),
            seen("shop/web", "[::ffff:10.0.0.2]:80", good(), 7),
        ]))
        .await;
    assert_eq!(code, 200);
    let counted = ["accepted", "unknownCheck", "unknownEndpoint", "notPassive", "suspended", "late", "unattributed"];
    assert_eq!(counted.map(|word| said[word].as_u64().expect("a number")), [16, 1, 3, 4, 5, 0, 0], "{said}");
    let refused = |index: u64, reason: &str| json!({"index": index, "reason": reason});
    let expected = [
        refused(1, "unknownCheck"),
        refused(2, "unknownEndpoint"),
        refused(3, "unknownEndpoint"),
        refused(4, "notPassive"),
        refused(5, "suspended"),
    ];
    assert_eq!(said["refused"], json!(expected));
    let results = ["accepted", "unknown_check", "unknown_endpoint", "not_passive", "suspended", "late"];
    for (result, number) in results.into_iter().zip([16, 1, 3, 4, 5, 0]) {
        assert_eq!(bench.observed("api", result).await, number, "{result}");
    }
    assert_eq!(bench.batches("api", "accepted").await, 1);
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_refused_whole_with_the_place_of_the_fault() {
    let bench = Bench::new(Access::Open).await;
    let wrong =
        json!([seen("shop/web", "a", json!("connectFailure"), 2), seen("shop/web", "a", json!({"status": 1}), 1)]);
    let (code, said) = bench.report(wrong).await;
    let error = said["error"].as_str().expect("text");
    assert!(code == 400 && error.starts_with("[1].outcome: status must be from 100 to 599"), "{code} {said}");
    assert_eq!(bench.row("web", "a").await["passiveCounters"], Value::Null, "nothing of it was taken");
    let one = seen("shop/web", "a", json!({"status": 200}), 1);
    let (code, said) = bench.report(Value::Array(vec![one.clone(); 10_001])).await;
    assert!(code == 413 && said["error"].as_str().expect("text").contains("10000"), "{code} {said}");
    assert_eq!(bench.report(Value::Array(vec![one; 10_000])).await.1["accepted"], 10_000);
    let many: Vec<_> = (0..257).map(|at| seen(&format!("shop/c{at}"), "a", json!("timeout"), 1)).collect();
    assert_eq!(bench.report(json!(many)).await.0, 413);
    for (path, size) in [("", 1024 * 1024 + 1), ("", 5 * 1024 * 1024), ("/access-log?scope=*", 4 * 1024 * 1024 + 1)] {
        assert_eq!(bench.declares(path, size).await, "HTTP/1.1 413", "{path} {size}");
    }
    assert_eq!(bench.batches("api", "malformed").await, 1);
    assert_eq!(bench.batches("api", "too_large").await, 3, "the largest is not even looked at");
    // Elsewhere bodies stay small.
    let status = bench.declared("/v1/healthchecks/shop/web/probe", 65 * 1024).await;
    assert_eq!(status, "HTTP/1.1 413");
    assert_eq!(answer(bench.fixture.http.get(bench.url(""))).await.code, 405);
}

#[tokio::test]
async fn who_comes_when_all_seats_are_taken_is_told_to_come_back() {
    let bench = Bench::new(Access::Open).await;
    let seats: Vec<_> = std::iter::from_fn(|| bench.intake.seat(Source::Api).ok()).collect();
    assert_eq!(seats.len(), 16);
    let one = json!([seen("shop/web", "a", json!({"status": 200}), 1)]);
    for path in ["", "/access-log?scope=*"] {
        let refused = bench.post(path, one.to_string()).await;
        assert_eq!((refused.code, &refused.headers["retry-after"]), (429, &"1".parse().expect("a value")), "{path}");
    }
    drop(seats);
    assert_eq!(bench.report(one).await.0, 200);
    assert_eq!((bench.batches("api", "busy").await, bench.batches("http_logger", "busy").await), (1, 1));
}

/// Whoever sends half a batch and then nothing gives its seat back.
#[tokio::test]
async fn a_batch_that_does_not_come_holds_its_seat_for_a_while_only() {
    let bench = Bench::new(Access::Open).await;
    let mut slow = tokio::net::TcpStream::connect(bench.fixture.admin).await.expect("a connection");
    slow.write_all(b"POST /v1/observations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[").await.expect("sent");
    let mut answer = String::new();
    let mut start = [0; 64];
    let got = tokio::time::timeout(LONG, slow.read(&mut start)).await.expect("in time").expect("an answer");
    answer.push_str(&String::from_utf8_lossy(&start[..got]));
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(std::iter::from_fn(|| bench.intake.seat(Source::Api).ok().map(std::mem::forget)).count(), 16);
}

#[tokio::test]
async fn a_replica_that_does_not_judge_says_so_and_counts() {
    let bench = Bench::new(Access::Open).await;
    bench.intake.end();
    let one = json!([seen("shop/web", "a", json!({"status": 200}), 1)]);
    let refused = bench.post("", one.to_string()).await;
    assert_eq!((refused.code, &refused.headers["retry-after"]), (503, &"1".parse().expect("a value")));
    assert!(refused.body.contains("does not judge"), "{}", refused.body);
    assert_eq!(bench.batches("api", "not_judging").await, 1);
    bench.intake.begin(bench.engine.clone());
    assert_eq!(bench.report(one.clone()).await.0, 200);
    bench.engine.remove(ObjectKey::new("shop", "web")).await;
    assert_eq!(bench.report(one).await.1["unknownCheck"], 1);
}

/// Milliseconds since 1970.
fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("after 1970")
}

fn line(status: u16, upstream: &str) -> Value {
    json!({
        "request": {"method": "GET", "uri": "/", "headers": {"host": "shop.example"}, "size": 81},
        "response": {"status": status, "headers": {"server": "APISIX/3.11.0"}, "size": 118},
        "upstream": upstream, "route_id": "1", "service_id": "", "client_ip": "10.9.8.7",
        "latency": 3.0, "upstream_latency": 1, "apisix_latency": 2.0, "start_time": now(),
    })
}

#[tokio::test]
async fn an_access_log_is_judged_line_by_line_in_its_scope() {
    let bench = Bench::new(Access::Open).await;
    let failing = vec![line(503, "10.0.0.1:80"); 5];
    for scope in ["other/*", "shop/deaf"] {
        let (code, said) = bench.log(scope, json!(failing)).await;
        assert_eq!((code, &said["accepted"], &said["unknownEndpoint"]), (200, &json!(0), &json!(5)), "{scope}: {said}");
    }
    let (code, said) = bench.log("shop/*", json!(failing)).await;
    assert_eq!((code, &said["accepted"]), (200, &json!(5)), "{said}");
    bench.wait("web", "a", "Unhealthy").await;
    // The first of two that were asked gave no answer; the second did.
    let retried = vec![line(200, "10.0.0.2:80, [fd00::1]:80"); 2];
    let (_, said) = bench.log("shop/web", json!([retried, vec![line(404, "unix:/run/x")]].concat())).await;
    assert_eq!((&said["accepted"], &said["unattributed"]), (&json!(4), &json!(1)), "{said}");
    bench.wait("web", "b", "Unhealthy").await;
    assert_eq!(bench.row("web", "b").await["reason"], "PassiveConnectFailure");
    assert_eq!(bench.row("web", "c").await["passiveCounters"]["success"], 2);
    assert_eq!(
        (bench.observed("http_logger", "accepted").await, bench.observed("http_logger", "unattributed").await),
        (9, 1)
    );
    for (path, part) in [
        ("/access-log", "say whose endpoints"),
        ("/access-log?scope=shop", "NAMESPACE/NAME"),
        ("/access-log?scope=*&scope=*", "nothing else"),
        ("/access-log?check=shop/web", "nothing else"),
        ("/access-log?scope=*", "expected"),
    ] {
        let refused = bench.post(path, "[nonsense").await;
        assert!(refused.code == 400 && refused.body.contains(part), "{path}: {} {}", refused.code, refused.body);
    }
}

#[derive(Debug, Default)]
struct Asked(Mutex<Vec<String>>);

impl Authorizer for Asked {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        let AccessRequest { verb, namespace, name, subresource } = request;
        self.0.lock().expect("no panic").push(format!("{verb} {namespace}/{name}/{subresource}"));
        let reads = subresource.is_empty();
        if token == "unknown" {
            return Box::pin(async { Decision::Unauthenticated });
        }
        let allowed = token == "good" && (reads || namespace == "own" || (namespace, name) == ("shop", "web"));
        Box::pin(async move {
            if allowed { Decision::Allowed(Some("gateway".into())) } else { Decision::Forbidden("may not".into()) }
        })
    }
}

#[tokio::test]
async fn the_cluster_is_asked_whether_somebody_may_report_about_these_checks() {
    let asked = Arc::new(Asked::default());
    let bench = Bench::new(Access::Cluster(asked.clone())).await;
    let took = || std::mem::take(&mut *asked.0.lock().expect("no panic"));
    took();
    let one = |check| seen(check, "a", json!({"status": 200}), 1);
    assert_eq!(bench.report(json!([one("own/x"), one("own/y"), one("shop/web")])).await.0, 200);
    // First of all whether there is anybody, before a place is taken up.
    assert_eq!(took(), ["create //report", "create own//report", "create shop//report", "create shop/web/report"]);
    // One that may not be spoken of, and nothing is taken.
    let (code, said) = bench.report(json!([one("shop/web"), one("shop/deaf")])).await;
    assert!(code == 403 && said["error"] == "may not", "{code} {said}");
    assert_eq!(bench.observed("api", "dropped").await, 2);
    took();
    assert_eq!(bench.log("shop/web", json!([])).await.0, 200);
    assert_eq!((bench.log("shop/*", json!([])).await.0, bench.log("*", json!([])).await.0), (403, 403));
    assert_eq!(took(), ["create shop/web/report", "create shop//report", "create //report"]);
    let nobody = answer(bench.fixture.http.post(bench.url("")).body("[]")).await;
    assert_eq!(nobody.code, 401);
    assert_eq!(took(), Vec::<String>::new());
    // Who says nothing needs only to be somebody: a heartbeat is no lost grant.
    let as_bad = async |batch: Value| {
        answer(bench.fixture.http.post(bench.url("")).bearer_auth("bad").body(batch.to_string())).await.code
    };
    assert_eq!((as_bad(json!([])).await, as_bad(json!([one("shop/web")])).await), (200, 403));
    assert_eq!((bench.batches("api", "refused").await, bench.batches("http_logger", "refused").await), (3, 2));
    // Who is nobody takes up no place while the body is waited for.
    let mut slow = tokio::net::TcpStream::connect(bench.fixture.admin).await.expect("a connection");
    let head =
        "POST /v1/observations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer unknown\r\nContent-Length: 100\r\n\r\n[";
    slow.write_all(head.as_bytes()).await.expect("sent");
    let mut start = [0; 64];
    let got = tokio::time::timeout(LONG, slow.read(&mut start)).await.expect("in time").expect("an answer");
    assert!(start[..got].starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&start[..got]));
}

/// A minute ago nobody knew these endpoints, and they have been found well since.
#[tokio::test]
async fn what_is_told_too_late_is_counted_as_that() {
    let bench = Bench::new(Access::Open).await;
    let mut failed = seen("shop/web", "a", json!({"status": 503}), 5);
    failed["time"] = json!((jiff::Timestamp::now() - Duration::from_secs(60)).to_string());
    let (code, said) = bench.report(json!([failed])).await;
    assert_eq!((code, &said["late"], &said["accepted"]), (200, &json!(5), &json!(0)), "{said}");
    assert_eq!(said["refused"], json!([{"index": 0, "reason": "late"}]));
    let mut old = line(503, "10.0.0.1:80");
    old["start_time"] = json!(now() - 60_000);
    let (code, said) = bench.log("shop/*", json!(vec![old; 7])).await;
    assert_eq!((code, &said["late"], &said["accepted"]), (200, &json!(7), &json!(0)), "{said}");
    assert_eq!((bench.observed("api", "late").await, bench.observed("http_logger", "late").await), (5, 7));
    assert_eq!(bench.row("web", "a").await["state"], "Healthy");
    // Of just now, and as often.
    failed = seen("shop/web", "a", json!({"status": 503}), 5);
    failed["time"] = json!(jiff::Timestamp::now().to_string());
    assert_eq!(bench.report(json!([failed])).await.1["accepted"], 5);
    bench.wait("web", "a", "Unhealthy").await;
}

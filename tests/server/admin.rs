//! `/livez`, `/readyz` and `/v1/healthchecks`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use healthcheck_operator::{
    check::{EndpointState, Health, Reason},
    engine::{Board, EndpointView, Outage},
    server::{Access, AccessRequest, Authorizer, Decision, TokenFile},
};
use serde_json::{Value, json};

use crate::support::{Answer, Check, Fixture, answer, at, config, endpoint, fill, remark};

#[tokio::test]
async fn target_health_never_touches_liveness_or_readiness() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for path in ["/livez", "/readyz", "/readyz/board"] {
        let answer = fixture.admin(path).await;
        assert_eq!((answer.code, answer.body.as_str()), (200, "ok\n"), "{path}");
    }
}

#[tokio::test]
async fn readiness_lists_its_conditions_and_our_loops() {
    let fixture = Fixture::start().await;
    fixture.readiness.ready("sync");
    fixture.readiness.not_ready("crd", "waiting for the HealthCheck CRD; install the chart's CRDs");
    fixture.beats.beat("engine", Duration::from_secs(60));
    let answer = fixture.admin("/readyz").await;
    let expected = "\
[+]board ok
[-]crd failed: waiting for the HealthCheck CRD; install the chart's CRDs
[+]loop-engine ok
[+]sync ok
readyz check failed
";
    assert_eq!((answer.code, answer.body.as_str()), (503, expected));
    assert_eq!(fixture.admin("/readyz/crd").await.code, 503);
    assert_eq!(fixture.admin("/readyz/sync/").await.code, 200);
    assert_eq!(fixture.admin("/readyz/other").await.code, 404);
    assert_eq!(fixture.admin("/livez").await.code, 200);

    fixture.readiness.ready("crd");
    let answer = fixture.admin("/readyz?verbose").await;
    assert_eq!(answer.code, 200);
    assert!(answer.body.ends_with("[+]sync ok\nreadyz check passed\n"), "{}", answer.body);

    fixture.beats.beat("engine", Duration::ZERO);
    let answer = fixture.admin("/readyz/loop-engine").await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.starts_with("loop-engine failed: no sign of life since 20"), "{}", answer.body);
    let answer = fixture.admin("/livez").await;
    assert_eq!(answer.code, 500);
    assert!(answer.body.starts_with("[-]loop-engine failed: no sign of life since 20"), "{}", answer.body);
    fixture.beats.end("engine");
    assert_eq!(fixture.admin("/livez").await.code, 200);
    fixture.readiness.forget("crd");
    assert_eq!(fixture.admin("/readyz").await.body, "ok\n");
}

#[tokio::test]
async fn readiness_waits_for_the_board() {
    let fixture = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    assert_eq!(fixture.admin("/readyz").await.code, 503);
    assert_eq!(fixture.admin("/livez").await.code, 200);
    fixture.board.set_synced();
    assert_eq!(fixture.admin("/readyz").await.code, 200);
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.content_type, "application/json", "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

#[tokio::test]
async fn a_check_is_told_whole() {
    let fixture = Fixture::start().await;
    Check::new("shop", "payments", Health::Unhealthy)
        .message("psp: no answer in 1s (Connect)")
        .labels(&[("tier", "web")])
        .endpoint(EndpointView {
            optional: true,
            named: true,
            ..remark(endpoint("psp", "10.0.2.1:443", EndpointState::MostlyUnhealthy), |remarks| {
                remarks.reason = Some(Reason::TimeoutConnect);
                remarks.message = "no answer in 1s (Connect)".into();
                remarks.certificate_expires = Some(1_800_000_000);
                remarks.addresses = Some([endpoint("psp", "10.0.2.7:443", EndpointState::Healthy)].into());
            })
        })
        .edit(|view| {
            view.outages = Arc::new([Outage {
                start: at("2026-11-01T10:00:00Z"),
                end: None,
                reason: "TimeoutConnect".into(),
                targets: vec!["psp".into()],
            }]);
        })
        .put(&fixture.board);
    let answer = fixture.admin("/v1/healthchecks/shop/payments").await;
    assert_eq!(answer.code, 200);
    let address = json!({
        "target": "psp", "endpoint": "10.0.2.7:443", "kind": "http", "optional": false,
        "state": "Healthy", "stale": false, "since": "2026-11-01T10:00:00Z",
        "reason": null, "message": "", "latencySeconds": 0.0015, "certificateExpires": null,
        "counters": {"success": 1, "connect": 2, "http": 3, "timeout": 4},
    });
    let expected = json!({
        "current": true,
        "namespace": "shop", "name": "payments", "uid": "uid-payments", "generation": 7,
        "labels": {"tier": "web"}, "suspended": false,
        "health": "Unhealthy", "reason": "TargetsUnhealthy", "message": "psp: no answer in 1s (Connect)",
        "since": "2026-11-01T10:00:00Z", "summary": "0/1",
        "counts": {"total": 1, "healthy": 0, "unhealthy": 1, "unknown": 0},
        "probes": "http", "intervalSeconds": 2.5, "effectiveIntervalSeconds": 2.5, "lastProbe": "2026-11-01T10:00:09Z",
        "transitions": {"Healthy": 3, "Degraded": 0, "Unhealthy": 2, "Unknown": 1},
        "endpoints": [{
            "target": "psp", "endpoint": "10.0.2.1:443", "kind": "http", "optional": true,
            "state": "MostlyUnhealthy", "stale": false, "since": "2026-11-01T10:00:00Z",
            "reason": "TimeoutConnect", "message": "no answer in 1s (Connect)", "latencySeconds": 0.0015,
            "certificateExpires": "2027-01-15T08:00:00Z",
            "counters": {"success": 1, "connect": 2, "http": 3, "timeout": 4},
            "addresses": [address],
        }],
        "outages": [{"start": "2026-11-01T10:00:00Z", "end": null, "reason": "TimeoutConnect", "targets": ["psp"]}],
    });
    assert_eq!(json_of(&answer), expected);
    assert_eq!(
        json_of(&fixture.admin("/v1/healthchecks/shop/nothing").await),
        json!({"error": "no HealthCheck \"shop/nothing\""})
    );
    assert_eq!(fixture.admin("/v1/healthchecks/shop/nothing").await.code, 404);
}

#[tokio::test]
async fn lists_are_by_namespace_and_selector() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let names = |answer: Answer| -> Vec<String> {
        let items = json_of(&answer)["items"].as_array().expect("a list").clone();
        items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
    };
    let all = ["ledger", "checkout", "legacy", "orders", "payments", "search"];
    assert_eq!(names(fixture.admin("/v1/healthchecks").await), all);
    assert_eq!(names(fixture.admin("/v1/healthchecks/bank/").await), ["ledger"]);
    assert_eq!(names(fixture.admin("/v1/healthchecks/shop?labelSelector=tier%3Dweb").await), ["checkout", "payments"]);
    assert!(names(fixture.admin("/v1/healthchecks/nowhere").await).is_empty());
    let bad = fixture.admin("/v1/healthchecks?labelSelector=a=b=c").await;
    assert_eq!(bad.code, 400);
    assert!(json_of(&bad)["error"].as_str().is_some_and(|error| error.starts_with("labelSelector: ")));
    let lost = fixture.admin("/v2").await;
    assert_eq!(lost.code, 404);
    assert!(json_of(&lost)["error"].is_string());
}

#[tokio::test]
async fn a_browser_gets_a_page_with_everything() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let request = fixture.http.get(format!("http://{}/v1/healthchecks", fixture.admin));
    let page = answer(request.header("accept", "text/html")).await;
    assert_eq!((page.code, page.content_type.as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("10.0.2.1:443") && page.body.contains("shop/payments"), "{}", page.body);
    let empty = answer(
        fixture.http.get(format!("http://{}/v1/healthchecks/nowhere", fixture.admin)).header("accept", "text/html"),
    )
    .await;
    assert_eq!((empty.code, empty.content_type.as_str()), (200, "text/html; charset=utf-8"));
}

#[tokio::test]
async fn a_board_that_is_not_current_is_told_as_such() {
    let fixture = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    fill(&fixture.board);
    let list = json_of(&fixture.admin("/v1/healthchecks").await);
    assert_eq!(list["current"], false);
    for item in list["items"].as_array().expect("a list") {
        assert_eq!(item["health"], "Unknown", "{item}");
        for endpoint in item["endpoints"].as_array().expect("a list") {
            assert_eq!((&endpoint["state"], &endpoint["stale"]), (&json!("Unknown"), &json!(true)));
        }
    }
    assert_eq!(fixture.admin("/v1/healthchecks/shop/nothing").await.code, 503);
}

#[tokio::test]
async fn a_token_file_guards_the_api_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    assert!(TokenFile::open(&path).is_err(), "there is no file");
    std::fs::write(&path, " \n").expect("a file");
    assert!(TokenFile::open(&path).is_err(), "there is no token in it");
    std::fs::write(&path, "first\n").expect("a file");
    let token = TokenFile::open(&path).expect("a token");
    let fixture = Fixture::with(&config(&[]), Access::Token(token)).await;
    let with = async |header: &str| {
        let request = fixture.http.get(format!("http://{}/v1/healthchecks", fixture.admin));
        answer(request.header("authorization", header)).await
    };
    let none = fixture.admin("/v1/healthchecks").await;
    assert_eq!(none.code, 401);
    assert!(none.headers["www-authenticate"].to_str().expect("ASCII").starts_with("Bearer"));
    assert!(json_of(&none)["error"].is_string());
    assert_eq!(with("Bearer first").await.code, 200);
    for wrong in ["Bearer firs", "Bearer first2", "Basic first", "first", "Bearer "] {
        assert_eq!(with(wrong).await.code, 401, "{wrong}");
    }
    for open in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(fixture.admin(open).await.code, 200, "{open}");
    }
    assert_eq!(fixture.admin("/v1/healthchecks?labelSelector=a=b=c").await.code, 401, "a stranger learns nothing");

    std::fs::write(&path, "second").expect("a file");
    assert_eq!(with("Bearer first").await.code, 401);
    assert_eq!(with("bearer second").await.code, 200);
    std::fs::remove_file(&path).expect("removed");
    let gone = with("Bearer second").await;
    assert_eq!(gone.code, 503, "nobody can tell");
    assert!(!gone.body.contains(path.to_str().expect("UTF-8")), "{}", gone.body);
}

/// Answers by the token, and remembers what it was asked.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<String>>);

impl Authorizer for Asked {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        let AccessRequest { verb, namespace, name, subresource } = request;
        self.0.lock().expect("no panic").push(format!("{verb} {namespace:?} {name:?} {subresource:?}"));
        Box::pin(async move {
            match token {
                "good" => Decision::Allowed(None),
                "weak" => Decision::Forbidden("user weak may not list healthchecks".into()),
                "lost" => Decision::Unavailable("the API server cannot be reached".into()),
                _ => Decision::Unauthenticated,
            }
        })
    }
}

#[tokio::test]
async fn the_cluster_is_asked_for_exactly_what_is_read() {
    let asked = Arc::new(Asked::default());
    let fixture = Fixture::with(&config(&[]), Access::Cluster(asked.clone())).await;
    fill(&fixture.board);
    let get = async |path: &str, token: &str| {
        let request = fixture.http.get(format!("http://{}{path}", fixture.admin));
        answer(request.bearer_auth(token)).await
    };
    for (path, token, code) in [
        ("/v1/healthchecks", "good", 200),
        ("/v1/healthchecks/shop", "good", 200),
        ("/v1/healthchecks/shop/orders", "good", 200),
        ("/v1/healthchecks", "weak", 403),
        ("/v1/healthchecks", "lost", 503),
        ("/v1/healthchecks", "none", 401),
        ("/v1/healthchecks/shop/nothing", "weak", 403),
    ] {
        assert_eq!(get(path, token).await.code, code, "{path} {token}");
    }
    assert_eq!(
        json_of(&get("/v1/healthchecks", "weak").await),
        json!({"error": "user weak may not list healthchecks"})
    );
    let seen = asked.0.lock().expect("no panic").clone();
    assert_eq!(seen[..3], [r#"list "" "" """#, r#"list "shop" "" """#, r#"get "shop" "orders" """#]);
    assert_eq!(fixture.admin("/v1/healthchecks").await.code, 401, "no token is not even asked about");
    assert_eq!(asked.0.lock().expect("no panic").len(), seen.len());
}

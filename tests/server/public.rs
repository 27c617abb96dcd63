//! The `/healthz` family, `/` and `/__health`.

use std::{sync::Arc, time::Duration};

use healthcheck_operator::{
    check::{EndpointState, Health},
    engine::Board,
    server::Access,
};

use crate::support::{Check, Fixture, config, endpoint, fill};

#[tokio::test]
async fn the_aggregate_is_the_worst_word_and_its_code() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.get("/healthz").await.code, 200, "an empty set is Healthy");
    for (health, code, word) in [
        (Health::Healthy, 200, "Healthy"),
        (Health::Degraded, 200, "Degraded"),
        (Health::Unknown, 503, "Unknown"),
        (Health::Unhealthy, 503, "Unhealthy"),
    ] {
        Check::new("shop", &word.to_lowercase(), health).put(&fixture.board);
        let answer = fixture.get("/healthz").await;
        assert_eq!(answer.code, code, "{word}");
        assert!(answer.body.starts_with(&format!("{word};")), "{}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.content_type, "text/plain; charset=utf-8");
    }
    let body = fixture.get("/healthz").await.body;
    assert_eq!(body, "Unhealthy; 1 healthy, 1 degraded, 1 unhealthy, 1 unknown\n");
}

#[tokio::test]
async fn a_path_narrows_and_an_unknown_one_is_not_found() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for (path, code, begins) in [
        ("/healthz/bank", 200, "Healthy; 1 healthy"),
        ("/healthz/shop/", 503, "Unhealthy; 1 healthy, 1 degraded, 1 unhealthy, 1 unknown, 1 suspended"),
        ("/healthz/shop/checkout", 200, "Healthy\n"),
        ("/healthz/shop/orders", 200, "Degraded; pg-b: connection refused"),
        ("/healthz/shop/payments/", 503, "Unhealthy; psp: unexpected status code"),
        ("/healthz/shop/search", 503, "Unknown; Pending"),
        ("/healthz/shop/legacy", 200, "Healthy; Suspended"),
        ("/healthz/shop/checkout/web", 200, "Healthy\n"),
        ("/healthz/shop/orders/pg-a", 200, "Healthy\n"),
        ("/healthz/shop/orders/pg-b", 503, "Unhealthy; unexpected status code"),
        ("/healthz/shop/search/es", 503, "Unknown"),
        ("/healthz/nowhere", 404, "no HealthCheck in namespace"),
        ("/healthz/shop/nothing", 404, "no HealthCheck \"shop/nothing\""),
        ("/healthz/shop/orders/pg-c", 404, "no target \"pg-c\""),
        ("/healthz/shop/orders/pg-a/more", 404, "nothing is served"),
        ("/health", 404, "nothing is served"),
        ("/metrics", 404, "nothing is served"),
    ] {
        let answer = fixture.get(path).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
        assert!(answer.body.starts_with(begins), "{path}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store", "{path}");
    }
}

#[tokio::test]
async fn a_label_selector_and_exclusions_choose_the_set() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for (query, code, word) in [
        ("?labelSelector=tier%3Dweb", 503, "Unhealthy"),
        ("?labelSelector=tier=web,team", 200, "Healthy"),
        ("?labelSelector=tier+in+(db)", 200, "Degraded"),
        ("?labelSelector=tier&labelSelector=!team&exclude=shop/payments", 200, "Degraded"),
        (
            "?labelSelector=tier&exclude=shop/payments&exclude=shop/search&exclude=shop/orders&exclude=shop/checkout",
            200,
            "Healthy",
        ),
        ("?labelSelector=tier=none", 404, "no HealthCheck asked about matches labelSelector\n"),
        ("?exclude=shop/payments", 503, "Unknown"),
        ("?exclude=shop/payments&exclude=shop/search", 200, "Degraded"),
        ("?exclude=shop/payments&exclude=shop/search&exclude=shop/orders", 200, "Healthy"),
        ("?cachebuster=1", 503, "Unhealthy"),
    ] {
        let answer = fixture.get(&format!("/healthz{query}")).await;
        assert_eq!((answer.code, answer.body.split(';').next()), (code, Some(word)), "{query}");
    }
    let narrowed = fixture.get("/healthz/shop?labelSelector=tier=db&verbose").await;
    assert!(narrowed.body.contains("shop/orders") && !narrowed.body.contains("checkout"), "{}", narrowed.body);
}

#[tokio::test]
async fn what_is_excluded_and_is_not_there_is_told() {
    let fixture = Fixture::start().await;
    Check::new("shop", "web", Health::Healthy).put(&fixture.board);
    let answer = fixture.get("/healthz?exclude=shop/wep&exclude=shop/app").await;
    let ends = "0 unknown; exclude: no HealthCheck \"shop/app\"; exclude: no HealthCheck \"shop/wep\"\n";
    assert!(answer.code == 200 && answer.body.ends_with(ends), "{}", answer.body);
}

#[tokio::test]
async fn a_declared_target_without_an_endpoint_is_not_absent() {
    let fixture = Fixture::start().await;
    let check = || Check::new("shop", "pool", Health::Unknown).target("pods");
    check().endpoint(endpoint("db", "10.0.0.1:5432", EndpointState::Healthy)).put(&fixture.board);
    let answer = fixture.get("/healthz/shop/pool/pods").await;
    assert_eq!((answer.code, answer.body.as_str()), (503, "Unknown; no endpoints\n"));
    let answer = fixture.get("/healthz/shop/pool/pods?format=json").await;
    let document: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(document["checks"]["pods:responseTime"][0]["output"], "no endpoints", "{document}");
    assert_eq!(fixture.get("/healthz/shop/pool/db").await.code, 200);
    assert_eq!(fixture.get("/healthz/shop/pool/pod").await.code, 404);
    // A standby knows that what its status has no room for is healthy.
    check().edit(|view| view.unlisted = Health::Healthy).put(&fixture.board);
    assert_eq!(fixture.get("/healthz/shop/pool/pods").await.body, "Healthy\n");
    // Of what cannot be read nobody knows which targets it has.
    Check::new("shop", "pool", Health::Unknown).put(&fixture.board);
    assert_eq!(fixture.get("/healthz/shop/pool/any").await.code, 503);
    check().suspended().put(&fixture.board);
    assert_eq!(fixture.get("/healthz/shop/pool/pods").await.code, 200);
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let fixture = Fixture::start().await;
    for (query, part) in [
        ("labelSelector=a%3Db%3Dc", "labelSelector: found '='"),
        ("labelSelector=-a", "labelSelector: '-a' is no label key"),
        ("exclude=shop", "exclude: \"shop\" names no HealthCheck"),
        ("exclude=a/b/c", "exclude: "),
        ("exclude=/b", "exclude: "),
        ("format=xml", "format: \"xml\" is unknown"),
        ("labelselector=a", "labelselector: no such parameter; did you mean labelSelector?"),
        ("label-selector=a", "label-selector: no such parameter; did you mean labelSelector?"),
        ("Exclude=a/b", "Exclude: no such parameter; did you mean exclude?"),
    ] {
        let answer = fixture.get(&format!("/healthz?{query}")).await;
        assert_eq!(answer.code, 400, "{query}");
        assert!(answer.body.starts_with(part), "{query}: {}", answer.body);
    }
    assert_eq!(fixture.get("/healthz?fresh=false&labelSelector=&exclude=a/b").await.code, 200);
}

#[tokio::test]
async fn verbose_has_one_line_a_check() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let answer = fixture.get("/healthz?verbose").await;
    let expected = "\
Unhealthy; 2 healthy, 1 degraded, 1 unhealthy, 1 unknown, 1 suspended
[+]bank/ledger ok (1/1)
[+]shop/checkout ok (2/2)
[~]shop/legacy suspended
[+]shop/orders degraded (1/2): pg-b: connection refused
[-]shop/payments failed: psp: unexpected status code; got '503', want '200-399'
[?]shop/search unknown: Pending
";
    assert_eq!(answer.body, expected);
    assert_eq!(answer.code, 503);
    let target = fixture.get("/healthz/shop/checkout/web?verbose").await;
    assert_eq!(target.body, "Healthy\n[+]web Healthy\n[+]web MostlyHealthy\n");
    let off = fixture.get("/healthz/shop/checkout?verbose=false").await;
    assert_eq!(off.body, "Healthy\n");
}

#[tokio::test]
async fn health_json_follows_the_draft() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let answer = fixture.accepting("/healthz/shop/orders", "application/health+json").await;
    assert_eq!((answer.code, answer.content_type.as_str()), (200, "application/health+json"));
    let expected = concat!(
        r#"{"status":"warn","output":"pg-b: connection refused","checks":{"#,
        r#""pg-a:responseTime":[{"componentType":"component","observedValue":1.5,"observedUnit":"ms","status":"pass","#,
        r#""time":"2026-11-01T10:00:09Z"}],"#,
        r#""pg-b:responseTime":[{"componentType":"component","observedValue":1.5,"observedUnit":"ms","status":"fail","#,
        r#""time":"2026-11-01T10:00:09Z","output":"unexpected status code; got '503', want '200-399'"}]}}"#,
        "\n"
    );
    assert_eq!(answer.body, expected);

    let all: serde_json::Value = serde_json::from_str(&fixture.get("/healthz?format=json").await.body).expect("JSON");
    assert_eq!(all["status"], "fail");
    assert_eq!(all["notes"], serde_json::json!(["shop/legacy is suspended"]));
    let keys: Vec<_> = all["checks"].as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "bank/ledger/tcp:responseTime",
            "shop/checkout/web:responseTime",
            "shop/orders/pg-a:responseTime",
            "shop/orders/pg-b:responseTime",
            "shop/payments/psp:responseTime",
            "shop/search/es:responseTime",
        ]
    );
    assert_eq!(all["checks"]["shop/checkout/web:responseTime"].as_array().map(Vec::len), Some(2));
    assert_eq!(all["checks"]["shop/search/es:responseTime"][0]["status"], "fail", "Unknown is fail");
}

#[tokio::test]
async fn a_check_without_endpoints_leaves_a_trace_in_health_json() {
    let fixture = Fixture::start().await;
    Check::new("shop", "empty", Health::Unknown).message("no targets").put(&fixture.board);
    let body: serde_json::Value = serde_json::from_str(&fixture.get("/healthz?format=json").await.body).expect("JSON");
    assert_eq!(
        body["checks"]["shop/empty:responseTime"],
        serde_json::json!([{"componentType": "component", "status": "fail", "output": "no targets"}])
    );
}

#[tokio::test]
async fn codes_and_bodies_are_the_users() {
    let flags = [
        "--healthy-code",
        "204",
        "--degraded-code",
        "429",
        "--unhealthy-code",
        "500",
        "--unknown-code",
        "299",
        "--healthy-body",
        "UP",
        "--unhealthy-body",
        "DOWN",
    ];
    let fixture = Fixture::with(&config(&flags), Access::Open).await;
    fill(&fixture.board);
    for (path, code, body) in [
        ("/healthz/bank", 204, ""),
        ("/healthz/shop/orders", 429, "DOWN"),
        ("/healthz/shop/payments", 500, "DOWN"),
        ("/healthz/shop/search", 299, "UP"),
    ] {
        let answer = fixture.get(path).await;
        assert_eq!((answer.code, answer.body.as_str()), (code, body), "{path}");
    }
    // What is asked for by name is still told.
    assert!(fixture.get("/healthz/shop?verbose").await.body.starts_with("Unhealthy;"));
}

#[tokio::test]
async fn details_decide_what_strangers_learn() {
    let fixture = Fixture::with(&config(&["--details", "none"]), Access::Open).await;
    fill(&fixture.board);
    fixture.beats.beat("engine", Duration::from_secs(60));
    for path in ["/healthz", "/healthz?verbose", "/healthz/shop/payments?verbose"] {
        assert_eq!(fixture.get(path).await.body, "Unhealthy\n", "{path}");
    }
    assert_eq!(fixture.get("/healthz?format=json").await.body, "{\"status\":\"fail\"}\n");
    let page = fixture.get("/").await.body;
    assert!(page.contains("Unhealthy") && !page.contains("payments"), "{page}");
    let own = fixture.get("/__health").await.body;
    assert!(own.contains("engine") && !own.contains("shop"), "{own}");

    let summary = Fixture::start().await;
    fill(&summary.board);
    for path in ["/healthz?verbose", "/healthz/shop/payments?format=json", "/", "/healthz/shop/orders?format=html"] {
        let body = summary.get(path).await.body;
        assert!(body.contains("unexpected status code") || body.contains("connection refused"), "{path}: {body}");
        assert!(!body.contains("10.0."), "{path} tells an address: {body}");
    }

    let full = Fixture::with(&config(&["--details", "full"]), Access::Open).await;
    fill(&full.board);
    for path in ["/healthz?verbose", "/healthz?format=json", "/"] {
        assert!(full.get(path).await.body.contains("10.0.2.1:443"), "{path}");
    }
    let verbose = full.get("/healthz/shop/orders?verbose").await.body;
    let expected = "\
Degraded; pg-b: connection refused
[+]shop/orders degraded (1/2): pg-b: connection refused
    [+]pg-a 10.0.1.1:5432 Healthy since 2026-11-01T10:00:00Z
    [-]pg-b 10.0.1.2:5432 Unhealthy since 2026-11-01T10:00:00Z: unexpected status code; got '503', want '200-399'
";
    assert_eq!(verbose, expected);
}

#[tokio::test]
async fn a_board_that_is_not_current_reads_as_unknown_everywhere() {
    let board = Arc::new(Board::new());
    let fixture = Fixture::on(board, &config(&[]), Access::Open).await;
    // Before the first sync nothing is known, not even what there is not.
    for path in ["/healthz", "/", "/healthz/shop", "/healthz/shop/nothing", "/healthz/shop/nothing/web"] {
        let answer = fixture.get(path).await;
        assert_eq!(answer.code, 503, "{path}");
        assert!(answer.body.contains("Unknown") && answer.body.contains("not current"), "{path}: {}", answer.body);
    }
    Check::new("shop", "checkout", Health::Healthy)
        .endpoint(endpoint("web", "10.0.0.1:80", EndpointState::Healthy))
        .put(&fixture.board);
    let verbose = fixture.get("/healthz/shop?verbose").await;
    assert!(verbose.body.starts_with("Unknown; the board is not current"), "{}", verbose.body);
    assert!(verbose.body.ends_with("[?]shop/checkout unknown: not current\n"), "{}", verbose.body);
    let json: serde_json::Value = serde_json::from_str(&fixture.get("/healthz?format=json").await.body).expect("JSON");
    assert_eq!(
        (&json["status"], &json["checks"]["shop/checkout/web:responseTime"][0]["status"]),
        (&"fail".into(), &"fail".into())
    );

    fixture.board.set_synced();
    assert_eq!(fixture.get("/healthz").await.code, 200);
    assert_eq!(fixture.get("/healthz/shop/nothing").await.code, 404);
}

#[tokio::test]
async fn own_health_is_ok_whatever_the_checks_say() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    fixture.beats.beat("engine", Duration::from_secs(60));
    fixture.beats.beat("status-writer", Duration::ZERO);
    Check::new("shop", "stuck", Health::Unknown)
        .endpoint(healthcheck_operator::engine::EndpointView {
            stale: true,
            ..endpoint("web", "10.0.9.1:80", EndpointState::Unknown)
        })
        .put(&fixture.board);
    Check::new("shop", "new", Health::Unknown).edit(|view| view.live = Arc::default()).put(&fixture.board);
    let answer = fixture.get("/__health/").await;
    assert_eq!((answer.code, answer.content_type.as_str()), (200, "application/json"));
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(body["status"], "ok");
    for time in [&body["now"], &body["agents"]["engine"], &body["stopped"]["status-writer"]] {
        time.as_str().expect("a string").parse::<jiff::Timestamp>().expect("RFC 3339");
    }
    assert_eq!(body["agents"]["shop/payments"], "2026-11-01T10:00:09Z");
    assert!(
        body["agents"]["shop/new"].is_null() && body["agents"].as_object().expect("a map").contains_key("shop/new")
    );
    assert_eq!(body["stopped"]["shop/stuck"], "2026-11-01T10:00:09Z");
    for dead in ["status-writer", "shop/stuck", "shop/legacy"] {
        assert!(body["agents"].get(dead).is_none(), "{dead} is listed as alive");
    }
}

#[tokio::test]
async fn own_health_moves_and_goes_by_flag() {
    let moved = Fixture::with(&config(&["--health-path", "/alive/"]), Access::Open).await;
    assert_eq!(moved.get("/alive").await.code, 200);
    assert_eq!(moved.get("/__health").await.code, 404);
    let gone = Fixture::with(&config(&["--disable-health"]), Access::Open).await;
    assert_eq!(gone.get("/__health").await.code, 404);
    assert_eq!(gone.get("/healthz").await.code, 200, "nothing else stalls");
}

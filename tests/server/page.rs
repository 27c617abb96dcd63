//! The status page: who gets it, what it says, and what it may do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use healthcheck_operator::{
    check::{EndpointState, Health, ObjectKey, Reason},
    engine::{Board, EndpointView, Outage},
    server::Access,
};

use crate::support::{Answer, Check, Fixture, answer, at, config, endpoint, fill, raw, remark};

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
/// What Firefox and Chromium send.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn full() -> Fixture {
    Fixture::with(&config(&["--details", "full"]), Access::Open).await
}

async fn admin_page(fixture: &Fixture, path: &str) -> Answer {
    answer(fixture.http.get(format!("http://{}{path}", fixture.admin)).header("accept", BROWSER)).await
}

/// Where each of `parts` is; fails unless they come in this order.
fn in_order(page: &str, parts: &[&str]) {
    let mut from = 0;
    for part in parts {
        let found = page[from..].find(part).unwrap_or_else(|| panic!("no {part:?} after byte {from} of {page}"));
        from += found + part.len();
    }
}

/// What of the page is neither style nor script.
fn content(page: &str) -> &str {
    let (_, body) = page.split_once("<body>").expect("a body");
    body.split_once("<script>").expect("one script, at the end").0
}

#[tokio::test]
async fn only_who_asks_for_html_gets_the_page_on_the_health_routes() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for path in ["/healthz", "/healthz/shop", "/healthz/shop/payments", "/healthz/shop/payments/psp"] {
        for accept in [BROWSER, "text/html", "text/html;q=0.9, text/plain;q=0.5", "TEXT/HTML"] {
            let page = fixture.accepting(path, accept).await;
            assert_eq!((page.code, page.content_type.as_str()), (503, HTML), "{path} {accept}");
        }
        // curl, load balancers, and who takes whatever comes.
        for accept in
            ["*/*", "", "text/*", "image/*", "text/plain, text/html;q=0.9", "text/html;q=0", "*/*, text/html;q=0"]
        {
            let line = fixture.accepting(path, accept).await;
            assert_eq!((line.code, line.content_type.as_str()), (503, TEXT), "{path} {accept}");
        }
        let json = fixture.accepting(path, "application/health+json").await;
        assert_eq!(json.content_type, "application/health+json");
    }
    assert_eq!(fixture.get("/healthz?format=html").await.content_type, HTML);
    assert_eq!(fixture.accepting("/healthz?format=text", BROWSER).await.content_type, TEXT);
}

#[tokio::test]
async fn the_root_is_the_page_with_the_code_of_the_aggregate_and_haproxys_options_is_a_line() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for accept in [BROWSER, "*/*"] {
        let page = fixture.accepting("/", accept).await;
        assert_eq!((page.code, page.content_type.as_str()), (503, HTML));
    }
    assert_eq!(fixture.accepting("/", "application/json").await.content_type, "application/health+json");
    let options = raw(fixture.public, "OPTIONS / HTTP/1.0\r\n\r\n").await;
    assert!(options.starts_with("HTTP/1.0 503 ") && options.contains(TEXT), "{options}");
    let head =
        raw(fixture.public, "HEAD / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nConnection: close\r\n\r\n").await;
    assert!(head.contains(HTML) && head.ends_with("\r\n\r\n"), "{head}");

    fixture.board.publish(vec![], &[ObjectKey::new("shop", "payments"), ObjectKey::new("shop", "search")]);
    assert_eq!(fixture.get("/").await.code, 200);
}

#[tokio::test]
async fn nothing_runs_or_loads_but_what_the_policy_names() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    for page in [fixture.get("/").await, admin_page(&fixture, "/v1/healthchecks").await] {
        let policy = page.headers["content-security-policy"].to_str().expect("ASCII");
        for part in [
            "default-src 'none';",
            "style-src 'sha256-",
            "script-src 'sha256-",
            "connect-src 'self';",
            "form-action 'self';",
            "base-uri 'none';",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        assert_eq!(page.headers["cache-control"], "no-store");
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert_eq!(page.body.matches("<script").count(), 1);
        assert_eq!(page.body.matches("<style").count(), 1);
        let body = page.body.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http://", "https://", "url(", "@import", " src=", "style=", "onclick", "onerror"] {
            assert!(!body.contains(outside), "{outside} is in {body}");
        }
        // Without a script the browser asks again by itself.
        assert!(page.body.contains("<noscript><meta http-equiv=\"refresh\""));
    }
}

#[tokio::test]
async fn markup_from_outside_is_text_wherever_it_is_shown() {
    let evil = "<script>alert('x')</script>\"><img src=x>";
    let told = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&gt;&lt;img src=x&gt;";
    let fixture = full().await;
    Check::new("shop", evil, Health::Unhealthy)
        .message(evil)
        .endpoint(remark(endpoint(evil, evil, EndpointState::Unhealthy), |remarks| {
            let address = endpoint("a", evil, EndpointState::Unhealthy);
            remarks.message = evil.into();
            remarks.addresses = Some([remark(address, |remarks| remarks.message = evil.into())].into());
        }))
        .edit(|view| {
            let outage = Outage { start: view.since, end: None, reason: evil.into(), targets: vec![evil.into()] };
            view.outages = Arc::new([outage]);
            view.probes = evil.into();
        })
        .put(&fixture.board);
    Check::new("shop", &format!("fine{evil}"), Health::Healthy).message(evil).put(&fixture.board);
    let query = "%3Cscript%3Ealert('x')%3C/script%3E%22%3E%3Cimg+src=x%3E";
    let exclude = format!("exclude={query}/x").replace("%3C/script", "%3Cscript");
    for path in ["/".to_owned(), format!("/?q={query}"), format!("/?{exclude}")] {
        let page = fixture.get(&path).await.body;
        let content = content(&page);
        assert!(!content.contains("<script") && !content.contains("<img"), "{path}: {content}");
    }
    let page = fixture.get("/").await.body;
    assert!(page.matches(told).count() >= 8, "{}", content(&page));
    assert!(
        page.contains("href=\"/healthz/shop/%3Cscript%3Ealert%28%27x%27%29%3C%2Fscript%3E%22%3E%3Cimg%20src%3Dx%3E\"")
    );
    let lost = fixture.get("/healthz/%3Cb%3E?format=html").await;
    assert_eq!((lost.code, lost.content_type.as_str()), (404, TEXT));
}

#[tokio::test]
async fn what_is_down_comes_first_and_what_has_been_down_longest_before_the_rest() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let since = |text: &'static str| move |view: &mut healthcheck_operator::engine::CheckView| view.since = at(text);
    Check::new("a", "follows", Health::Unhealthy).edit(since("2026-11-01T10:00:05Z")).put(&fixture.board);
    Check::new("z", "cause", Health::Unhealthy).edit(since("2026-11-01T09:59:59Z")).put(&fixture.board);
    let page = fixture.get("/").await.body;
    in_order(
        &page,
        &[
            "<h1 class=\"word\">Unhealthy</h1>",
            "<b>3</b> unhealthy",
            "<b>1</b> unknown",
            "<b>1</b> degraded",
            "<b>2</b> healthy",
            "<b>1</b> suspended",
            "<section id=\"Unhealthy\"",
            "z/</span>cause",
            "shop/</span>payments",
            "a/</span>follows",
            "<section id=\"Unknown\"",
            "shop/</span>search",
            "<section id=\"Degraded\"",
            "shop/</span>orders",
            "<details id=\"Healthy\"",
            "bank/</span>ledger",
            "shop/</span>checkout",
            "<details id=\"Suspended\"",
            "shop/</span>legacy",
        ],
    );
    assert!(page.contains("<title>Unhealthy: all health checks</title>"));
    assert!(page.contains("<time datetime=\"2026-11-01T09:59:59Z\">Nov 1, 09:59</time>"), "{page}");
}

#[tokio::test]
async fn a_row_says_which_target_is_how_since_when_and_why() {
    let fixture = Fixture::start().await;
    let address = |label: &str, state| endpoint("psp", label, state);
    Check::new("shop", "payments", Health::Unhealthy)
        .message("psp: no answer in 1s (Connect)")
        .endpoint(endpoint("good", "10.0.2.9:443", EndpointState::Healthy))
        .endpoint(EndpointView {
            optional: true,
            named: true,
            ..remark(endpoint("psp", "psp.example:443", EndpointState::Unhealthy), |remarks| {
                remarks.reason = Some(Reason::TimeoutConnect);
                remarks.message = "no answer in 1s (Connect)".into();
                let addresses = [
                    address("10.0.2.7:443", EndpointState::Healthy),
                    address("10.0.2.8:443", EndpointState::Unhealthy),
                ];
                remarks.addresses = Some(addresses.into());
            })
        })
        .edit(|view| {
            let of = |start, end: Option<&str>| Outage {
                start: at(start),
                end: end.map(at),
                reason: "TimeoutConnect".into(),
                targets: vec!["psp".into(), "good".into()],
            };
            view.outages =
                Arc::new([of("2026-11-01T10:00:00Z", None), of("2026-10-01T10:00:00Z", Some("2026-10-01T11:05:00Z"))]);
        })
        .put(&fixture.board);
    for path in ["/v1/healthchecks", "/v1/healthchecks/shop", "/v1/healthchecks/shop/payments"] {
        let page = admin_page(&fixture, path).await;
        assert_eq!((page.code, page.content_type.as_str()), (200, HTML), "{path}");
        in_order(
            &page.body,
            &[
                "1/2 healthy",
                "<td class=\"target\">psp <small>optional</small></td>",
                "<span class=\"word\">Unhealthy</span>",
                "psp.example:443",
                "since <time datetime=\"2026-11-01T10:00:00Z\">",
                "1.5 ms",
                "<code>TimeoutConnect</code> no answer in 1s (Connect)",
                // The worst of its addresses first.
                "10.0.2.8:443",
                "10.0.2.7:443",
                "<td class=\"target\">good</td>",
                "10.0.2.9:443",
                "Last outages",
                "<time datetime=\"2026-11-01T10:00:00Z\">",
                "so far",
                "<time datetime=\"2026-10-01T10:00:00Z\">",
                "<b>1h 05m</b>",
                "psp, good",
                "<code>TimeoutConnect</code>",
            ],
        );
    }
    let empty = admin_page(&fixture, "/v1/healthchecks/nowhere").await;
    assert_eq!((empty.code, empty.content_type.as_str()), (200, HTML));
    assert!(empty.body.contains("There is no health check here."));
    let narrow = fixture.get("/healthz/shop/payments/good?format=html").await;
    assert!(narrow.code == 200 && !narrow.body.contains(">psp"), "{}", narrow.body);
}

#[tokio::test]
async fn strangers_see_what_the_details_allow() {
    let none = Fixture::with(&config(&["--details", "none"]), Access::Open).await;
    fill(&none.board);
    for path in ["/", "/?q=payments", "/healthz/shop?format=html"] {
        let page = none.get(path).await;
        assert_eq!(page.code, 503);
        let text = content(&page.body);
        assert!(text.contains("Unhealthy"), "{text}");
        for hidden in ["payments", "psp", "since", "<b>", "search", "10.0."] {
            assert!(!text.contains(hidden), "{path} tells {hidden}: {text}");
        }
    }
    let summary = Fixture::start().await;
    fill(&summary.board);
    let page = summary.get("/").await.body;
    let text = content(&page);
    for shown in ["payments", "psp", "pg-b", "UnexpectedStatus", "2026-11-01T10:00:00Z"] {
        assert!(text.contains(shown), "{shown} is missing in {text}");
    }
    for hidden in ["10.0.", "1.5 ms", "Last outages", "tier"] {
        assert!(!text.contains(hidden), "the page tells {hidden}: {text}");
    }
    // What is hidden is not found either.
    assert!(content(&summary.get("/?q=10.0.2.1").await.body).contains("0 of 6 match"));
    assert!(content(&summary.get("/?q=tier%3Ddb").await.body).contains("0 of 6 match"));

    let full = full().await;
    fill(&full.board);
    let text = full.get("/").await.body;
    assert!(text.contains("10.0.2.1:443") && text.contains("1.5 ms"), "{text}");
    assert!(content(&full.get("/?q=10.0.2.1").await.body).contains("1 of 6 match"));
    assert!(content(&full.get("/?q=tier%3Ddb").await.body).contains("1 of 6 match"));
}

#[tokio::test]
async fn endpoints_that_look_the_same_to_strangers_are_one_row() {
    let fixture = Fixture::start().await;
    let many =
        |check: Check, at: u32| check.endpoint(endpoint("web", &format!("10.0.0.{at}:80"), EndpointState::Unhealthy));
    (0..200).fold(Check::new("shop", "web", Health::Unhealthy), many).put(&fixture.board);
    let page = fixture.get("/").await.body;
    assert!(page.contains("web <small>× 200</small>") && page.matches("class=\"target\"").count() == 1, "{page}");
    let page = admin_page(&fixture, "/v1/healthchecks").await.body;
    assert!(page.contains("and 195 more, 195 of them not healthy"), "{page}");
    let page = admin_page(&fixture, "/v1/healthchecks/shop/web").await.body;
    assert_eq!(page.matches("class=\"target\"").count(), 200);
}

#[tokio::test]
async fn a_search_is_a_form_that_needs_no_script() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let page = fixture.get("/?labelSelector=tier&exclude=shop/search&other=1").await.body;
    in_order(
        &page,
        &[
            "<form id=\"search\" role=\"search\" method=\"get\">",
            "<input type=\"hidden\" name=\"labelSelector\" value=\"tier\">",
            "<input type=\"hidden\" name=\"exclude\" value=\"shop/search\">",
            "<input type=\"search\" id=\"q\" name=\"q\" value=\"\"",
            "<button type=\"submit\">",
        ],
    );
    for (query, found, missing) in [
        ("payments", "</span>payments", "</span>orders"),
        ("PAYMENTS", "</span>payments", "</span>orders"),
        ("shop/ord", "</span>orders", "</span>payments"),
        ("pg-b", "</span>orders", "</span>payments"),
        ("unexpectedstatus+psp", "</span>payments", "</span>orders"),
        ("status+code", "</span>payments", "</span>ledger"),
        ("suspended", "</span>legacy", "</span>payments"),
        ("degraded", "</span>orders", "</span>payments"),
        ("no+such", "match “no such”", "</span>"),
    ] {
        let page = fixture.get(&format!("/?q={query}")).await;
        let text = content(&page.body);
        assert!(text.contains(found) && !text.contains(missing), "{query}: {text}");
        // What is searched for never makes the verdict better.
        assert_eq!(page.code, 503, "{query}");
        assert!(text.contains("<b>1</b> unhealthy"), "{query}: {text}");
    }
    let page = fixture.get("/?q=shop/O+").await.body;
    assert!(page.contains("value=\"shop/O\"") && page.contains("1 of 6 match “shop/O”"), "{page}");
    let long = fixture.get(&format!("/?q={}", "a".repeat(101))).await;
    assert!(long.code == 400 && long.body.starts_with("q: longer than 100"), "{}", long.body);
    assert_eq!(fixture.get(&format!("/?q={}", "a".repeat(100))).await.code, 503);
    // To who wants no page it means nothing.
    assert_eq!(fixture.get("/healthz?q=x").await.body, fixture.get("/healthz").await.body);
}

#[tokio::test]
async fn a_board_that_is_not_current_is_shown_as_what_was() {
    let fixture = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    let page = fixture.get("/").await;
    assert_eq!(page.code, 503);
    assert!(page.body.contains("<b>Not to be believed:</b> the board is not current"), "{}", page.body);
    fill(&fixture.board);
    let page = fixture.get("/").await;
    let text = content(&page.body);
    assert!(page.code == 503 && text.contains("<h1 class=\"word\">Unknown</h1>"), "{text}");
    assert!(text.contains("What is below was true once."));
    assert!(text.contains("last known: <b>Unhealthy</b>"), "{text}");
    assert!(text.contains("<b>5</b> unknown") && !text.contains("</b> healthy"), "{text}");
    for word in ["<section id=\"Unhealthy\"", "<details id=\"Healthy\"", "<span class=\"word\">Healthy"] {
        assert!(!text.contains(word), "{word} is claimed in {text}");
    }
    fixture.board.set_synced();
    assert!(!fixture.get("/").await.body.contains("Not to be believed"));
}

#[tokio::test]
async fn a_standby_says_that_it_is_one() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    assert!(!fixture.get("/").await.body.contains("on standby"));
    fixture.beats.beat(healthcheck_operator::telemetry::MIRROR, Duration::from_secs(30));
    assert!(fixture.get("/").await.body.contains("This replica is on standby"));
    assert!(admin_page(&fixture, "/v1/healthchecks").await.body.contains("This replica is on standby"));
    fixture.beats.end(healthcheck_operator::telemetry::MIRROR);
    assert!(!fixture.get("/").await.body.contains("on standby"));
}

/// 10,000 checks, every `nth` of them down.
fn fill_many(board: &Board, nth: usize) {
    let check = |number: usize| {
        let (health, state) = match number % nth {
            0 => (Health::Unhealthy, EndpointState::Unhealthy),
            _ => (Health::Healthy, EndpointState::Healthy),
        };
        let row = |check: Check, at: usize| check.endpoint(endpoint(&format!("t{at}"), "10.1.2.3:80", state));
        (0..10).fold(Check::new("fleet", &format!("node-{number:05}"), health), row).build()
    };
    board.publish((0..10_000).map(check).collect(), &[]);
}

#[tokio::test]
async fn ten_thousand_checks_make_a_page_of_bounded_size() {
    let fixture = full().await;
    // Half a per cent down, and everything down.
    for (nth, largest) in [(200, 200_000), (1, 300_000)] {
        fill_many(&fixture.board, nth);
        let begun = Instant::now();
        let page = fixture.get("/").await.body;
        println!("  1 of {nth} down: {} bytes in {:?}", page.len(), begun.elapsed());
        assert!(page.len() < largest, "{} bytes", page.len());
        assert_eq!(page.matches("<article").count(), 50);
        let begun = Instant::now();
        let found = fixture.get("/?q=node-09800").await.body;
        println!("  searched: {} bytes in {:?}", found.len(), begun.elapsed());
        assert!(found.contains("1 of 10000 match") && found.contains("</span>node-09800"));
    }
    fill_many(&fixture.board, 10_001);
    let page = fixture.get("/").await.body;
    assert!(page.contains("<details id=\"Healthy\" class=\"Healthy\">"), "folded away: {page:.300}");
    assert!(page.contains("<b>9999</b> healthy") && page.contains("and 9899 more; search to find them"));
    let page = fixture.get("/?q=node-00").await.body;
    assert!(page.contains("<details id=\"Healthy\" class=\"Healthy\" open>"), "what was searched for is shown");
}

//! `/probe` and `/metrics/probes`, off a board that is filled by hand.

use std::{sync::Arc, time::Duration};

use healthcheck_operator::{
    check::{EndpointState, Health, Reason},
    engine::{Board, EndpointView},
    server::Access,
};

use crate::support::{Check, Fixture, config, endpoint, fill, remark};

/// An HTTP endpoint that was answered.
fn answered(target: &str, label: &str, status: u16) -> EndpointView {
    let state = if status == 200 { EndpointState::Healthy } else { EndpointState::Unhealthy };
    let row = endpoint(target, label, state);
    row.live.set_found(Some(status), Some(Duration::from_millis(25)));
    row
}

/// The series of `path`, without comments.
async fn series(fixture: &Fixture, path: &str) -> Vec<String> {
    let answer = fixture.admin(path).await;
    assert_eq!(
        (answer.code, answer.content_type.as_str()),
        (200, "text/plain; version=0.0.4; charset=utf-8"),
        "{path}"
    );
    answer.body.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn one_check_is_told_in_the_names_of_blackbox() {
    let fixture = Fixture::start().await;
    Check::new("shop", "web", Health::Degraded)
        .endpoint(remark(answered("a", "10.0.0.1:443", 200), |remarks| {
            remarks.certificate_expires = Some(1_900_000_000);
        }))
        .endpoint(remark(answered("b", "[fd00::1]:443", 500), |remarks| {
            remarks.certificate_expires = Some(1_800_000_000);
            remarks.reason = Some(Reason::UnexpectedBody);
        }))
        .put(&fixture.board);
    let told = series(&fixture, "/probe?module=http_2xx&target=shop/web").await;
    // Two protocols and two statuses are no one figure.
    assert_eq!(
        told,
        [
            "probe_success 1.0",
            "probe_duration_seconds 0.0015",
            "probe_dns_lookup_time_seconds 0.025",
            "probe_failed_due_to_regex 1.0",
            "probe_ssl_earliest_cert_expiry 1800000000.0",
        ]
    );
    let told = series(&fixture, "/probe/?target=shop/web/b").await;
    for line in ["probe_success 0.0", "probe_ip_protocol 6.0", "probe_http_status_code 500.0"] {
        assert!(told.iter().any(|series| series == line), "{line}: {told:?}");
    }
    let open = fixture.scrape("/probe?target=shop%2Fweb%2Fa").await;
    assert_eq!(open.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.contains("\nprobe_http_status_code 200.0\n") && open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[tokio::test]
async fn what_is_not_known_is_absent_and_what_is_not_there_is_said() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    assert!(!series(&fixture, "/probe?target=shop/search").await.iter().any(|line| line.starts_with("probe_success")));
    assert_eq!(series(&fixture, "/probe?target=shop/legacy").await, [""; 0], "suspended: nobody looks");
    let checkout = series(&fixture, "/probe?target=shop/checkout").await;
    assert!(
        !checkout.iter().any(|line| line.contains("status_code") || line.contains("dns") || line.contains("ssl")),
        "{checkout:?}"
    );
    for (path, code, says) in [
        ("/probe", 400, "target: is missing; want ?target=NAMESPACE/NAME"),
        ("/probe?module=http_2xx", 400, "target: is missing"),
        ("/probe?target=shop", 400, "names no HealthCheck"),
        ("/probe?target=https://example.com/", 400, "names no HealthCheck"),
        ("/probe?target=shop/", 400, "names no HealthCheck"),
        ("/probe?target=a/b/c/d", 400, "names no HealthCheck"),
        ("/probe?target=a/b&target=a/c", 400, "more than once"),
        ("/probe?target=shop/nothing", 404, "no HealthCheck \\\"shop/nothing\\\""),
        ("/probe?target=shop/checkout/x", 404, "no target \\\"x\\\" in HealthCheck"),
    ] {
        let answer = fixture.admin(path).await;
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
        assert!(answer.body.contains(says), "{path}: {}", answer.body);
    }
    let stalled = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    fill(&stalled.board);
    assert_eq!(stalled.admin("/probe?target=shop/checkout").await.code, 503);
    assert_eq!(series(&stalled, "/metrics/probes").await, [""; 0]);
}

#[tokio::test]
async fn all_endpoints_are_told_with_their_labels() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    Check::new("shop", "twice", Health::Healthy)
        .endpoint(answered("web", "10.0.0.1:80", 200))
        .endpoint(answered("web", "10.0.0.1:80", 200))
        .put(&fixture.board);
    let told = series(&fixture, "/metrics/probes").await;
    let labels = |name: &str, target: &str, endpoint: &str| {
        format!(r#"{{namespace="shop",name="{name}",target="{target}",endpoint="{endpoint}"}}"#)
    };
    for line in [
        format!("probe_success{} 1.0", labels("checkout", "web", "10.0.0.2:80")),
        format!("probe_success{} 0.0", labels("orders", "pg-b", "10.0.1.2:5432")),
        format!("probe_http_status_code{} 200.0", labels("twice", "web", "10.0.0.1:80")),
    ] {
        assert_eq!(told.iter().filter(|series| **series == line).count(), 1, "{line}: {told:#?}");
    }
    assert!(!told.iter().any(|line| line.contains("success") && line.contains("name=\"search\"")), "unknown is absent");
    assert!(!told.iter().any(|line| line.contains("legacy")), "suspended");
}

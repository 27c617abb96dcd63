//! `/metrics`, parsed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use healthcheck_operator::{
    check::{EndpointState, Health, HealthReason, ObjectKey},
    engine::Board,
    server::Access,
};

use crate::support::{Check, Fixture, config, endpoint, fill};

/// Series with their values, and the type of each family.
#[derive(Debug, Default)]
struct Scrape {
    series: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    async fn of(fixture: &Fixture) -> Self {
        let answer = fixture.scrape("/metrics").await;
        assert_eq!(answer.content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(answer.body.ends_with("# EOF\n"));
        let mut scrape = Self::default();
        for line in answer.body.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(scrape.types.insert(name.into(), kind.into()).is_none(), "{name} comes twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let value = value.parse().expect("a number");
                assert!(scrape.series.insert(series.into(), value).is_none(), "{series} comes twice");
            }
        }
        scrape
    }

    fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }
}

#[tokio::test]
async fn verdicts_are_on_the_scrape() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    let scrape = Scrape::of(&fixture).await;
    for (health, value) in [("Unhealthy", 1.0), ("Healthy", 0.0), ("Degraded", 0.0), ("Unknown", 0.0)] {
        let series = format!(r#"healthcheck_health{{namespace="shop",name="payments",health="{health}"}}"#);
        assert_eq!(scrape.get(&series), Some(value), "{series}");
    }
    let healthy = |name: &str, target: &str, endpoint: &str| {
        let labels = format!(r#"namespace="shop",name="{name}",target="{target}",endpoint="{endpoint}""#);
        scrape.get(&format!("healthcheck_endpoint_healthy{{{labels}}}"))
    };
    assert_eq!(healthy("checkout", "web", "10.0.0.2:80"), Some(1.0));
    assert_eq!(healthy("orders", "pg-b", "10.0.1.2:5432"), Some(0.0));
    assert_eq!(healthy("search", "es", "10.0.3.1:9200"), None, "absent when unknown");
    let of = |name: &str, health: &str| format!(r#"{name}{{namespace="shop",name="payments",health="{health}"}}"#);
    assert_eq!(scrape.get(&of("healthcheck_transitions_total", "Unhealthy")), Some(2.0));
    assert_eq!(scrape.get(&of("healthcheck_since_timestamp_seconds", "Unhealthy")), Some(1_793_527_200.0));
    assert_eq!(scrape.types["healthcheck_transitions"], "counter");
    assert_eq!(scrape.types["healthcheck_health"], "gauge");
}

#[tokio::test]
async fn a_suspended_check_is_none_of_the_words() {
    let fixture = Fixture::start().await;
    Check::new("shop", "paused", Health::Unknown)
        .edit(|view| (view.suspended, view.reason) = (true, HealthReason::Suspended))
        .put(&fixture.board);
    let scrape = Scrape::of(&fixture).await;
    for health in Health::ALL {
        let series = format!(r#"healthcheck_health{{namespace="shop",name="paused",health="{}"}}"#, health.as_str());
        assert_eq!(scrape.get(&series), Some(0.0), "{series}");
    }
}

#[tokio::test]
async fn a_removed_check_leaves_no_series() {
    let fixture = Fixture::start().await;
    fill(&fixture.board);
    assert!(Scrape::of(&fixture).await.series.keys().any(|series| series.contains("payments")));
    fixture.board.publish(vec![], &[ObjectKey::new("shop", "payments")]);
    let after = Scrape::of(&fixture).await;
    assert!(!after.series.keys().any(|series| series.contains("payments")));
    assert!(after.series.keys().any(|series| series.contains("checkout")), "its neighbours stay");
}

#[tokio::test]
async fn no_label_carries_free_text() {
    let fixture = Fixture::start().await;
    for (number, health) in Health::ALL.into_iter().enumerate() {
        Check::new("shop", &format!("check-{number}"), health)
            .message("a message of the target\nwith \"quotes\"")
            .endpoint(endpoint("web", "10.0.0.1:80", EndpointState::Unhealthy))
            .edit(|view| view.reason = HealthReason::Stale)
            .put(&fixture.board);
    }
    fixture.metrics.probe_meter().ended("http", "failure", "UnexpectedStatus", Duration::from_millis(3));
    let scrape = Scrape::of(&fixture).await;
    let mut labels = BTreeSet::new();
    for series in scrape.series.keys() {
        assert!(!series.contains("message") && !series.contains("unexpected status"), "{series}");
        if let Some((_, set)) = series.strip_suffix('}').and_then(|series| series.split_once('{')) {
            labels.extend(set.split(',').map(|label| label.split_once('=').expect("a label").0.to_owned()));
        }
    }
    let allowed = ["endpoint", "health", "kind", "le", "name", "namespace", "outcome", "reason", "target", "version"];
    assert_eq!(labels.iter().map(String::as_str).collect::<Vec<_>>(), allowed);
}

#[tokio::test]
async fn an_endpoint_that_is_there_twice_does_not_spoil_the_scrape() {
    let fixture = Fixture::start().await;
    Check::new("shop", "twice", Health::Healthy)
        .endpoint(endpoint("web", "10.0.0.1:80", EndpointState::Healthy))
        .endpoint(endpoint("web", "10.0.0.1:80", EndpointState::Healthy))
        .put(&fixture.board);
    // The parser refuses a series that comes twice.
    assert!(Scrape::of(&fixture).await.series.keys().any(|series| series.contains("twice")));
}

#[tokio::test]
async fn a_board_that_is_not_current_claims_nothing() {
    let fixture = Fixture::on(Arc::new(Board::new()), &config(&[]), Access::Open).await;
    fill(&fixture.board);
    let scrape = Scrape::of(&fixture).await;
    let series = |health: &str| format!(r#"healthcheck_health{{namespace="shop",name="checkout",health="{health}"}}"#);
    assert_eq!((scrape.get(&series("Unknown")), scrape.get(&series("Healthy"))), (Some(1.0), Some(0.0)));
    assert!(!scrape.series.keys().any(|series| series.starts_with("healthcheck_endpoint_healthy")));
}

#[tokio::test]
async fn the_operator_describes_itself() {
    let fixture = Fixture::start().await;
    fixture.metrics.probe_meter().ended("tcp", "success", "", Duration::from_millis(3));
    fixture.metrics.probe_meter().ended("tcp", "failure", "ConnectionRefused", Duration::from_millis(1));
    fixture.metrics.probe_meter().ended("tcp", "failure", "TimeoutConnect", Duration::from_secs(2));
    fixture.metrics.endpoints.set(12);
    let scrape = Scrape::of(&fixture).await;
    let build = format!(r#"healthcheck_operator_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.get(&build), Some(1.0));
    assert_eq!(scrape.get("healthcheck_operator_endpoints"), Some(12.0));
    assert_eq!(scrape.get(r#"healthcheck_operator_probes_total{kind="tcp",outcome="success",reason=""}"#), Some(1.0));
    let took = |outcome| {
        scrape.get(&format!(r#"healthcheck_operator_probe_duration_seconds_count{{kind="tcp",outcome="{outcome}"}}"#))
    };
    assert_eq!((took("success"), took("failure")), (Some(1.0), Some(2.0)), "slow failures hide no slow success");
    if cfg!(target_os = "linux") {
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            assert!(scrape.get(name).is_some_and(|value| value > 0.0), "{name}");
        }
        assert_eq!(scrape.types["process_cpu_seconds"], "counter");
    }
}

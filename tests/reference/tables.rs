//! The tables that people wrote: each has exactly the rows that the program has words for.

use std::{collections::BTreeSet, path::Path, time::Duration};

use healthcheck_operator::{
    check::{GateReason, HealthReason, Reason},
    cluster::ProblemKind,
    telemetry::{
        Metrics, Source,
        metrics::{ApiLabels, WatchLabels},
    },
};
use prometheus_client::{encoding::text::encode, registry::Registry};

const REASONS: &str = include_str!("../../docs/reference/reasons.md");
const METRICS: &str = include_str!("../../docs/reference/metrics.md");
const ENDPOINTS: &str = include_str!("../../docs/reference/endpoints.md");

/// The words in the first column of the tables below a heading, up to the next one.
fn column<'a>(page: &'a str, heading: &str) -> BTreeSet<&'a str> {
    let start = format!("\n## {heading}\n");
    let part = page.split_once(&start).unwrap_or_else(|| panic!("no heading '{heading}'")).1;
    let part = part.split("\n## ").next().unwrap_or_default();
    let rows = part.lines().filter_map(|line| line.strip_prefix("| "));
    let first = rows.filter_map(|row| row.split(" | ").next());
    first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[track_caller]
fn same(told: &BTreeSet<&str>, known: impl IntoIterator<Item = &'static str>) {
    let known: BTreeSet<_> = known.into_iter().collect();
    let (missing, more): (Vec<_>, Vec<_>) = (known.difference(told).collect(), told.difference(&known).collect());
    assert!(missing.is_empty() && more.is_empty(), "not in the page: {missing:?}; only in the page: {more:?}");
}

#[test]
fn every_reason_has_its_row() {
    let probe = |class| Reason::ALL.iter().filter(move |reason| reason.class().map(|it| it.as_str()) == class);
    for (heading, class) in
        [("connect", Some("connect")), ("http", Some("http")), ("timeout", Some("timeout")), ("local", None)]
    {
        same(&column(REASONS, heading), probe(class).map(|reason| reason.as_str()));
    }
    same(&column(REASONS, "Healthy"), HealthReason::ALL.map(HealthReason::as_str));
    same(&column(REASONS, "GatesApplied"), GateReason::ALL.map(GateReason::as_str));
    same(
        &column(REASONS, "Ready and Stalled"),
        ProblemKind::ALL.map(ProblemKind::as_str).into_iter().chain(["Accepted"]),
    );
}

/// Those of the verdicts and gates are held where there is a board: `tests/server`.
#[test]
fn every_metric_of_the_operator_has_its_row() {
    let (metrics, mut registry) = (Metrics::default(), Registry::default());
    metrics.register(&mut registry);
    // What has no series yet is not listed.
    metrics.probe_meter().ended("tcp", "Success", "", Duration::ZERO);
    let request = ApiLabels { kind: "pods", verb: "list", result: "success" };
    metrics.api_requests.get_or_create(&request).inc();
    metrics.api_request_duration.get_or_create(&request).observe(0.0);
    metrics.watch_last_event.get_or_create(&WatchLabels { kind: "pods" }).set(1);
    metrics.observations.add(Source::Api, "accepted", 1);
    metrics.observations.batch(Source::Api, "accepted");
    let mut text = String::new();
    encode(&mut text, &registry).expect("text");
    let told = column(METRICS, "The operator");
    let known: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
        .collect();
    let known: BTreeSet<_> = known.iter().map(String::as_str).collect();
    let missing: Vec<_> = known.difference(&told).collect();
    assert!(missing.is_empty() && known.len() >= 11, "not in the page: {missing:?} of {known:?}");
}

/// Routes as the source has them.
fn routes(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file of ours");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let after = text.split(".route(").skip(1);
    after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)).collect()
}

#[test]
fn every_path_has_its_row() {
    for (heading, file) in [("Public", "src/server/public.rs"), ("Admin", "src/server/admin.rs")] {
        let (told, known) = (column(ENDPOINTS, heading), routes(file));
        assert!(known.len() > 4, "{file} has routes");
        let missing: Vec<_> = known.iter().filter(|path| !told.contains(&***path)).collect();
        assert!(missing.is_empty(), "not in the page: {missing:?}");
        let more: Vec<_> = told.iter().filter(|path| path.starts_with('/') && !known.contains(**path)).collect();
        assert!(more.iter().all(|path| ["/__health"].contains(*path)), "only in the page: {more:?}");
    }
}

//! Gates: what comes out of them, and what only `compile` can refuse.

use serde_json::{Value, json};

use super::{
    super::{Mode, validate},
    compiled, object,
};
use crate::check::{
    Gate, GateKind, GateLimits, GateMode, GatePolicy, MinHealthy, PodSelector, PortRef, SelectorOperator,
    SelectorRequirement,
};

/// Every field of a gate away from its default, in one gate or another.
const MANIFEST: &str = r"
spec:
  targets:
  - {name: a, service: {name: pg}, zone: eu-a}
  gates:
  - name: by-name
    endpointSlice: {service: db, port: pg}
    mode: DryRun
    minReady: 50%
    whenBelow: FailStatic
    maxRemovedPercent: 30
    whenUnknown: FailClosed
  - name: by-number
    endpointSlice: {service: db, port: 5433}
    minReady: 2
    whenBelow: FailClosed
    maxRemovedPercent: 40
    whenUnknown: FailOpen
  - name: pods
    podReadiness:
      conditionType: healthcheck-operator.dev/db
      selector:
        matchLabels: {app: web}
        matchExpressions:
        - {key: zone, operator: In, values: [east]}
  - {name: note, annotation: {}, mode: DryRun}
";

pub fn written() -> Value {
    serde_saphyr::from_str(MANIFEST).expect("YAML")
}

#[test]
fn a_gate_has_every_default() {
    let check = compiled(&json!({
        "targets": [{"name": "a", "host": "10.0.0.1", "port": 5432, "zone": "eu-a"}, {"name": "b", "service": {"name": "s"}}],
        "gates": [
            {"name": "traffic", "endpointSlice": {"service": "db"}},
            {"name": "pods", "podReadiness": {"conditionType": "healthcheck-operator.dev/db"}},
            {"name": "note", "annotation": {}},
        ],
    }));
    let limits = GateLimits {
        min_ready: MinHealthy::Count(1),
        max_removed_percent: 100,
        when_below: GatePolicy::FailOpen,
        when_unknown: GatePolicy::FailStatic,
    };
    let gate = |name: &str, kind| Gate { name: name.into(), kind, mode: GateMode::Enforce, limits };
    let condition_type = "healthcheck-operator.dev/db".into();
    assert_eq!(
        check.gates,
        [
            gate("traffic", GateKind::EndpointSlice { service: "db".into(), port: None }),
            gate("pods", GateKind::PodReadiness { condition_type, selector: None }),
            gate("note", GateKind::Annotation),
        ]
    );
    assert_eq!(check.targets.iter().map(|target| target.zone.as_deref()).collect::<Vec<_>>(), [Some("eu-a"), None]);
    assert_eq!(compiled(&json!({"targets": [{"name": "a", "host": "db", "port": 1}]})).gates, []);
}

#[test]
fn every_field_of_a_gate_that_is_written_reaches_the_check() {
    let limits = |min_ready, max_removed_percent, when_below, when_unknown| GateLimits {
        min_ready,
        max_removed_percent,
        when_below,
        when_unknown,
    };
    let percent = limits(MinHealthy::Percent(50), 30, GatePolicy::FailStatic, GatePolicy::FailClosed);
    let count = limits(MinHealthy::Count(2), 40, GatePolicy::FailClosed, GatePolicy::FailOpen);
    let defaults = limits(MinHealthy::Count(1), 100, GatePolicy::FailOpen, GatePolicy::FailStatic);
    let gate = |name: &str, mode, limits, kind| Gate { name: name.into(), kind, mode, limits };
    let slice = |port| GateKind::EndpointSlice { service: "db".into(), port: Some(port) };
    let selector = PodSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        match_expressions: vec![SelectorRequirement {
            key: "zone".to_owned(),
            operator: SelectorOperator::In,
            values: vec!["east".to_owned()],
        }],
    };
    let readiness =
        GateKind::PodReadiness { condition_type: "healthcheck-operator.dev/db".into(), selector: Some(selector) };
    assert_eq!(
        compiled(&written()["spec"]).gates,
        [
            gate("by-name", GateMode::DryRun, percent, slice(PortRef::Name("pg".into()))),
            gate("by-number", GateMode::Enforce, count, slice(PortRef::Number(5433))),
            gate(
                "pods",
                GateMode::Enforce,
                limits(MinHealthy::Count(0), 100, defaults.when_below, defaults.when_unknown),
                readiness
            ),
            gate("note", GateMode::DryRun, defaults, GateKind::Annotation),
        ]
    );
}

/// A verdict about all pods at once would otherwise never take them away: fewer than one is none.
#[test]
fn a_readiness_gate_over_a_selector_has_no_floor_unless_it_is_written() {
    for (min_ready, expected) in [(None, 0), (Some(3), 3)] {
        let mut gate = json!({"name": "a", "podReadiness": {"conditionType": "healthcheck-operator.dev/db",
            "selector": {"matchLabels": {"app": "web"}}}});
        if let Some(min_ready) = min_ready {
            gate["minReady"] = json!(min_ready);
        }
        let check = compiled(&json!({"targets": [{"name": "a", "host": "db", "port": 1}], "gates": [gate]}));
        assert_eq!(check.gates[0].limits.min_ready, MinHealthy::Count(expected));
        let GateKind::PodReadiness { selector: Some(selector), .. } = &check.gates[0].kind else {
            panic!("{:?}", check.gates[0].kind);
        };
        assert!(selector.matches(&[("app".to_owned(), "web".to_owned())].into()));
    }
}

#[test]
fn a_gated_service_is_not_probed_by_its_own_name() {
    for (host, refused) in [
        ("db.shop", true),
        ("db.shop.svc", true),
        ("DB.shop.svc.cluster.local.", true),
        ("db.shop.example", false),
        ("db", false),
        ("db.other.svc", false),
        ("a.db.shop.svc", false),
    ] {
        let spec = json!({"targets": [{"name": "a", "host": host, "port": 1}],
            "gates": [{"name": "g", "endpointSlice": {"service": "db"}}]});
        let problems = validate(&object(&spec), Mode::Cluster);
        assert_eq!(problems.len(), usize::from(refused), "{host}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.field_path == "spec.targets[0].host"));
    }
}

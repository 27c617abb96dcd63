//! What comes out of `compile`: exact defaults, and every problem at once.

mod gates;
mod whole;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{API_VERSION, KIND},
    check::{
        Connection, Handshake, Host, HttpProbe, InitialState, MinHealthy, Place, PortRef, ProbeKind, Redirects, Scheme,
        StatusRange,
    },
};

fn object(spec: &Value) -> HealthCheck {
    let object = json!({
        "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "db", "namespace": "shop"}, "spec": spec,
    });
    serde_json::from_value(object).expect("readable")
}

fn compiled(spec: &Value) -> Check {
    compile(&object(spec), Mode::Cluster).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn http_of(check: &Check) -> &HttpProbe {
    match &check.targets[0].probe.kind {
        ProbeKind::Http(http) => http,
        other => panic!("not http: {other:?}"),
    }
}

#[test]
fn a_spec_with_nothing_but_a_target_has_every_default() {
    let check = compiled(&json!({"targets": [{"name": "a", "host": "10.0.0.1", "port": 5432}]}));
    assert_eq!((check.key.to_string().as_str(), &*check.uid, check.generation), ("shop/db", "shop/db", 0));
    assert_eq!(check.rhythm.interval, Duration::from_secs(10));
    assert_eq!(check.rhythm.longest(), check.rhythm.shortest());
    assert_eq!(check.rhythm.jitter_percent, 0);
    assert_eq!((check.thresholds.failure, check.thresholds.success), (Some(3), 2));
    assert_eq!(check.initial_state, InitialState::Unknown);
    assert_eq!(check.stale_after, Duration::from_secs(32));
    assert_eq!(check.min_healthy, MinHealthy::Percent(100));
    assert!(check.annotations && !check.suspend);
    let target = &check.targets[0];
    assert_eq!(target.place, Place::Host(Host::Address("10.0.0.1".parse().expect("address"))));
    assert_eq!((target.port.clone(), target.optional), (Some(PortRef::Number(5432)), false));
    assert_eq!(target.probe.timeout, Duration::from_secs(2));
    assert!(
        matches!(&target.probe.kind, ProbeKind::Tcp(tcp) if tcp.handshake == Handshake::HalfOpen && tcp.port.is_none())
    );
}

#[test]
fn the_default_timeout_is_two_seconds_or_the_shortest_interval() {
    for (intervals, timeout_ms) in [
        (json!({"interval": "1s"}), 1000),
        (json!({"interval": "2s"}), 2000),
        (json!({"interval": "1h"}), 2000),
        (json!({"interval": "1h", "confirmInterval": "100ms"}), 100),
        (json!({"interval": "1h", "unhealthyInterval": "1500ms"}), 1500),
    ] {
        let mut spec = intervals;
        spec["targets"] = json!([{"name": "a", "host": "db", "port": 1}]);
        assert_eq!(compiled(&spec).targets[0].probe.timeout, Duration::from_millis(timeout_ms), "{spec}");
    }
}

#[test]
fn a_verdict_is_believed_for_three_of_the_longest_intervals_and_the_timeout_but_at_least_thirty_seconds() {
    for (spec, stale_after) in [
        (json!({"interval": "1s"}), 30_000),
        (json!({"interval": "10s", "timeout": "500ms"}), 30_500),
        (json!({"interval": "1s", "unhealthyInterval": "1m"}), 181_000),
        (json!({"interval": "1m", "staleAfter": "61s"}), 61_000),
    ] {
        let mut spec = spec;
        spec["targets"] = json!([{"name": "a", "host": "db", "port": 1}]);
        assert_eq!(compiled(&spec).stale_after, Duration::from_millis(stale_after), "{spec}");
    }
}

#[test]
fn an_http_probe_has_every_default() {
    let check =
        compiled(&json!({"probe": {"http": {}}, "targets": [{"name": "a", "host": "db.example", "port": 8080}]}));
    let http = http_of(&check);
    assert_eq!((http.scheme, &*http.path, &*http.method, http.port), (Scheme::Http, "/", "GET", None));
    assert_eq!(http.host, None);
    assert_eq!(http.expected_statuses, [StatusRange { first: 200, last: 399 }]);
    assert_eq!((http.redirects, http.connection), (Redirects::None, Connection::Reset));
}

#[test]
fn the_host_header_is_what_clients_call_the_target() {
    for (target, host) in [
        (json!({"service": {"name": "orders"}}), Some("orders.shop.svc")),
        // What is dialed, which the probe knows.
        (json!({"host": "db", "port": 1}), None),
        (json!({"pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1}), None),
        (json!({"host": "db", "probe": {"http": {"host": "other"}}}), Some("other")),
        (json!({"host": "db", "probe": {"http": {"host": "fd00::1"}}}), Some("[fd00::1]")),
    ] {
        let mut target = target;
        target["name"] = json!("a");
        let check = compiled(&json!({"probe": {"http": {}}, "targets": [target]}));
        assert_eq!(http_of(&check).host.as_deref(), host);
    }
}

#[test]
fn a_host_without_a_port_has_the_one_of_the_scheme() {
    for (http, port) in [
        (json!({}), Some(80)),
        (json!({"scheme": "HTTPS"}), Some(443)),
        (json!({"port": 8443, "scheme": "HTTPS"}), Some(8443)),
    ] {
        let check = compiled(&json!({"probe": {"http": http}, "targets": [{"name": "a", "host": "db"}]}));
        assert_eq!(http_of(&check).port, port);
    }
}

#[test]
fn an_inline_script_is_run_by_its_interpreter_and_has_a_timeout_of_its_own() {
    let check = compiled(&json!({"interval": "1m", "targets": [
        {"name": "a", "probe": {"script": {"source": "exit 0", "timeout": "30s"}}},
        {"name": "b", "probe": {"script": {"command": ["true", "x"], "env": [{"name": "A", "value": "b"}]}}},
    ]}));
    let scripts: Vec<_> = check.targets.iter().map(|target| (&target.probe.kind, target.probe.timeout)).collect();
    let (ProbeKind::Script(source), ProbeKind::Script(command)) = (scripts[0].0, scripts[1].0) else {
        panic!("not scripts: {scripts:?}");
    };
    assert_eq!(
        (source.source.as_deref(), source.command.iter().map(|part| &**part).collect::<Vec<_>>()),
        (Some("exit 0"), vec!["/bin/sh"])
    );
    assert_eq!((command.source.as_deref(), command.command.len(), command.env.len()), (None, 2, 1));
    assert_eq!((scripts[0].1, scripts[1].1), (Duration::from_secs(30), Duration::from_secs(2)));
    assert_eq!(check.stale_after, Duration::from_secs(210));
    assert!(check.targets.iter().all(|target| target.place == Place::Nowhere));
}

#[test]
fn targets_that_ask_the_same_share_one_probe() {
    let targets: Vec<_> =
        (0..8).map(|i| json!({"name": format!("t{i}"), "host": format!("10.0.0.{i}"), "port": 80})).collect();
    let check = compiled(&json!({"targets": targets}));
    assert!(check.targets.iter().all(|target| std::sync::Arc::ptr_eq(&target.probe, &check.targets[0].probe)));
}

#[test]
fn percentages_are_rounded_up() {
    let check = compiled(&json!({"minHealthy": "34%", "targets": [{"name": "a", "host": "db", "port": 1}]}));
    assert_eq!([0, 1, 2, 3, 100].map(|total| check.min_healthy.of(total)), [0, 1, 1, 2, 34]);
}

#[test]
fn files_alone_cannot_know_what_a_cluster_knows() {
    let spec = json!({"probe": {"http": {
        "scheme": "HTTPS",
        "headers": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "tls": {"caRef": {"configMap": {"name": "c", "key": "k"}}}
    }}, "targets": [
        {"name": "a", "service": {"name": "s"}},
        {"name": "b", "pods": {"selector": {"matchLabels": {"a": "b"}}}, "port": 1},
        {"name": "c", "host": "db"},
    ]});
    assert_eq!(validate(&object(&spec), Mode::Cluster), []);
    let problems = validate(&object(&spec), Mode::Standalone);
    let paths: Vec<_> = problems.iter().map(|problem| problem.field_path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.probe.http.headers[0].valueFrom",
            "spec.probe.http.tls.caRef",
            "spec.targets[0].service",
            "spec.targets[1].pods"
        ]
    );
    assert!(problems.iter().all(|problem| problem.message.contains("needs a cluster")));
}

/// Values that a spec may hold where it should not: any shape, with the names and words of the schema among them.
fn any_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "interval",
        "timeout",
        "targets",
        "probe",
        "http",
        "tcp",
        "script",
        "name",
        "host",
        "port",
        "10s",
        "100%",
        "/",
        "200-399",
        "pods",
        "selector",
        "matchLabels",
        "service",
        "healthCheck",
        "minHealthy",
        "source",
        "tls",
        "caRef",
        "HTTPS",
        "Healthy",
        "headers",
        "expectedStatuses",
        "failureThresholds",
        "connect",
        "gates",
        "endpointSlice",
        "podReadiness",
        "annotation",
        "FailOpen",
        "99999h99999h",
        "\u{0}",
        "é",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5i64..70_000).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Specs that are nearly right: one part of a good one replaced by anything.
fn nearly_right() -> impl Strategy<Value = Value> {
    let good = json!({
        "interval": "1s", "timeout": "1s", "minHealthy": 1, "failureThresholds": {"connect": 1},
        "probe": {"http": {"path": "/", "scheme": "HTTPS", "headers": [{"name": "A", "value": "b"}], "expectedStatuses": [200],
            "tls": {"mode": "Verify"}}},
        "targets": [
            {"name": "a", "host": "db", "port": 1},
            {"name": "b", "pods": {"selector": {"matchLabels": {"a": "b"},
                "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}, "port": "http"},
            {"name": "c", "probe": {"script": {"source": "true", "env": [{"name": "A"}]}}},
        ],
        "gates": [
            {"name": "a", "endpointSlice": {"service": "s", "port": "pg"}, "minReady": "50%", "whenBelow": "FailClosed"},
            {"name": "b", "podReadiness": {"conditionType": "healthcheck-operator.dev/x",
                "selector": {"matchLabels": {"a": "b"}}}, "mode": "DryRun"},
            {"name": "c", "annotation": {}},
        ],
    });
    let mut pointers = Vec::new();
    collect_pointers(&good, "", &mut pointers);
    (prop::sample::select(pointers), any_value()).prop_map(move |(pointer, value)| {
        let mut spec = good.clone();
        if let Some(place) = spec.pointer_mut(&pointer) {
            *place = value;
        }
        spec
    })
}

fn collect_pointers(value: &Value, at: &str, pointers: &mut Vec<String>) {
    pointers.push(at.to_owned());
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                collect_pointers(value, &format!("{at}/{name}"), pointers);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                collect_pointers(value, &format!("{at}/{index}"), pointers);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_value_makes_it_panic(spec in prop_oneof![any_value(), nearly_right()]) {
        let mut problems = Problems::default();
        schema::check_spec(&spec, &mut problems);
        let object = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "x"}, "spec": spec});
        if let Ok(object) = serde_json::from_value::<HealthCheck>(object) {
            for mode in [Mode::Cluster, Mode::Standalone] {
                let _ = compile(&object, mode);
            }
        }
    }

    /// What the schema accepts must be readable, or a controller would be blind to an object the server let in.
    #[test]
    fn what_the_schema_accepts_can_be_read(spec in nearly_right()) {
        let mut spec = spec;
        schema::drop_nulls(&mut spec);
        let mut problems = Problems::default();
        schema::check_spec(&spec, &mut problems);
        if problems.into_vec().is_empty() {
            let object = json!({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "x"}, "spec": spec.clone()});
            let read = serde_json::from_value::<HealthCheck>(object);
            prop_assert!(read.is_ok(), "{:?}: {}", read.err(), spec);
        }
    }
}

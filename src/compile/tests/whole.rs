//! A manifest with every field away from its default, and the whole check that it is.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::super::{Mode, compile};
use crate::{
    api::{HealthCheck, crd},
    check::{
        BodyRule, Check, ClientCertificate, Connection, GrpcProbe, Handshake, HeaderSource, Host, HttpHeader,
        HttpProbe, HttpVersion, InitialState, MinHealthy, ObjectKey, Override, Overrides, Passive, Pattern, Place,
        PodSelector, PortRef, Probe, ProbeKind, Redirects, Reference, ReferenceKind, Resolve, Rhythm, Scheme,
        ScriptProbe, SelectorOperator, SelectorRequirement, StatusRange, Target, TcpProbe, Thresholds, Tls, TlsMode,
        Word,
    },
};

/// No two numbers, times or names in it are alike, so that none can stand in for another.
const MANIFEST: &str = r#"
apiVersion: healthcheck-operator.dev/v1alpha1
kind: HealthCheck
metadata: {name: all, namespace: shop, uid: 0f0e, generation: 7, labels: {tier: gold}, annotations: {healthcheck-operator.dev/override: "*=Healthy until 2030-01-01T00:00:00Z; x"}}
spec:
  suspend: true
  interval: 20s
  unhealthyInterval: 30s
  confirmInterval: 5s
  timeout: 1500ms
  jitterPercent: 15
  failureThreshold: 9
  successThreshold: 4
  failureThresholds: {connect: 5, http: 6, timeout: 7}
  initialState: Unhealthy
  staleAfter: 90s
  minHealthy: 2
  annotations: "Off"
  passive:
    healthyStatuses: [201, "207-208"]
    unhealthyStatuses: [430, "510-511"]
    successThreshold: 8
    failureThresholds: {connect: 0, http: 10, timeout: 11}
    activeProbes: "Off"
    ejectionTime: 45s
  probe: {tcp: {port: 7001, handshake: Full, send: UElORw==, receive: [UE8=, Tkc=], tls: {serverName: tcp.example}}}
  targets:
  - {name: address, host: 10.0.0.1, port: 5432, optional: true, zone: eu-a}
  - name: service
    service: {name: orders}
    port: web
    probe:
      http:
        scheme: HTTPS
        port: 8443
        path: /ready?deep=1
        method: POST
        host: shop.example
        headers:
        - {name: X-One, value: alpha, append: false}
        - {name: X-Two, valueFrom: {secretKeyRef: {name: token, key: bearer}}}
        body: ping
        expectedStatuses: [204, "300-302"]
        unhealthyStatuses: [410, "500-503"]
        expectedBody: {jsonPointer: /status, equals: ok}
        maxLatency: 750ms
        minCertificateValidity: 240h
        followRedirects: SameHost
        httpVersion: HTTP2
        connectionClose: Polite
        reuseConnection: true
        tls: {serverName: inner.example, caRef: {configMap: {name: authorities, key: ca.crt}}, clientCertRef: {secret: we}}
  - name: pods
    pods:
      selector:
        matchLabels: {app: web}
        matchExpressions:
        - {key: zone, operator: In, values: [east, west]}
        - {key: stage, operator: NotIn, values: [test]}
        - {key: ready, operator: Exists}
        - {key: retired, operator: DoesNotExist}
    port: 9090
    probe: {http: {scheme: HTTPS, expectedBody: {contains: pong}, tls: {mode: SkipVerify}}}
  - name: by-name
    host: db.example
    resolve: All
    probe: {http: {scheme: HTTPS, expectedBody: {regex: "^ok"}, tls: {caRef: {secret: {name: vault, key: pem}}}}}
  - name: serving
    service: {name: ledger}
    probe: {grpc: {port: 50051, service: bank.Ledger, authority: "ledger.example:443", tls: {mode: SkipVerify}}}
  - {name: other, healthCheck: {name: backend}}
  - name: command
    probe: {script: {command: [check, --disk], env: [{name: LIMIT, value: "80"}], timeout: 3s}}
  - name: inline
    host: fd00::7
    port: 6379
    probe: {script: {source: exit 0, interpreter: [/bin/bash, -e]}}
"#;

fn target(name: &str, place: Place, port: Option<PortRef>, timeout_ms: u64, kind: ProbeKind) -> Target {
    let probe = Probe { timeout: Duration::from_millis(timeout_ms), kind };
    Target { name: name.into(), place, resolve: Resolve::Any, port, optional: false, zone: None, probe: probe.into() }
}

fn reference(kind: ReferenceKind, name: &str, key: &str) -> Option<Reference> {
    Some(Reference { kind, name: name.into(), key: key.into() })
}

fn https() -> HttpProbe {
    HttpProbe { scheme: Scheme::Https, ..HttpProbe::default() }
}

fn asked_of_the_service() -> ProbeKind {
    let token = Reference { kind: ReferenceKind::Secret, name: "token".into(), key: "bearer".into() };
    ProbeKind::Http(HttpProbe {
        scheme: Scheme::Https,
        port: Some(8443),
        path: "/ready?deep=1".into(),
        method: "POST".into(),
        host: Some("shop.example".into()),
        headers: vec![
            HttpHeader { name: "X-One".into(), source: HeaderSource::Value("alpha".into()), append: false },
            HttpHeader { name: "X-Two".into(), source: HeaderSource::Secret(token), append: true },
        ],
        body: Some("ping".into()),
        expected_statuses: vec![StatusRange { first: 204, last: 204 }, StatusRange { first: 300, last: 302 }],
        unhealthy_statuses: vec![StatusRange { first: 410, last: 410 }, StatusRange { first: 500, last: 503 }],
        expected_body: Some(BodyRule::Json { pointer: "/status".into(), equals: "ok".into() }),
        max_latency: Some(Duration::from_millis(750)),
        min_certificate_validity: Some(Duration::from_secs(240 * 3600)),
        redirects: Redirects::SameHost,
        version: HttpVersion::Http2,
        connection: Connection::Polite,
        reuse_connection: true,
        tls: Tls {
            mode: TlsMode::Verify,
            server_name: Some("inner.example".into()),
            ca: reference(ReferenceKind::ConfigMap, "authorities", "ca.crt"),
            client: Some(ClientCertificate {
                certificate: Reference { kind: ReferenceKind::Secret, name: "we".into(), key: "tls.crt".into() },
                key: Reference { kind: ReferenceKind::Secret, name: "we".into(), key: "tls.key".into() },
            }),
        },
    })
}

fn asked_of_the_ledger() -> ProbeKind {
    ProbeKind::Grpc(GrpcProbe {
        port: Some(50051),
        service: "bank.Ledger".into(),
        authority: Some("ledger.example:443".into()),
        tls: Some(Tls { mode: TlsMode::SkipVerify, ..Tls::default() }),
    })
}

fn selector() -> PodSelector {
    let requirement = |key: &str, operator, values: &[&str]| SelectorRequirement {
        key: key.into(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    PodSelector {
        match_labels: [("app".to_owned(), "web".to_owned())].into(),
        match_expressions: vec![
            requirement("zone", SelectorOperator::In, &["east", "west"]),
            requirement("stage", SelectorOperator::NotIn, &["test"]),
            requirement("ready", SelectorOperator::Exists, &[]),
            requirement("retired", SelectorOperator::DoesNotExist, &[]),
        ],
    }
}

fn script(command: &[&str], source: Option<&str>, env: &[(&str, &str)]) -> ProbeKind {
    ProbeKind::Script(ScriptProbe {
        command: command.iter().map(|part| (*part).into()).collect(),
        source: source.map(Into::into),
        env: env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    })
}

fn targets() -> Vec<Target> {
    let talk = || {
        ProbeKind::Tcp(TcpProbe {
            port: Some(7001),
            handshake: Handshake::Full,
            send: Some(b"PING".as_slice().into()),
            receive: vec![b"PO".as_slice().into(), b"NG".as_slice().into()],
            tls: Some(Tls { server_name: Some("tcp.example".into()), ..Tls::default() }),
        })
    };
    let skipping = Tls { mode: TlsMode::SkipVerify, ..Tls::default() };
    let vault = Tls { ca: reference(ReferenceKind::Secret, "vault", "pem"), ..Tls::default() };
    let ok = BodyRule::Matches(Pattern::new("^ok").expect("a pattern"));
    let address = |text: &str| Place::Host(Host::Address(text.parse().expect("an address")));
    let mut first = target("address", address("10.0.0.1"), Some(PortRef::Number(5432)), 1500, talk());
    first.optional = true;
    first.zone = Some("eu-a".into());
    vec![
        first,
        target(
            "service",
            Place::Service { name: "orders".into() },
            Some(PortRef::Name("web".into())),
            1500,
            asked_of_the_service(),
        ),
        target(
            "pods",
            Place::Pods { selector: Box::new(selector()) },
            Some(PortRef::Number(9090)),
            1500,
            ProbeKind::Http(HttpProbe {
                expected_body: Some(BodyRule::Contains("pong".into())),
                tls: skipping,
                ..https()
            }),
        ),
        Target {
            resolve: Resolve::All,
            ..target(
                "by-name",
                Place::Host(Host::Name("db.example".into())),
                None,
                1500,
                ProbeKind::Http(HttpProbe { port: Some(443), expected_body: Some(ok), tls: vault, ..https() }),
            )
        },
        target("serving", Place::Service { name: "ledger".into() }, None, 1500, asked_of_the_ledger()),
        target("other", Place::Check { name: "backend".into() }, None, 1500, talk()),
        target("command", Place::Nowhere, None, 3000, script(&["check", "--disk"], None, &[("LIMIT", "80")])),
        target(
            "inline",
            address("fd00::7"),
            Some(PortRef::Number(6379)),
            1500,
            script(&["/bin/bash", "-e"], Some("exit 0"), &[]),
        ),
    ]
}

fn written() -> Value {
    serde_saphyr::from_str(MANIFEST).expect("YAML")
}

#[test]
fn every_field_that_is_written_reaches_the_check() {
    let object: HealthCheck = serde_json::from_value(written()).expect("a HealthCheck");
    let check = compile(&object, Mode::Cluster).unwrap_or_else(|problems| panic!("{problems:#?}"));
    let expected = Check {
        key: ObjectKey::new("shop", "all"),
        uid: "0f0e".into(),
        generation: 7,
        labels: std::sync::Arc::new([("tier".to_owned(), "gold".to_owned())].into()),
        suspend: true,
        rhythm: Rhythm {
            interval: Duration::from_secs(20),
            unhealthy_interval: Duration::from_secs(30),
            confirm_interval: Duration::from_secs(5),
            no_traffic_interval: None,
            jitter_percent: 15,
        },
        thresholds: Thresholds { success: 4, failure: Some(9), connect: Some(5), http: Some(6), timeout: Some(7) },
        initial_state: InitialState::Unhealthy,
        stale_after: Duration::from_secs(90),
        min_healthy: MinHealthy::Count(2),
        annotations: false,
        targets: targets(),
        passive: Some(Box::new(Passive {
            healthy: vec![StatusRange { first: 201, last: 201 }, StatusRange { first: 207, last: 208 }],
            unhealthy: vec![StatusRange { first: 430, last: 430 }, StatusRange { first: 510, last: 511 }],
            limits: Thresholds { success: 8, failure: None, connect: None, http: Some(10), timeout: Some(11) },
            unprobed: Some(Duration::from_secs(45)),
        })),
        gates: vec![],
        overrides: Overrides {
            entries: vec![Override {
                target: None,
                word: Word::Healthy,
                until: "2030-01-01T00:00:00Z".parse().expect("a time"),
            }],
            problems: vec!["override 'x': no '='; write <target>=Healthy|Unhealthy until <RFC 3339 time>".to_owned()],
        },
    };
    // One by one first: a difference in a whole check is hard to find.
    for (found, wanted) in check.targets.iter().zip(&expected.targets) {
        assert_eq!(found, wanted, "{}", wanted.name);
    }
    assert_eq!(check, expected);
}

/// How long an ejection lasts and how rarely what has no traffic is probed exclude each other.
fn written_for_probes() -> Value {
    let unprobed = "activeProbes: \"Off\"\n    ejectionTime: 45s";
    assert!(MANIFEST.contains(unprobed));
    serde_saphyr::from_str(&MANIFEST.replace(unprobed, "noTrafficInterval: 85s")).expect("YAML")
}

#[test]
fn the_interval_without_traffic_reaches_the_rhythm_and_the_default_of_stale_after() {
    let mut written = written_for_probes();
    let compiled = |written: &Value| {
        let object: HealthCheck = serde_json::from_value(written.clone()).expect("a HealthCheck");
        compile(&object, Mode::Cluster).unwrap_or_else(|problems| panic!("{problems:#?}"))
    };
    let check = compiled(&written);
    assert_eq!(check.rhythm.no_traffic_interval, Some(Duration::from_secs(85)));
    assert_eq!((check.rhythm.longest(), check.rhythm.rarest()), (Duration::from_secs(30), Duration::from_secs(85)));
    assert_eq!(check.passive.expect("there").unprobed, None);
    written["spec"].as_object_mut().expect("a spec").remove("staleAfter");
    // Three times the longest interval, and the longest attempt.
    assert_eq!(compiled(&written).stale_after, Duration::from_secs(3 * 85 + 3));
}

/// A field that comes to the schema and not to the manifests would be compiled unseen.
#[test]
fn the_manifest_names_every_field_of_the_schema() {
    let (mut known, mut named) = (BTreeSet::new(), BTreeSet::new());
    fields(&crd::schema()["properties"]["spec"], "spec", &mut known);
    paths(&written()["spec"], "spec", &mut named);
    paths(&written_for_probes()["spec"], "spec", &mut named);
    // An annotation gate and `annotations: Off` exclude each other, so gates have a manifest of their own.
    paths(&super::gates::written()["spec"], "spec", &mut named);
    let missing: Vec<_> = known.difference(&named).collect();
    assert!(known.len() > 50 && missing.is_empty(), "not in the manifest: {missing:#?}");
}

/// A target's own probe is the same type as the default one, a gate's selector as a target's.
fn plain(path: &str) -> String {
    path.replace("spec.targets[].probe", "spec.probe")
        .replace("probe.tcp.tls", "probe.http.tls")
        .replace("probe.grpc.tls", "probe.http.tls")
        .replace("spec.gates[].podReadiness.selector", "spec.targets[].pods.selector")
}

fn fields(schema: &Value, path: &str, known: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        known.insert(plain(&path));
        fields(field, &path, known);
        fields(&field["items"], &format!("{path}[]"), known);
    }
}

fn paths(value: &Value, path: &str, named: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                named.insert(plain(&path));
                paths(value, &path, named);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), named)),
        _ => {}
    }
}

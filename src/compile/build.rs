//! The values of a check that has no problems: defaults filled in, texts parsed.

use std::{net::Ipv6Addr, sync::Arc, time::Duration};

use super::{probe_rules::parse_statuses, spec_rules::parse_percent};
use crate::{
    api::{
        self, HealthCheck, HealthCheckSpec, IntOrString,
        probe::{self as written, TLS_CERTIFICATE, TLS_KEY},
    },
    check::{
        BodyRule, Check, ClientCertificate, Connection, Gate, GateKind, GateLimits, GateMode, GatePolicy, GrpcProbe,
        Handshake, HeaderSource, Host, HttpHeader, HttpProbe, HttpVersion, InitialState, MinHealthy, ObjectKey,
        Overrides, Passive, Pattern, Place, PodSelector, PortRef, Probe, ProbeKind, Redirects, Reference,
        ReferenceKind, Resolve, Rhythm, Scheme, ScriptProbe, SelectorOperator, SelectorRequirement, Target, TcpProbe,
        Text, Thresholds, Tls, TlsMode, shared,
    },
};

/// Where nothing is written: long enough for a slow answer, short enough to notice a dead one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// A verdict is believed for at least this long, however short the intervals.
const SHORTEST_DEFAULT_STALE_AFTER: Duration = Duration::from_secs(30);
/// As long as a proxy that ejects by itself holds back an endpoint at first (Envoy's `base_ejection_time`).
const DEFAULT_EJECTION: Duration = Duration::from_secs(30);
/// A namespace is always there in a cluster; files may leave it out.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The check of an object that the rules have found nothing wrong with.
pub fn check(object: &HealthCheck) -> Check {
    let spec = &object.spec;
    let metadata = &object.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let key = ObjectKey::shared(namespace, metadata.name.as_deref().unwrap_or_default());
    let rhythm = rhythm(spec);
    let timeout = spec.timeout.map_or_else(|| default_timeout(spec), api::Duration::to_std);
    let targets = targets(spec, namespace, timeout);
    let longest_attempt = targets.iter().map(|target| target.probe.timeout).max().unwrap_or(timeout);
    let stale_after = spec.stale_after.map_or_else(
        || (rhythm.rarest() * 3 + longest_attempt).max(SHORTEST_DEFAULT_STALE_AFTER),
        api::Duration::to_std,
    );
    let names: Vec<_> = targets.iter().map(|target| target.name.clone()).collect();
    let said = metadata.annotations.as_ref().and_then(|all| all.get(api::OVERRIDE_ANNOTATION));
    Check {
        uid: metadata.uid.as_deref().map_or_else(|| key.to_string().into(), Into::into),
        key,
        generation: metadata.generation.unwrap_or_default(),
        labels: shared::labels(metadata.labels.clone().unwrap_or_default()),
        suspend: spec.suspend,
        rhythm,
        thresholds: thresholds(spec),
        initial_state: match spec.initial_state {
            api::InitialState::Unknown => InitialState::Unknown,
            api::InitialState::Healthy => InitialState::Healthy,
            api::InitialState::Unhealthy => InitialState::Unhealthy,
        },
        stale_after,
        min_healthy: members(&spec.min_healthy),
        annotations: spec.annotations == api::Annotations::On,
        targets,
        passive: spec.passive.as_ref().map(passive).map(Box::new),
        gates: spec.gates.iter().map(gate).collect(),
        overrides: said.map(|said| Overrides::parse(said, &names)).unwrap_or_default(),
    }
}

/// The timeout where none is written.
pub(super) fn default_timeout(spec: &HealthCheckSpec) -> Duration {
    DEFAULT_TIMEOUT.min(rhythm(spec).shortest())
}

fn rhythm(spec: &HealthCheckSpec) -> Rhythm {
    let passive = spec.passive.as_ref();
    Rhythm {
        interval: spec.interval.to_std(),
        unhealthy_interval: spec.unhealthy_interval.unwrap_or(spec.interval).to_std(),
        confirm_interval: spec.confirm_interval.unwrap_or(spec.interval).to_std(),
        no_traffic_interval: passive.and_then(|passive| passive.no_traffic_interval).map(api::Duration::to_std),
        jitter_percent: spec.jitter_percent,
    }
}

fn thresholds(spec: &HealthCheckSpec) -> Thresholds {
    let classes = spec.failure_thresholds.clone().unwrap_or_default();
    Thresholds {
        success: spec.success_threshold,
        failure: Some(spec.failure_threshold),
        connect: classes.connect,
        http: classes.http,
        timeout: classes.timeout,
    }
}

fn passive(passive: &api::Passive) -> Passive {
    let statuses = |list: &[IntOrString]| list.iter().filter_map(parse_statuses).collect();
    // 0 stands for no limit.
    let limit = |limit: u8| (limit > 0).then_some(limit);
    let classes = &passive.failure_thresholds;
    Passive {
        healthy: statuses(&passive.healthy_statuses),
        unhealthy: statuses(&passive.unhealthy_statuses),
        limits: Thresholds {
            success: passive.success_threshold,
            failure: None,
            connect: limit(classes.connect),
            http: limit(classes.http),
            timeout: limit(classes.timeout),
        },
        unprobed: match passive.active_probes {
            api::ActiveProbes::On => None,
            api::ActiveProbes::Off => Some(passive.ejection_time.map_or(DEFAULT_EJECTION, api::Duration::to_std)),
        },
    }
}

/// What the rules let through is a number or a percentage; anything else would ask for all, the safest reading.
fn members(number: &IntOrString) -> MinHealthy {
    match number {
        IntOrString::Int(count) => MinHealthy::Count(u32::try_from(*count).unwrap_or(u32::MAX)),
        IntOrString::String(text) => MinHealthy::Percent(parse_percent(text).unwrap_or(100)),
    }
}

fn targets(spec: &HealthCheckSpec, namespace: &str, timeout: Duration) -> Vec<Target> {
    let fallback = written::Probe { tcp: Some(written::TcpProbe::default()), ..written::Probe::default() };
    let mut targets = Vec::with_capacity(spec.targets.len());
    // Of one template come many checks with the same targets: they share the list, and with it each name.
    let names = shared::names(spec.targets.iter().map(|target| target.name.as_str().into()).collect());
    for (target, name) in spec.targets.iter().zip(&*names) {
        let probe = target.probe.as_ref().or(spec.probe.as_ref()).unwrap_or(&fallback);
        targets.push(Target {
            name: name.clone(),
            place: place(target),
            resolve: match target.resolve {
                Some(api::Resolve::All) => Resolve::All,
                Some(api::Resolve::Any) | None => Resolve::Any,
            },
            port: target.port.as_ref().map(port),
            optional: target.optional,
            zone: target.zone.as_deref().map(Into::into),
            probe: shared::probe(build_probe(probe, target, namespace, timeout)),
        });
    }
    targets
}

fn place(target: &api::Target) -> Place {
    if let Some(host) = &target.host {
        Place::Host(host.parse().map_or_else(|_| Host::Name(host.as_str().into()), Host::Address))
    } else if let Some(service) = &target.service {
        Place::Service { name: service.name.as_str().into() }
    } else if let Some(pods) = &target.pods {
        Place::Pods { selector: Box::new(selector(&pods.selector)) }
    } else if let Some(check) = &target.health_check {
        Place::Check { name: check.name.as_str().into() }
    } else {
        Place::Nowhere
    }
}

fn gate(gate: &api::Gate) -> Gate {
    let kind = gate_kind(gate);
    // A verdict about all pods at once knows no floor: ready are all of them or none.
    let fewest = match kind {
        GateKind::PodReadiness { selector: Some(_), .. } => 0,
        _ => 1,
    };
    Gate {
        name: gate.name.as_str().into(),
        kind,
        mode: match gate.mode {
            api::GateMode::Enforce => GateMode::Enforce,
            api::GateMode::DryRun => GateMode::DryRun,
        },
        limits: GateLimits {
            min_ready: gate.min_ready.as_ref().map_or(MinHealthy::Count(fewest), members),
            max_removed_percent: gate.max_removed_percent,
            when_below: policy(gate.when_below),
            when_unknown: policy(gate.when_unknown),
        },
    }
}

/// The rules let exactly one through. An annotation withholds nothing, so it is what is left.
fn gate_kind(gate: &api::Gate) -> GateKind {
    if let Some(slice) = &gate.endpoint_slice {
        GateKind::EndpointSlice { service: slice.service.as_str().into(), port: slice.port.as_ref().map(port) }
    } else if let Some(readiness) = &gate.pod_readiness {
        GateKind::PodReadiness {
            condition_type: readiness.condition_type.as_str().into(),
            selector: readiness.selector.as_ref().map(selector),
        }
    } else {
        GateKind::Annotation
    }
}

const fn policy(policy: api::GatePolicy) -> GatePolicy {
    match policy {
        api::GatePolicy::FailOpen => GatePolicy::FailOpen,
        api::GatePolicy::FailStatic => GatePolicy::FailStatic,
        api::GatePolicy::FailClosed => GatePolicy::FailClosed,
    }
}

fn selector(selector: &api::LabelSelector) -> PodSelector {
    PodSelector {
        match_labels: selector.match_labels.clone(),
        match_expressions: selector
            .match_expressions
            .iter()
            .map(|requirement| SelectorRequirement {
                key: requirement.key.clone(),
                operator: match requirement.operator {
                    api::SelectorOperator::In => SelectorOperator::In,
                    api::SelectorOperator::NotIn => SelectorOperator::NotIn,
                    api::SelectorOperator::Exists => SelectorOperator::Exists,
                    api::SelectorOperator::DoesNotExist => SelectorOperator::DoesNotExist,
                },
                values: requirement.values.clone(),
            })
            .collect(),
    }
}

fn port(port: &IntOrString) -> PortRef {
    match port {
        // The rules keep it within 1–65535; 0 would be refused when it is dialed.
        IntOrString::Int(number) => PortRef::Number(u16::try_from(*number).unwrap_or_default()),
        IntOrString::String(name) => PortRef::Name(name.as_str().into()),
    }
}

fn build_probe(probe: &written::Probe, target: &api::Target, namespace: &str, timeout: Duration) -> Probe {
    if let Some(script) = &probe.script {
        let timeout = script.timeout.map_or(timeout, api::Duration::to_std);
        return Probe { timeout, kind: ProbeKind::Script(build_script(script)) };
    }
    let kind = if let Some(http) = &probe.http {
        ProbeKind::Http(build_http(http, target, namespace))
    } else if let Some(grpc) = &probe.grpc {
        ProbeKind::Grpc(build_grpc(grpc, target, namespace))
    } else {
        ProbeKind::Tcp(probe.tcp.as_ref().map(build_tcp).unwrap_or_default())
    };
    Probe { timeout, kind }
}

fn build_tcp(tcp: &written::TcpProbe) -> TcpProbe {
    TcpProbe {
        port: tcp.port,
        handshake: match tcp.handshake {
            written::Handshake::HalfOpen => Handshake::HalfOpen,
            written::Handshake::Full => Handshake::Full,
        },
        send: tcp.send.as_deref().map(bytes),
        receive: tcp.receive.iter().flatten().map(|block| bytes(block)).collect(),
        tls: tcp.tls.as_ref().map(build_tls),
    }
}

/// What the rules let through is base64.
fn bytes(base64: &str) -> Arc<[u8]> {
    data_encoding::BASE64_MIME_PERMISSIVE.decode(base64.as_bytes()).unwrap_or_default().into()
}

fn build_grpc(grpc: &written::GrpcProbe, target: &api::Target, namespace: &str) -> GrpcProbe {
    let authority = grpc.authority.clone().or_else(|| {
        let service = target.service.as_ref()?;
        Some(format!("{}.{namespace}.svc", service.name))
    });
    GrpcProbe {
        port: grpc.port,
        service: grpc.service.as_str().into(),
        authority: authority.map(Into::into),
        tls: grpc.tls.as_ref().map(build_tls),
    }
}

fn build_http(http: &written::HttpProbe, target: &api::Target, namespace: &str) -> HttpProbe {
    let scheme = match http.scheme {
        written::Scheme::Http => Scheme::Http,
        written::Scheme::Https => Scheme::Https,
    };
    // Only a host may go without: a Service brings its own port, and pods must name one.
    let scheme_port = (target.host.is_some() && target.port.is_none()).then(|| scheme.default_port());
    HttpProbe {
        scheme,
        port: http.port.or(scheme_port),
        path: http.path.as_str().into(),
        method: http.method.as_str().into(),
        host: host_header(http, target, namespace),
        headers: http.headers.iter().map(build_header).collect(),
        body: http.body.as_deref().map(Into::into),
        expected_statuses: http.expected_statuses.iter().filter_map(parse_statuses).collect(),
        unhealthy_statuses: http.unhealthy_statuses.iter().flatten().filter_map(parse_statuses).collect(),
        expected_body: http.expected_body.as_ref().and_then(body_rule),
        max_latency: http.max_latency.map(api::Duration::to_std),
        min_certificate_validity: http.min_certificate_validity.map(api::Duration::to_std),
        redirects: match http.follow_redirects {
            written::FollowRedirects::None => Redirects::None,
            written::FollowRedirects::SameHost => Redirects::SameHost,
        },
        connection: match http.connection_close {
            written::ConnectionClose::Reset => Connection::Reset,
            written::ConnectionClose::Polite => Connection::Polite,
        },
        reuse_connection: http.reuse_connection,
        version: match http.http_version {
            written::HttpVersion::Auto => HttpVersion::Auto,
            written::HttpVersion::HTTP11 => HttpVersion::Http11,
            written::HttpVersion::HTTP2 => HttpVersion::Http2,
        },
        tls: http.tls.as_ref().map(build_tls).unwrap_or_default(),
    }
}

/// `None` only of what the rules refuse.
fn body_rule(body: &written::ExpectedBody) -> Option<BodyRule> {
    if let Some(text) = &body.contains {
        return Some(BodyRule::Contains(text.as_str().into()));
    }
    if let Some(regex) = &body.regex {
        return Pattern::new(regex).ok().map(BodyRule::Matches);
    }
    let (pointer, equals) = body.json_pointer.as_deref().zip(body.equals.as_deref())?;
    Some(BodyRule::Json { pointer: pointer.into(), equals: equals.into() })
}

/// What is sent as Host where it is not what is dialed. A target's own `host` is: the probe adds the port as clients do,
/// and targets that differ in it alone share one probe. Pods have no name that a client would use.
fn host_header(http: &written::HttpProbe, target: &api::Target, namespace: &str) -> Option<Text> {
    match &http.host {
        Some(host) if host.parse::<Ipv6Addr>().is_ok() => Some(format!("[{host}]").into()),
        Some(host) => Some(host.as_str().into()),
        None => target.service.as_ref().map(|service| format!("{}.{namespace}.svc", service.name).into()),
    }
}

fn build_header(header: &written::Header) -> HttpHeader {
    HttpHeader {
        name: header.name.as_str().into(),
        source: match &header.value_from {
            Some(from) => HeaderSource::Secret(reference(ReferenceKind::Secret, &from.secret_key_ref)),
            None => HeaderSource::Value(header.value.as_deref().unwrap_or_default().into()),
        },
        append: header.append,
    }
}

fn build_tls(tls: &written::Tls) -> Tls {
    let ca = tls.ca_ref.as_ref().and_then(|ca| {
        let config_map = ca.config_map.as_ref().map(|key| reference(ReferenceKind::ConfigMap, key));
        config_map.or_else(|| ca.secret.as_ref().map(|key| reference(ReferenceKind::Secret, key)))
    });
    Tls {
        mode: match tls.mode {
            written::TlsMode::Verify => TlsMode::Verify,
            written::TlsMode::SkipVerify => TlsMode::SkipVerify,
        },
        server_name: tls.server_name.as_deref().map(Into::into),
        ca,
        client: tls.client_cert_ref.as_ref().map(|client| {
            let of = |key: &str| Reference {
                kind: ReferenceKind::Secret,
                name: client.secret.as_str().into(),
                key: key.into(),
            };
            ClientCertificate { certificate: of(TLS_CERTIFICATE), key: of(TLS_KEY) }
        }),
    }
}

fn reference(kind: ReferenceKind, key: &written::KeyReference) -> Reference {
    Reference { kind, name: key.name.as_str().into(), key: key.key.as_str().into() }
}

fn build_script(script: &written::ScriptProbe) -> ScriptProbe {
    let command = if script.source.is_some() { Some(&script.interpreter) } else { script.command.as_ref() };
    ScriptProbe {
        command: command.into_iter().flatten().map(|part| part.as_str().into()).collect(),
        source: script.source.as_deref().map(Into::into),
        env: script.env.iter().map(|var| (var.name.as_str().into(), var.value.as_str().into())).collect(),
    }
}

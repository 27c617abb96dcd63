//! The board in the words of blackbox_exporter, so that dashboards, alerts and `Probe` objects made for that one work:
//! `/probe?target=` for one check or target, `/metrics/probes` for all.
//!
//! Asking probes nothing. A figure is told where it was measured, and absent otherwise: while a verdict is unknown there is
//! no `probe_success`, for 0 would say that somebody looked.

use std::{collections::HashSet, fmt, sync::Arc};

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, Uri};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};

use super::{
    admin::Admin,
    exposition::expose,
    respond::{self, Failure},
    verdict::{Filter, Subject, Verdict, judge},
};
use crate::{
    check::{EndpointState, Health, Kind, ObjectKey, Reason},
    engine::{Board, CheckView, EndpointView},
};

/// A metric of blackbox_exporter, by its name there.
struct Family {
    name: &'static str,
    help: &'static str,
    /// What was measured at one endpoint.
    of: fn(&EndpointView) -> Option<f64>,
    /// What stands for several endpoints.
    over: Over,
}

#[derive(Clone, Copy)]
enum Over {
    /// The check's, or the target's, own verdict.
    Verdict,
    Greatest,
    Least,
    /// What all of them share; nothing where they differ.
    Shared,
}

const FAMILIES: [Family; 7] = [
    Family {
        name: "probe_success",
        help: "The verdict: 1 while healthy, 0 while unhealthy, absent while unknown; one failed probe is no verdict",
        of: success,
        over: Over::Verdict,
    },
    Family {
        name: "probe_duration_seconds",
        help: "How long the last probe took, whatever came of it; over several endpoints the longest",
        of: |endpoint| endpoint.live.latency().map(|latency| latency.as_secs_f64()),
        over: Over::Greatest,
    },
    Family {
        name: "probe_dns_lookup_time_seconds",
        help: "How much of the last probe went into looking up the host's name; absent for an address",
        of: |endpoint| endpoint.live.lookup().map(|lookup| lookup.as_secs_f64()),
        over: Over::Greatest,
    },
    Family {
        name: "probe_ip_protocol",
        help: "4 or 6, where the endpoint is an address",
        of: protocol,
        over: Over::Shared,
    },
    Family {
        name: "probe_http_status_code",
        help: "What the last HTTP probe was answered with; absent where no answer came, or endpoints differ",
        of: |endpoint| is_http(endpoint).then(|| endpoint.live.status()).flatten().map(f64::from),
        over: Over::Shared,
    },
    Family {
        name: "probe_failed_due_to_regex",
        help: "1 where the last HTTP probe failed by what the body holds, 0 where it did not",
        of: |endpoint| {
            let answered = is_http(endpoint) && endpoint.live.status().is_some();
            answered.then(|| f64::from(u8::from(endpoint.reason == Some(Reason::UnexpectedBody))))
        },
        over: Over::Greatest,
    },
    Family {
        name: "probe_ssl_earliest_cert_expiry",
        help: "When the certificate expires that was shown last, in seconds since the epoch; of several the earliest",
        // Exact: far below 2^53.
        of: |endpoint| endpoint.certificate_expires.map(|at| at as f64),
        over: Over::Least,
    },
];

fn success(endpoint: &EndpointView) -> Option<f64> {
    match endpoint.state {
        EndpointState::Unknown => None,
        state => Some(f64::from(u8::from(state.is_healthy()))),
    }
}

fn is_http(endpoint: &EndpointView) -> bool {
    endpoint.kind == Kind::Http
}

fn protocol(endpoint: &EndpointView) -> Option<f64> {
    // A script may ask what it likes.
    let dialed = matches!(endpoint.kind, Kind::Tcp | Kind::Http | Kind::Grpc);
    endpoint.address().filter(|_| dialed).map(|address| if address.is_ipv4() { 4.0 } else { 6.0 })
}

/// Every endpoint of the board, by labels.
#[derive(Debug)]
pub struct AllProbes {
    pub board: Arc<Board>,
}

impl Collector for AllProbes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let checks = if self.board.is_current() { self.board.all() } else { Vec::new() };
        for family in &FAMILIES {
            let mut series = checks.iter().flat_map(|view| measured(view, family)).peekable();
            if series.peek().is_none() {
                continue;
            }
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
            for (view, endpoint, value) in series {
                let labels = [
                    ("namespace", &*view.key.namespace),
                    ("name", &*view.key.name),
                    ("target", &*endpoint.target),
                    ("endpoint", &*endpoint.label),
                ];
                ConstGauge::new(value).encode(metric.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

/// What was measured at each endpoint of `view`, each of them once: a series that comes twice would spoil the scrape.
fn measured<'a>(view: &'a CheckView, family: &Family) -> Vec<(&'a CheckView, &'a EndpointView, f64)> {
    let mut seen = HashSet::new();
    let endpoints = view.endpoints.iter().filter(|_| !view.suspended);
    endpoints
        .filter_map(|endpoint| Some((view, endpoint, (family.of)(endpoint)?)))
        .filter(|(_, endpoint, _)| seen.insert((&endpoint.target, &endpoint.label)))
        .collect()
}

/// One check or target, without labels.
#[derive(Debug)]
struct OneProbe {
    values: [Option<f64>; FAMILIES.len()],
}

impl OneProbe {
    fn of(verdict: &Verdict) -> Self {
        let views = verdict.checks.iter().filter(|view| !view.suspended);
        let endpoints: Vec<_> = views.flat_map(|view| verdict.endpoints(view)).collect();
        let suspended = verdict.checks.iter().any(|view| view.suspended);
        Self {
            values: FAMILIES.each_ref().map(|family| {
                let mut values = endpoints.iter().filter_map(|endpoint| (family.of)(endpoint));
                match family.over {
                    Over::Verdict if suspended => None,
                    Over::Verdict => match verdict.health {
                        Health::Healthy | Health::Degraded => Some(1.0),
                        Health::Unhealthy => Some(0.0),
                        Health::Unknown => None,
                    },
                    Over::Greatest => values.reduce(f64::max),
                    Over::Least => values.reduce(f64::min),
                    Over::Shared => {
                        let first = values.next()?;
                        values.all(|value| value == first).then_some(first)
                    }
                }
            }),
        }
    }
}

impl Collector for OneProbe {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, value) in FAMILIES.iter().zip(self.values) {
            let Some(value) = value else { continue };
            let metric = encoder.encode_descriptor(family.name, family.help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

/// `GET /metrics/probes`.
pub async fn all(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    respond::off_thread(move || expose(&admin.probes, &headers)).await
}

/// `GET /probe?target=NAMESPACE/NAME[/TARGET]`. Parameters of blackbox_exporter that mean nothing here, `module` say, are
/// passed over.
pub async fn one(State(admin): State<Arc<Admin>>, uri: Uri, headers: HeaderMap) -> Response {
    let subject = match target(&uri).and_then(|target| subject(&target)) {
        Ok(subject) => subject,
        Err(why) => return Failure::new(StatusCode::BAD_REQUEST, why).into_response(),
    };
    match judge(&admin.board, subject, &Filter::default(), true) {
        Ok(verdict) if !verdict.believed => {
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, verdict.why()).into_response()
        }
        Ok(verdict) => {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(OneProbe::of(&verdict)));
            expose(&registry, &headers)
        }
        Err(why) => Failure::new(StatusCode::NOT_FOUND, why.to_string()).into_response(),
    }
}

fn target(uri: &Uri) -> Result<String, String> {
    let Query(pairs): Query<Vec<(String, String)>> =
        Query::try_from_uri(uri).map_err(|error| format!("the query cannot be read: {error}"))?;
    let mut targets = pairs.into_iter().filter(|(name, _)| name == "target").map(|(_, value)| value);
    match (targets.next(), targets.next()) {
        (Some(target), None) => Ok(target),
        (None, _) => Err("target: is missing; want ?target=NAMESPACE/NAME or ?target=NAMESPACE/NAME/TARGET".into()),
        (Some(_), Some(_)) => Err("target: is there more than once; ask for one at a time".into()),
    }
}

fn subject(target: &str) -> Result<Subject, String> {
    let parts: Vec<_> = target.split('/').collect();
    match parts.as_slice() {
        parts if parts.iter().any(|part| part.is_empty()) => {}
        [namespace, name] => return Ok(Subject::Check(ObjectKey::new(namespace, name))),
        [namespace, name, target] => {
            return Ok(Subject::Target(ObjectKey::new(namespace, name), (*target).to_owned()));
        }
        _ => {}
    }
    Err(format!("target: {target:?} names no HealthCheck; want NAMESPACE/NAME or NAMESPACE/NAME/TARGET"))
}

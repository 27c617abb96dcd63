//! What is told of a run. Pure.

use serde::Serialize;

use crate::check::{Endpoint, Host, Kind, MinHealthy, Outcome, Reason, Report, Resolve};

/// How many endpoints an error names.
const NAMED: usize = 3;

/// Of a whole run. `healthy` and `error` are always there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// `None`: it could not be told, since nobody could look, or what was answered is neither good nor bad.
    pub healthy: Option<bool>,
    /// Why not; empty where all is well.
    pub error: String,
    pub endpoints: Vec<EndpointAnswer>,
}

/// Of one endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointAnswer {
    pub target: String,
    /// `10.1.2.3:8080`; empty for a script without a place.
    pub endpoint: String,
    pub optional: bool,
    pub healthy: Option<bool>,
    pub error: String,
    /// One of the closed set of `http-and-cli.md`.
    pub reason: Option<&'static str>,
    pub latency_seconds: f64,
    #[serde(skip)]
    pub kind: Kind,
    /// Seconds since the epoch.
    #[serde(skip)]
    pub certificate_expires: Option<i64>,
    /// An answer that is neither good nor bad: it changes nothing.
    #[serde(skip)]
    pub neutral: bool,
}

impl Answer {
    /// `min`: how many must be healthy of those that are not optional; `None`: all of them, optional ones too.
    pub(super) fn of(asked: Vec<(Endpoint, Report)>, min: Option<MinHealthy>) -> Self {
        let endpoints: Vec<_> =
            asked.iter().flat_map(|(endpoint, report)| EndpointAnswer::each(endpoint, report)).collect();
        let mandatory = endpoints.iter().any(|endpoint| !endpoint.optional);
        let counted = || endpoints.iter().filter(|endpoint| min.is_none() || !mandatory || !endpoint.optional);
        let total = counted().count();
        let wanted = min.map_or(total, |min| min.of(total as u32) as usize);
        let healthy = counted().filter(|endpoint| endpoint.healthy == Some(true)).count();
        let unknown = counted().filter(|endpoint| endpoint.healthy.is_none()).count();
        let healthy = match () {
            () if healthy >= wanted => Some(true),
            () if healthy + unknown < wanted => Some(false),
            () => None,
        };
        let error = if healthy == Some(true) { String::new() } else { error(&endpoints) };
        Self { healthy, error, endpoints }
    }
}

/// What failed, failures before what nobody could look at.
pub(super) fn error(endpoints: &[EndpointAnswer]) -> String {
    let mut bad: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.healthy != Some(true)).collect();
    bad.sort_by_key(|endpoint| (endpoint.optional, endpoint.healthy.is_none()));
    let told = |endpoint: &&EndpointAnswer| match (endpoints.len(), &*endpoint.endpoint) {
        (1, _) => endpoint.error.clone(),
        (_, "") => format!("{}: {}", endpoint.target, endpoint.error),
        (_, place) => format!("{} {place}: {}", endpoint.target, endpoint.error),
    };
    let mut text = bad.iter().take(NAMED).map(told).collect::<Vec<_>>().join("; ");
    if bad.len() > NAMED {
        text.push_str(&format!("; and {} more", bad.len() - NAMED));
    }
    text
}

impl EndpointAnswer {
    /// As the board has it: of a name with `resolve: All` each address speaks for itself, of everything else one answer
    /// stands for all.
    fn each(endpoint: &Endpoint, report: &Report) -> Vec<Self> {
        let found = report.found.as_ref().filter(|_| endpoint.resolve == Resolve::All);
        let found = found.map(|found| &*found.reports).unwrap_or_default();
        if found.is_empty() {
            return vec![Self::of(endpoint, endpoint.label.to_string(), report)];
        }
        let label = |ip| Host::Address(ip).with_port(endpoint.port);
        let mut found: Vec<_> = found.iter().collect();
        found.sort_by_key(|(ip, _)| *ip);
        found.into_iter().map(|(ip, report)| Self::of(endpoint, label(*ip), report)).collect()
    }

    fn of(endpoint: &Endpoint, label: String, report: &Report) -> Self {
        let outcome = &report.outcome;
        Self {
            target: endpoint.target.to_string(),
            endpoint: label,
            optional: endpoint.optional,
            healthy: match outcome {
                Outcome::Success => Some(true),
                Outcome::Failure { .. } => Some(false),
                Outcome::Neutral { .. } | Outcome::Local { .. } => None,
            },
            error: outcome.message().to_owned(),
            reason: outcome.reason().map(Reason::as_str),
            latency_seconds: report.latency.as_secs_f64(),
            kind: endpoint.probe.tag(),
            certificate_expires: report.certificate_expires,
            neutral: matches!(outcome, Outcome::Neutral { .. }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::check::{Found, Probe, ProbeKind, TcpProbe};

    fn one(target: &str, optional: bool, reason: Option<Reason>) -> (Endpoint, Report) {
        let label: crate::check::Text = format!("{target}:80").into();
        let endpoint = Endpoint {
            target: target.into(),
            identity: label.clone(),
            label,
            dial: None,
            port: Some(80),
            resolve: Resolve::Any,
            optional,
            probe: Arc::new(Probe { timeout: Duration::from_secs(1), kind: ProbeKind::Tcp(TcpProbe::default()) }),
        };
        let outcome = reason.map_or(Outcome::Success, |reason| Outcome::from_reason(reason, "as told"));
        (endpoint, Report::new(outcome, Duration::from_millis(2)))
    }

    const DOWN: Option<Reason> = Some(Reason::ConnectionRefused);
    const BLIND: Option<Reason> = Some(Reason::NoDescriptors);

    #[test]
    fn a_run_is_healthy_where_enough_of_it_is() {
        let of = |asked, min| {
            let answer = Answer::of(asked, min);
            (answer.healthy, answer.error)
        };
        let all = Some(MinHealthy::Percent(100));
        let well = || one("a", false, None);
        assert_eq!(of(vec![well()], all), (Some(true), String::new()));
        assert_eq!(of(vec![one("a", false, DOWN)], all), (Some(false), "as told".into()));
        assert_eq!(of(vec![one("a", false, BLIND)], all), (None, "as told".into()));
        assert_eq!(of(vec![well(), one("b", false, DOWN)], all), (Some(false), "b b:80: as told".into()));
        assert_eq!(of(vec![well(), one("b", false, DOWN)], Some(MinHealthy::Count(1))).0, Some(true));
        assert_eq!(of(vec![well(), one("b", false, BLIND)], all).0, None);
        assert_eq!(of(vec![well(), one("b", true, DOWN)], all).0, Some(true), "an optional one decides nothing");
        assert_eq!(of(vec![one("b", true, DOWN)], all).0, Some(false), "unless there is nothing else");
        assert_eq!(of(vec![well(), one("b", true, DOWN)], None).0, Some(false), "or it was asked for");
        let address = |last, reason| ([10, 0, 0, last].into(), one("x", false, reason).1);
        let name = |resolve| {
            let found = Found { reports: vec![address(1, None), address(2, DOWN), address(3, DOWN)], unheard: None };
            let (endpoint, report) = one("x", false, None);
            vec![(Endpoint { resolve, ..endpoint }, Report { found: Some(Box::new(found)), ..report })]
        };
        assert_eq!(of(name(Resolve::Any), all), (Some(true), String::new()));
        assert_eq!(of(name(Resolve::All), all), (Some(false), "x 10.0.0.2:80: as told; x 10.0.0.3:80: as told".into()));
        assert_eq!(of(name(Resolve::All), Some(MinHealthy::Count(1))).0, Some(true));
        let many = (0..5).map(|_| one("x", false, DOWN)).collect();
        assert!(of(many, all).1.ends_with("; and 2 more"));
    }
}

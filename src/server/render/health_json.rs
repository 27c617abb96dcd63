//! The form of the Internet-Draft "Health Check Response Format for HTTP APIs" (draft-inadarei-api-health-check-06).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    check::{EndpointState, Health},
    engine::{CheckView, EndpointView},
    server::{
        config::Details,
        verdict::{Subject, Verdict, check_why, endpoint_why},
    },
};

/// The media type of the draft.
pub const CONTENT_TYPE: &str = "application/health+json";

#[derive(Serialize)]
struct Document {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<BTreeMap<String, Vec<Entry>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(skip_serializing_if = "Option::is_none")]
    component_id: Option<String>,
    component_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed_unit: Option<&'static str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

/// The document; one line, with a line end.
#[must_use]
pub fn document(verdict: &Verdict, details: Details) -> String {
    let told = details != Details::None;
    let output = (told && verdict.health != Health::Healthy).then(|| verdict.why()).filter(|why| !why.is_empty());
    let suspended = verdict.checks.iter().filter(|view| told && view.suspended);
    let document = Document {
        status: status(verdict.health),
        output,
        notes: suspended.map(|view| format!("{} is suspended", view.key)).collect(),
        checks: told.then(|| checks(verdict, details)),
    };
    // Serializing plain structs into memory cannot fail.
    serde_json::to_string(&document).unwrap_or_default() + "\n"
}

const fn status(health: Health) -> &'static str {
    match health {
        Health::Healthy => "pass",
        Health::Degraded => "warn",
        Health::Unhealthy | Health::Unknown => "fail",
    }
}

fn checks(verdict: &Verdict, details: Details) -> BTreeMap<String, Vec<Entry>> {
    let mut checks: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    let alone = matches!(verdict.subject, Subject::Check(_) | Subject::Target(..));
    for view in verdict.checks.iter().filter(|view| alone || !view.suspended) {
        let prefix = if alone { String::new() } else { format!("{}/", view.key) };
        if verdict.endpoints(view).next().is_none() {
            // Without it a check or target that has nothing to probe would be missing without a trace.
            let name = match &verdict.subject {
                Subject::Target(_, target) => target.clone(),
                _ => view.key.to_string(),
            };
            checks.insert(format!("{name}:responseTime"), vec![whole(verdict, view)]);
        }
        for endpoint in verdict.endpoints(view) {
            let key = format!("{prefix}{}:responseTime", endpoint.target);
            checks.entry(key).or_default().push(entry(verdict, view, endpoint, details));
        }
    }
    checks
}

fn whole(verdict: &Verdict, view: &CheckView) -> Entry {
    let (health, why) = match verdict.subject {
        Subject::Target(..) => (verdict.health, verdict.why()),
        _ => (verdict.health_of(view), check_why(view)),
    };
    Entry {
        component_id: None,
        component_type: "component",
        observed_value: None,
        observed_unit: None,
        status: status(health),
        time: None,
        output: (!why.is_empty()).then_some(why),
    }
}

fn entry(verdict: &Verdict, view: &CheckView, endpoint: &EndpointView, details: Details) -> Entry {
    let state = verdict.state_of(endpoint);
    let millis = endpoint.live.latency().map(|latency| latency.as_secs_f64() * 1e3);
    let why = endpoint_why(endpoint);
    Entry {
        component_id: (details == Details::Full && !endpoint.label.is_empty()).then(|| endpoint.label.to_string()),
        component_type: "component",
        observed_value: millis,
        observed_unit: millis.map(|_| "ms"),
        status: match state {
            state if state.is_healthy() => "pass",
            // An optional one never makes its check worse than Degraded.
            _ if endpoint.optional => "warn",
            _ => "fail",
        },
        time: view.live.last_beat(),
        output: (state != EndpointState::Healthy && !why.is_empty()).then_some(why),
    }
}

//! The JSON of `GET /v1/healthchecks`. Fields are only ever added; names and units stay.
//!
//! A list is `{"current": bool, "items": [check, …]}`, one check is the item itself with `current` beside it.
//! `current: false` says that the board may not be believed; every health and state then reads `Unknown`.
//! Times are RFC 3339. What does not exist is `null`, never missing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    check::Health,
    engine::{CheckView, EndpointView, Outage},
    server::verdict::{NOT_CURRENT, Verdict},
};

#[derive(Serialize)]
struct List<'a> {
    current: bool,
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
struct Single<'a> {
    current: bool,
    #[serde(flatten)]
    item: Item<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    generation: i64,
    labels: &'a BTreeMap<String, String>,
    suspended: bool,
    /// `Healthy`, `Degraded`, `Unhealthy`, `Unknown`.
    health: &'static str,
    reason: &'static str,
    message: &'a str,
    /// Since when `health` is what it is.
    since: Timestamp,
    /// `"2/3"`: healthy of total.
    summary: String,
    counts: Counts,
    /// `"http,tcp"`.
    probes: &'a str,
    interval_seconds: f64,
    /// When the last probe of any endpoint ended.
    last_probe: Option<Timestamp>,
    /// How often the check has become each word since this process saw it first.
    transitions: BTreeMap<&'static str, u64>,
    endpoints: Vec<Endpoint<'a>>,
    outages: Vec<OutageItem<'a>>,
}

/// Over the members that are not optional.
#[derive(Serialize)]
struct Counts {
    total: u32,
    healthy: u32,
    unhealthy: u32,
    unknown: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    target: &'a str,
    /// `10.1.2.3:8080`; empty for a script without a place, and for a member check.
    endpoint: &'a str,
    /// `tcp`, `http`, `script` or `healthCheck`.
    kind: &'static str,
    optional: bool,
    /// `Healthy`, `MostlyHealthy`, `MostlyUnhealthy`, `Unhealthy`, `Unknown`.
    state: &'static str,
    stale: bool,
    since: Timestamp,
    /// Why the last attempt did not succeed.
    reason: Option<&'static str>,
    message: &'a str,
    /// Of the last attempt.
    latency_seconds: Option<f64>,
    certificate_expires: Option<Timestamp>,
    counters: Counters,
    /// Of a DNS name that is judged as a whole: each address that it leads to. Left out elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Endpoint<'a>>>,
}

/// Results in a row, as the state machine counts them.
#[derive(Serialize)]
struct Counters {
    success: u16,
    connect: u16,
    http: u16,
    timeout: u16,
}

#[derive(Serialize)]
struct OutageItem<'a> {
    start: Timestamp,
    end: Option<Timestamp>,
    reason: &'a str,
    targets: &'a [String],
}

/// All checks of `verdict`, by namespace and name.
#[must_use]
pub fn list(verdict: &Verdict) -> String {
    let items = verdict.checks.iter().map(|view| item(verdict, view)).collect();
    // Serializing plain structs into memory cannot fail.
    serde_json::to_string(&List { current: verdict.believed, items }).unwrap_or_default() + "\n"
}

/// The only check of `verdict`; `None` where there is none.
#[must_use]
pub fn single(verdict: &Verdict) -> Option<String> {
    let item = item(verdict, verdict.checks.first()?);
    Some(serde_json::to_string(&Single { current: verdict.believed, item }).unwrap_or_default() + "\n")
}

fn item<'a>(verdict: &Verdict, view: &'a CheckView) -> Item<'a> {
    Item {
        namespace: &view.key.namespace,
        name: &view.key.name,
        uid: &view.uid,
        generation: view.generation,
        labels: &view.labels,
        suspended: view.suspended,
        health: verdict.health_of(view).as_str(),
        reason: if verdict.believed { view.reason.as_str() } else { "Stale" },
        message: if verdict.believed { &view.message } else { NOT_CURRENT },
        since: view.since,
        summary: view.counts.summary(),
        counts: Counts {
            total: view.counts.total,
            healthy: view.counts.healthy,
            unhealthy: view.counts.unhealthy,
            unknown: view.counts.unknown,
        },
        probes: &view.probes,
        interval_seconds: view.interval.as_secs_f64(),
        last_probe: view.live.last_beat(),
        transitions: Health::ALL.iter().map(|health| (health.as_str(), view.transitions[*health as usize])).collect(),
        endpoints: view.endpoints.iter().map(|one| endpoint(verdict, one)).collect(),
        outages: view.outages.iter().map(outage).collect(),
    }
}

fn endpoint<'a>(verdict: &Verdict, endpoint: &'a EndpointView) -> Endpoint<'a> {
    let counters = endpoint.live.counters();
    Endpoint {
        target: &endpoint.target,
        endpoint: &endpoint.label,
        kind: endpoint.kind,
        optional: endpoint.optional,
        state: verdict.state_of(endpoint).as_str(),
        stale: endpoint.stale || !verdict.believed,
        since: endpoint.since,
        reason: endpoint.reason_word(),
        message: &endpoint.message,
        latency_seconds: endpoint.live.latency().map(|latency| latency.as_secs_f64()),
        certificate_expires: endpoint.certificate_expires.and_then(|at| Timestamp::from_second(at).ok()),
        counters: Counters {
            success: counters.success,
            connect: counters.connect,
            http: counters.http,
            timeout: counters.timeout,
        },
        addresses: endpoint
            .addresses
            .as_ref()
            .map(|addresses| addresses.iter().map(|address| self::endpoint(verdict, address)).collect()),
    }
}

fn outage(outage: &Outage) -> OutageItem<'_> {
    OutageItem { start: outage.start, end: outage.end, reason: &outage.reason, targets: &outage.targets }
}

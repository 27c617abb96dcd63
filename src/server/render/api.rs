//! The JSON of `GET /v1/healthchecks`. Fields are only ever added; names and units stay.
//!
//! A list is `{"current": bool, "items": [check, …]}`, one check is the item itself with `current` beside it.
//! `current: false` says that the board may not be believed; every health and state then reads `Unknown`.
//! Times are RFC 3339. What does not exist is `null`, never missing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::{
    check::{EndpointState, Health},
    engine::{self, CheckView, EndpointView, Outage},
    server::verdict::{NOT_CURRENT, Verdict},
};

/// `GET /v1/healthchecks` and `GET /v1/healthchecks/{namespace}`.
#[derive(Serialize, JsonSchema)]
struct List<'a> {
    /// Whether the board may be believed; if not, every health and state reads `Unknown`.
    current: bool,
    /// By namespace and name.
    items: Vec<Item<'a>>,
}

/// `GET /v1/healthchecks/{namespace}/{name}`: the check itself, with `current` beside its fields.
#[derive(Serialize, JsonSchema)]
struct Single<'a> {
    /// Whether the board may be believed; if not, every health and state reads `Unknown`.
    current: bool,
    #[serde(flatten)]
    item: Item<'a>,
}

/// One HealthCheck.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    generation: i64,
    labels: &'a BTreeMap<String, String>,
    suspended: bool,
    /// `Healthy`, `Degraded`, `Unhealthy`, `Unknown`.
    #[schemars(schema_with = "healths")]
    health: &'static str,
    reason: &'static str,
    message: &'a str,
    /// Since when `health` is what it is.
    #[schemars(with = "String", extend("format" = "date-time"))]
    since: Timestamp,
    /// `"2/3"`: healthy of total.
    summary: String,
    counts: Counts,
    /// `"http,tcp"`.
    probes: &'a str,
    interval_seconds: f64,
    /// How long it was from one round to the next lately: more than `intervalSeconds` where rounds were skipped.
    effective_interval_seconds: f64,
    /// When the last probe of any endpoint ended.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    last_probe: Option<Timestamp>,
    /// How often the check has become each word since this process saw it first.
    transitions: BTreeMap<&'static str, u64>,
    endpoints: Vec<Endpoint<'a>>,
    outages: Vec<OutageItem<'a>>,
}

/// Over the members that are not optional.
#[derive(Serialize, JsonSchema)]
struct Counts {
    total: u32,
    healthy: u32,
    unhealthy: u32,
    unknown: u32,
}

/// One endpoint of a target, one address of a name, or one member check.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    target: &'a str,
    /// `10.1.2.3:8080`; empty for a script without a place, and for a member check.
    endpoint: &'a str,
    /// `tcp`, `http`, `script` or `healthCheck`.
    kind: &'static str,
    optional: bool,
    /// `Healthy`, `MostlyHealthy`, `MostlyUnhealthy`, `Unhealthy`, `Unknown`.
    #[schemars(schema_with = "states")]
    state: &'static str,
    stale: bool,
    #[schemars(with = "String", extend("format" = "date-time"))]
    since: Timestamp,
    /// Why the last attempt did not succeed.
    reason: Option<&'static str>,
    message: &'a str,
    /// Of the last attempt.
    latency_seconds: Option<f64>,
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    certificate_expires: Option<Timestamp>,
    counters: Counters,
    /// What a data plane has reported, counted by `spec.passive`. Left out where nothing was reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    passive_counters: Option<Counters>,
    /// Of a DNS name that is judged as a whole: each address that it leads to. Left out elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<Endpoint<'a>>>,
}

/// Results in a row, as the state machine counts them.
#[derive(Serialize, JsonSchema)]
struct Counters {
    success: u16,
    connect: u16,
    http: u16,
    timeout: u16,
}

/// A stretch of time in which a check was Unhealthy.
#[derive(Serialize, JsonSchema)]
struct OutageItem<'a> {
    #[schemars(with = "String", extend("format" = "date-time"))]
    start: Timestamp,
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    end: Option<Timestamp>,
    reason: &'a str,
    targets: &'a [String],
}

fn words(words: impl Iterator<Item = &'static str>) -> Schema {
    json_schema!({ "type": "string", "enum": words.collect::<Vec<_>>() })
}

fn healths(_: &mut SchemaGenerator) -> Schema {
    words(Health::ALL.iter().map(|health| health.as_str()))
}

fn states(_: &mut SchemaGenerator) -> Schema {
    words(EndpointState::ALL.iter().map(|state| state.as_str()))
}

/// The JSON Schema (draft 2020-12) of both answers, under `$defs`. Answers get new fields, so it allows them.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut generator = SchemaGenerator::default();
    let (list, single) = (generator.subschema_for::<List<'_>>(), generator.subschema_for::<Single<'_>>());
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "GET /v1/healthchecks",
        "anyOf": [list, single],
        "$defs": generator.take_definitions(true),
    })
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
        effective_interval_seconds: (view.interval.as_secs_f64() * view.live.stretch() * 1000.0).round() / 1000.0,
        last_probe: view.live.last_beat(),
        transitions: Health::ALL.iter().map(|health| (health.as_str(), view.transitions[*health as usize])).collect(),
        endpoints: view.endpoints.iter().map(|one| endpoint(verdict, one)).collect(),
        outages: view.outages.iter().map(outage).collect(),
    }
}

fn endpoint<'a>(verdict: &Verdict, endpoint: &'a EndpointView) -> Endpoint<'a> {
    Endpoint {
        target: &endpoint.target,
        endpoint: &endpoint.label,
        kind: endpoint.kind.as_str(),
        optional: endpoint.optional,
        state: verdict.state_of(endpoint).as_str(),
        stale: endpoint.stale || !verdict.believed,
        since: endpoint.since.time(),
        reason: endpoint.reason_word(),
        message: &endpoint.message,
        latency_seconds: endpoint.live.latency().map(|latency| latency.as_secs_f64()),
        certificate_expires: endpoint.certificate_expires.and_then(|at| Timestamp::from_second(at).ok()),
        counters: counted(endpoint.live.counters()),
        passive_counters: endpoint.live.traffic().map(counted),
        addresses: endpoint
            .addresses
            .as_ref()
            .map(|addresses| addresses.iter().map(|address| self::endpoint(verdict, address)).collect()),
    }
}

const fn counted(counters: engine::Counters) -> Counters {
    let engine::Counters { success, connect, http, timeout } = counters;
    Counters { success, connect, http, timeout }
}

fn outage(outage: &Outage) -> OutageItem<'_> {
    OutageItem { start: outage.start, end: outage.end, reason: &outage.reason, targets: &outage.targets }
}

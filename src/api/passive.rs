//! `spec.passive`: how a data plane's reports are judged.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, IntOrString, rules};

/// How reports of traffic are judged; one with nothing to set is written passive: {}.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::ejection_time_without_probes(),
    validation = rules::no_traffic_interval_with_probes()
)]
pub struct Passive {
    /// Statuses that count as a success, 1 to 32 numbers or ranges from 100 to 599. Default ["200-399"].
    #[serde(default = "default_healthy")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::statuses(rules::HEALTHY_STATUSES))]
    pub healthy_statuses: Vec<IntOrString>,

    /// Statuses that count as a failure, 1 to 32 numbers or ranges from 100 to 599, whatever healthyStatuses says of them; a status in neither list counts for nothing. Default [429, "500-599"].
    #[serde(default = "default_unhealthy")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::statuses(rules::UNHEALTHY_STATUSES))]
    pub unhealthy_statuses: Vec<IntOrString>,

    /// Consecutive successes in traffic that let an ejected endpoint back, 1 to 100. Default 5.
    #[serde(default = "default_success_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u8,

    /// Consecutive failures in traffic, of one class, that eject an endpoint.
    #[serde(default)]
    pub failure_thresholds: PassiveThresholds,

    /// Whether the endpoints are probed too: On or Off. Off judges them by traffic alone, and an ejected one gets traffic again after ejectionTime. Default On.
    #[serde(default)]
    pub active_probes: ActiveProbes,

    /// How long an ejection lasts where activeProbes is Off, 1s to 24h; elsewhere an endpoint returns by its probe. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::EJECTION_TIME.rule())]
    pub ejection_time: Option<Duration>,

    /// Interval while an endpoint is Healthy and no traffic of it was reported for as long, from interval to 24h; the next report puts it back onto interval. Default: interval, whether there is traffic or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::NO_TRAFFIC_INTERVAL.rule())]
    pub no_traffic_interval: Option<Duration>,
}

/// Consecutive failures of one class in traffic that eject an endpoint; 0: they never do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PassiveThresholds {
    /// Limit for connections that failed, 0 to 100; 0 for none. Default 2.
    #[serde(default = "default_connect")]
    #[schemars(range(min = 0, max = 100))]
    pub connect: u8,

    /// Limit for unhealthy statuses, 0 to 100; 0 for none. Default 5.
    #[serde(default = "default_http")]
    #[schemars(range(min = 0, max = 100))]
    pub http: u8,

    /// Limit for answers that did not come in time, 0 to 100; 0 for none. Default 7.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 0, max = 100))]
    pub timeout: u8,
}

impl Default for PassiveThresholds {
    fn default() -> Self {
        Self { connect: default_connect(), http: default_http(), timeout: default_timeout() }
    }
}

/// Whether endpoints whose traffic is reported are probed too.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActiveProbes {
    #[default]
    On,
    Off,
}

fn default_healthy() -> Vec<IntOrString> {
    vec!["200-399".into()]
}

fn default_unhealthy() -> Vec<IntOrString> {
    vec![429.into(), "500-599".into()]
}

const fn default_success_threshold() -> u8 {
    5
}

const fn default_connect() -> u8 {
    2
}

const fn default_http() -> u8 {
    5
}

const fn default_timeout() -> u8 {
    7
}

//! `HealthCheck` and its spec.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, Gate, HealthCheckStatus, IntOrString, Passive, Target, probe::Probe, rules};

/// What is probed, how often, and when it counts as healthy.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "healthcheck-operator.dev",
    version = "v1alpha1",
    kind = "HealthCheck",
    plural = "healthchecks",
    shortname = "hck",
    shortname = "hc",
    category = "health",
    namespaced,
    status = "HealthCheckStatus",
    derive = "PartialEq",
    doc = "HealthCheck declares targets that are probed, and shows their health in its status.",
    selectable = ".status.health",
    selectable = ".spec.suspend",
    validation = rules::name_fits(),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health",
        description = "Healthy, Degraded, Unhealthy or Unknown"),
    printcolumn(name = "Targets", type_ = "string", json_path = ".status.summary",
        description = "healthy targets of all that are not optional"),
    printcolumn(name = "Reason", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Healthy\")].reason", description = "why the health is what it is"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since",
        description = "how long the health has been what it is"),
    printcolumn(name = "Probes", type_ = "string", json_path = ".status.probes", priority = 1,
        description = "kinds of probe in use"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.interval", priority = 1,
        description = "from the start of one probe to the start of the next"),
    printcolumn(name = "Gate", type_ = "string", json_path = ".status.gate", priority = 1,
        description = "what the gates do"),
    printcolumn(name = "Prober", type_ = "string", json_path = ".status.prober", priority = 1,
        description = "the replica that probes"),
    printcolumn(name = "Message", type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Healthy\")].message", priority = 1,
        description = "what was seen"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::timeout_within("interval", rules::TIMEOUT_ABOVE_INTERVAL),
    validation = rules::timeout_within("unhealthyInterval", rules::TIMEOUT_ABOVE_UNHEALTHY_INTERVAL),
    validation = rules::timeout_within("confirmInterval", rules::TIMEOUT_ABOVE_CONFIRM_INTERVAL),
    validation = rules::stale_after_above("interval", rules::STALE_AFTER_NOT_ABOVE_INTERVAL),
    validation = rules::stale_after_above("unhealthyInterval", rules::STALE_AFTER_NOT_ABOVE_UNHEALTHY_INTERVAL),
    validation = rules::stale_after_above("confirmInterval", rules::STALE_AFTER_NOT_ABOVE_CONFIRM_INTERVAL),
    validation = rules::no_traffic_interval_not_below_interval(),
    validation = rules::stale_after_above_no_traffic_interval(),
    validation = rules::reachable_threshold("connect", rules::CONNECT_THRESHOLD_UNREACHABLE),
    validation = rules::reachable_threshold("http", rules::HTTP_THRESHOLD_UNREACHABLE),
    validation = rules::reachable_threshold("timeout", rules::TIMEOUT_THRESHOLD_UNREACHABLE),
    validation = rules::script_timeout_within_intervals(),
    validation = rules::target_script_timeouts_within_intervals(),
    validation = rules::max_latency_within_timeout(),
    validation = rules::target_max_latencies_within_timeout(),
    validation = rules::placeless_targets_are_scripts(),
    validation = rules::targets_have_ports(),
    validation = rules::min_healthy_possible(),
    validation = rules::endpoint_slice_gate_has_addresses(),
    validation = rules::endpoint_slice_gate_has_ports(),
    validation = rules::endpoint_slice_gate_takes_addresses(),
    validation = rules::endpoint_slice_gate_is_no_target(),
    validation = rules::endpoint_slice_gates_differ(),
    validation = rules::pod_readiness_gate_has_pods(),
    validation = rules::pod_readiness_gates_differ(),
    validation = rules::annotation_gate_has_service(),
    validation = rules::annotation_gate_is_one(),
    validation = rules::annotation_gate_is_on()
)]
pub struct HealthCheckSpec {
    /// Stops probing while true: the health reads Unknown with reason Suspended. Default false.
    #[serde(default)]
    pub suspend: bool,

    /// Time from the start of one probe of an endpoint to the start of the next, 100ms to 24h. Default 10s.
    #[serde(default = "default_interval")]
    #[x_kube(validation = rules::INTERVAL.rule())]
    pub interval: Duration,

    /// Interval while an endpoint is Unhealthy or MostlyUnhealthy, 100ms to 24h. Default: interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::UNHEALTHY_INTERVAL.rule())]
    pub unhealthy_interval: Option<Duration>,

    /// Interval while an endpoint is MostlyHealthy: how soon a first failure is checked again, 100ms to 24h. Default: interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::CONFIRM_INTERVAL.rule())]
    pub confirm_interval: Option<Duration>,

    /// Total time for one attempt (resolve, connect, TLS, request, response), 1ms up to the shortest interval. Default: 2s, or the shortest interval where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::TIMEOUT.rule())]
    pub timeout: Option<Duration>,

    /// Share of the interval, 0 to 100 percent, by which each probe is moved at random around its own slot. Default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub jitter_percent: u8,

    /// Consecutive failures of any kind that make an endpoint Unhealthy, 1 to 100. Default 3.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u8,

    /// Consecutive successes that make an Unhealthy endpoint Healthy again, 1 to 100. Default 2.
    #[serde(default = "default_success_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u8,

    /// Lower limits for single classes of failure, beside failureThreshold: the first limit reached makes the endpoint Unhealthy. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FailureThresholds")]
    pub failure_thresholds: Option<FailureThresholds>,

    /// Health that is shown until the first verdict: Unknown, Healthy or Unhealthy. Default Unknown.
    #[serde(default)]
    pub initial_state: InitialState,

    /// Age from which a verdict is no longer believed and reads as Unknown, above every interval and up to 720h. Default: three times the longest interval (passive.noTrafficInterval included) plus timeout, at least 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::STALE_AFTER.rule())]
    pub stale_after: Option<Duration>,

    /// Probe of every target that has none of its own. Default: a TCP connect to the target's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Probe")]
    pub probe: Option<Probe>,

    /// What is probed, 1 to 64 targets with different names.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub targets: Vec<Target>,

    /// How many targets that are not optional must be healthy: a number, or a percentage that is rounded up. Default "100%".
    #[serde(default = "default_min_healthy")]
    #[x_kube(validation = rules::min_healthy())]
    pub min_healthy: IntOrString,

    /// Whether the EndpointSlices of service targets carry the health as an annotation: On or Off. Default On.
    #[serde(default)]
    pub annotations: Annotations,

    /// How reports of a data plane about the traffic of the endpoints are judged, beside their probes. Default: no reports are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Passive")]
    pub passive: Option<Passive>,

    /// What may move traffic by the verdicts, at most 8 gates with different names. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Vec<Gate>,
}

/// Consecutive failures of one class that make an endpoint Unhealthy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailureThresholds {
    /// Limit for failures to connect (refused, reset, unreachable, TLS, no such name), 1 to failureThreshold. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(min = 1, max = 100))]
    pub connect: Option<u8>,

    /// Limit for wrong answers (status, script exit), 1 to failureThreshold. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(min = 1, max = 100))]
    pub http: Option<u8>,

    /// Limit for answers that do not come in time, 1 to failureThreshold. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(min = 1, max = 100))]
    pub timeout: Option<u8>,
}

/// Health that is shown until the first verdict.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialState {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

/// Whether endpoints are annotated.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Annotations {
    #[default]
    On,
    Off,
}

const fn default_interval() -> Duration {
    Duration::from_secs(10)
}

const fn default_failure_threshold() -> u8 {
    3
}

const fn default_success_threshold() -> u8 {
    2
}

fn default_min_healthy() -> IntOrString {
    "100%".into()
}

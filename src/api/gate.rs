//! What may move traffic: one entry of `spec.gates`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IntOrString, LabelSelector, rules};

/// One way in which the verdicts move traffic, and how far it may go.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_gate_kind())]
pub struct Gate {
    /// Name of the gate, unique in this HealthCheck: a DNS label of at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_LABEL_PATTERN))]
    pub name: String,

    /// Publishes the addresses of the targets on EndpointSlices of a Service without a selector, each ready by its own verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "EndpointSliceGate")]
    pub endpoint_slice: Option<EndpointSliceGate>,

    /// Sets a readiness-gate condition on pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodReadinessGate")]
    pub pod_readiness: Option<PodReadinessGate>,

    /// Annotates the EndpointSlices of service targets with the health, and withholds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnnotationGate")]
    pub annotation: Option<AnnotationGate>,

    /// Enforce acts; DryRun only shows in status, metrics and events what it would do. Default Enforce.
    #[serde(default)]
    pub mode: GateMode,

    /// Fewest endpoints that may be ready before whenBelow decides: a number from 0 to 100000, or a percentage of the endpoints that is rounded up. Default 1, or 0 for podReadiness with a selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IntOrString")]
    #[x_kube(validation = rules::min_ready())]
    pub min_ready: Option<IntOrString>,

    /// What is published while fewer than minReady endpoints are healthy: FailOpen all as ready, FailStatic what was published last, FailClosed none. Default FailOpen.
    #[serde(default = "fail_open")]
    pub when_below: GatePolicy,

    /// Largest share of the endpoints that is ever held back, 0 to 100 percent. Default 100.
    #[serde(default = "all_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub max_removed_percent: u8,

    /// What is published for endpoints without a verdict that may be believed: FailStatic what was published last, FailOpen ready, FailClosed not ready. Default FailStatic.
    #[serde(default = "fail_static")]
    pub when_unknown: GatePolicy,
}

/// EndpointSlices that the operator owns.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSliceGate {
    /// Name of a Service of the same namespace that has no selector, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_LABEL_PATTERN))]
    pub service: String,

    /// Port of the Service, its number from 1 to 65535 or its name, under which the targets' ports are published. Default: the one port of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IntOrString")]
    #[x_kube(validation = rules::port_format())]
    pub port: Option<IntOrString>,
}

/// A condition on pods that their `readinessGates` name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodReadinessGate {
    /// Type of the condition, as in the pods' readinessGates: healthcheck-operator.dev/ and a name of at most 63 characters.
    #[schemars(length(min = 1, max = rules::MAX_CONDITION_TYPE))]
    #[x_kube(validation = rules::condition_type())]
    pub condition_type: String,

    /// Pods that all get the verdict of this HealthCheck. Default: the pods of the service and pods targets, each by its own verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelSelector")]
    pub selector: Option<LabelSelector>,
}

/// The annotation on the EndpointSlices of service targets.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotationGate {}

/// Whether a gate acts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateMode {
    #[default]
    Enforce,
    DryRun,
}

/// What is published where the verdicts alone may not decide.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatePolicy {
    FailOpen,
    FailStatic,
    FailClosed,
}

const fn fail_open() -> GatePolicy {
    GatePolicy::FailOpen
}

const fn fail_static() -> GatePolicy {
    GatePolicy::FailStatic
}

const fn all_percent() -> u8 {
    100
}

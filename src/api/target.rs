//! What is probed: one entry of `spec.targets`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{IntOrString, probe::Probe, rules};

/// One thing that is probed: a host, the endpoints of a Service, pods, another HealthCheck, or a script alone.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::one_place(),
    validation = rules::composite_without_port(),
    validation = rules::composite_without_probe(),
    validation = rules::port_has_place(),
    validation = rules::zone_has_addresses(),
    validation = rules::resolve_has_host(),
    validation = rules::host_port_is_number()
)]
pub struct Target {
    /// Name of the target, unique in this HealthCheck: a DNS label of at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_LABEL_PATTERN))]
    pub name: String,

    /// IP address, or DNS name (resolved at each attempt), of at most 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    #[x_kube(validation = rules::host_format(rules::HOST_FORMAT))]
    pub host: Option<String>,

    /// What is judged of a host given by name, all of whose addresses are tried at once: Any, where one that answers is enough, or All, where every address is judged and counted alone. Default Any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Resolve")]
    pub resolve: Option<Resolve>,

    /// Every endpoint of a Service in the same namespace, ready or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServiceReference")]
    pub service: Option<ServiceReference>,

    /// Every running pod in the same namespace that matches a selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PodsReference")]
    pub pods: Option<PodsReference>,

    /// Another HealthCheck of the same namespace, whose health is this target's; nested at most 5 deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CheckReference")]
    pub health_check: Option<CheckReference>,

    /// Port, 1 to 65535, or its name: the Service's own for service (may be left out where it has one), the container's for pods, a number for host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "IntOrString")]
    #[x_kube(validation = rules::port_format())]
    pub port: Option<IntOrString>,

    /// Reported, but never makes the HealthCheck Unhealthy. Default false.
    #[serde(default)]
    pub optional: bool,

    /// Zone that an endpointSlice gate publishes for the addresses of host, service or pods, a label value of 1 to 63 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63), regex(pattern = rules::LABEL_VALUE_PATTERN))]
    pub zone: Option<String>,

    /// How this target is probed. Default: spec.probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Probe")]
    pub probe: Option<Probe>,
}

/// What is judged of a host given by name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    Any,
    All,
}

/// A Service of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    /// Name of the Service, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_LABEL_PATTERN))]
    pub name: String,
}

/// Another HealthCheck of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckReference {
    /// Name of the HealthCheck, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::DNS_SUBDOMAIN_PATTERN))]
    pub name: String,
}

/// Pods of the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodsReference {
    /// Labels of the pods; at least one requirement.
    pub selector: LabelSelector,
}

/// Labels to match: all of it must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::selector_selects())]
pub struct LabelSelector {
    /// Labels and the values they must have, at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), transform = bound_label_values)]
    #[x_kube(validation = rules::selector_labels())]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements on labels, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<SelectorRequirement>,
}

/// One requirement on a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::selector_values())]
pub struct SelectorRequirement {
    /// Key of the label, at most 317 characters.
    #[schemars(length(min = 1, max = 317), regex(pattern = rules::LABEL_KEY_PATTERN))]
    pub key: String,

    /// How the label's value relates to values: In, NotIn, Exists or DoesNotExist.
    pub operator: SelectorOperator,

    /// Values for In and NotIn, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63), regex(pattern = rules::LABEL_VALUE_PATTERN)))]
    pub values: Vec<String>,
}

/// How a label's value relates to a set.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// Rules over a map need its values bounded, which no attribute of schemars can say.
fn bound_label_values(schema: &mut schemars::Schema) {
    if let Some(values) = schema.get_mut("additionalProperties").and_then(serde_json::Value::as_object_mut) {
        values.insert("maxLength".to_owned(), 63.into());
    }
}

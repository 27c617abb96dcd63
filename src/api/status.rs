//! `status` of a HealthCheck: written by the replica that probes, on transitions and a coarse refresh.
//!
//! Reading is lenient, part by part: a status that another version wrote, or a hand, must never make the object
//! itself unreadable. What cannot be read is as if it were not there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::Duration;

/// The most targets a status lists, failing ones first.
pub const MAX_TARGETS: usize = 100;
/// The most outages a status remembers, latest first.
pub const MAX_OUTAGES: usize = 5;
/// The longest message of a target, in characters.
pub const MAX_MESSAGE: usize = 256;

/// What was measured, and by whom.
#[derive(KubeSchema, Serialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,

    /// Healthy, Degraded, Unhealthy or Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("enum" = ["Healthy", "Degraded", "Unhealthy", "Unknown"]))]
    pub health: Option<String>,

    /// Since when health has been this word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,

    /// Healthy members of all that are not optional, as in "2/3".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub summary: Option<String>,

    /// Members that are not optional, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Counts")]
    pub counts: Option<Counts>,

    /// Ready: accepted and probed; Healthy: the verdict; GatesApplied: what the gates do; Stalled: a human must act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// Endpoints, failing ones first, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub targets: Vec<TargetStatus>,

    /// The latest outages, newest first, at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub outages: Vec<Outage>,

    /// What each gate does, at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub gates: Vec<GateStatus>,

    /// When this status was last confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub observed_at: Option<Time>,

    /// The replica that probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub prober: Option<String>,

    /// Number of the prober's ownership: a write of an earlier one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub epoch: Option<i64>,

    /// Kinds of probe in use, as in "http,tcp".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub probes: Option<String>,

    /// The gate that is limited most and what it does, as in "traffic: FailOpen".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub gate: Option<String>,
}

/// Members by state.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All members that are not optional.
    pub total: u32,
    /// Healthy ones, MostlyHealthy included.
    pub healthy: u32,
    /// Unhealthy ones, MostlyUnhealthy included.
    pub unhealthy: u32,
    /// Ones without a verdict that may be believed.
    pub unknown: u32,
}

/// One endpoint of a target.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Name of the target in the spec.
    pub name: String,

    /// Address and port that are probed; absent for a script with no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub endpoint: Option<String>,

    /// Healthy, MostlyHealthy, MostlyUnhealthy, Unhealthy or Unknown.
    #[schemars(extend("enum" = ["Healthy", "MostlyHealthy", "MostlyUnhealthy", "Unhealthy", "Unknown"]))]
    pub state: String,

    /// Since when it has been routed as it is: Healthy and MostlyHealthy are one verdict, so are MostlyUnhealthy and Unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,

    /// Why, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<String>,

    /// Why, for people, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub message: Option<String>,

    /// How long the latest attempt took, as of this write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub latency: Option<Duration>,

    /// When the certificate that was shown expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub certificate_expires: Option<Time>,

    /// Consecutive results, as of this write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Counters")]
    pub counters: Option<Counters>,

    /// The addresses of a DNS name that is judged as a whole, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub addresses: Vec<AddressStatus>,
}

/// One address of a DNS name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// IPv4 or IPv6 address.
    pub address: String,
    /// Healthy, MostlyHealthy, MostlyUnhealthy, Unhealthy or Unknown.
    #[schemars(extend("enum" = ["Healthy", "MostlyHealthy", "MostlyUnhealthy", "Unhealthy", "Unknown"]))]
    pub state: String,
    /// Since when it has been routed as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,
}

/// Consecutive results of one endpoint.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Successes since the last failure.
    pub success: u32,
    /// Failures to connect since the last success.
    pub connect: u32,
    /// Wrong answers since the last success.
    pub http: u32,
    /// Missing answers since the last success.
    pub timeout: u32,
}

/// What one gate does.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Name of the gate in the spec.
    pub name: String,

    /// What decides at present: Enforced or DryRun, a limit (FailOpen, FailStatic, FailClosed, Capped, Frozen, Held), or why nothing is written.
    #[schemars(extend("enum" = [
        "Enforced", "DryRun", "FailOpen", "FailStatic", "FailClosed", "Capped", "Frozen", "Held",
        "Conflict", "Forbidden", "NotFound", "WriteFailed", "Released", "InvalidOverride", "Pending"
    ]))]
    pub effective: String,

    /// Endpoints that the verdicts alone would publish as ready.
    pub desired_ready: u32,

    /// Endpoints that are published as ready; in a DryRun, that would be.
    pub published_ready: u32,

    /// Since when effective has been this word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,

    /// Why, for people, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256))]
    pub message: Option<String>,
}

/// A time for which the check was Unhealthy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Outage {
    /// When it began.
    pub start: Time,

    /// When it ended; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub end: Option<Time>,

    /// Why it began, in one word.
    #[serde(default)]
    pub reason: String,

    /// Names of the targets that were Unhealthy when it began, the first 8 of them.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub targets: Vec<String>,
}

impl<'de> Deserialize<'de> for HealthCheckStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Value::Object(mut parts) = Value::deserialize(deserializer)? else {
            return Ok(Self::default());
        };
        Ok(Self {
            observed_generation: readable(&mut parts, "observedGeneration"),
            health: readable(&mut parts, "health"),
            since: readable(&mut parts, "since"),
            summary: readable(&mut parts, "summary"),
            counts: readable(&mut parts, "counts"),
            conditions: readable_items(&mut parts, "conditions"),
            targets: readable_items(&mut parts, "targets"),
            outages: readable_items(&mut parts, "outages"),
            gates: readable_items(&mut parts, "gates"),
            observed_at: readable(&mut parts, "observedAt"),
            prober: readable(&mut parts, "prober"),
            epoch: readable(&mut parts, "epoch"),
            probes: readable(&mut parts, "probes"),
            gate: readable(&mut parts, "gate"),
        })
    }
}

fn readable<T: DeserializeOwned>(parts: &mut Map<String, Value>, name: &str) -> Option<T> {
    serde_json::from_value(parts.remove(name)?).ok()
}

/// The items that can be read; one that cannot takes none of the others with it.
fn readable_items<T: DeserializeOwned>(parts: &mut Map<String, Value>, name: &str) -> Vec<T> {
    let Some(Value::Array(items)) = parts.remove(name) else {
        return Vec::new();
    };
    items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn full() -> Value {
        json!({
            "observedGeneration": 3,
            "health": "Degraded",
            "since": "2026-11-21T12:00:00Z",
            "summary": "1/2",
            "counts": {"total": 2, "healthy": 1, "unhealthy": 1, "unknown": 0},
            "conditions": [{
                "type": "Healthy", "status": "True", "reason": "MinimumMet", "message": "1/2",
                "lastTransitionTime": "2026-11-21T11:00:00Z", "observedGeneration": 3
            }],
            "targets": [{
                "name": "a", "endpoint": "10.0.0.1:80", "state": "Unhealthy", "since": "2026-11-21T12:00:00Z",
                "reason": "ConnectionRefused", "message": "connection refused", "latency": "2ms",
                "certificateExpires": "2027-01-01T00:00:00Z",
                "counters": {"success": 0, "connect": 3, "http": 0, "timeout": 0}
            }],
            "outages": [{"start": "2026-11-20T12:00:00Z", "end": "2026-11-20T12:05:00Z",
                "reason": "TargetsUnhealthy", "targets": ["a"]}],
            "gates": [{"name": "traffic", "effective": "FailOpen", "desiredReady": 0, "publishedReady": 2,
                "since": "2026-11-21T12:00:00Z", "message": "0 of 2 healthy, minReady is 1"}],
            "observedAt": "2026-11-21T12:01:00Z",
            "prober": "hco-0",
            "epoch": 7,
            "probes": "tcp",
            "gate": "traffic: FailOpen"
        })
    }

    #[test]
    fn a_status_reads_back_as_it_was_written() {
        let status: HealthCheckStatus = serde_json::from_value(full()).expect("readable");
        assert_eq!(serde_json::to_value(&status).expect("writable"), full());
    }

    #[test]
    fn every_part_that_cannot_be_read_costs_itself_alone() {
        let whole: HealthCheckStatus = serde_json::from_value(full()).expect("readable");
        for name in full().as_object().expect("object").keys() {
            let mut damaged = full();
            damaged[name] = json!({"nobody": ["expected this"]});
            let status: HealthCheckStatus = serde_json::from_value(damaged).expect("lenient");
            let mut expected = serde_json::to_value(&whole).expect("writable");
            expected.as_object_mut().expect("object").remove(name);
            assert_eq!(serde_json::to_value(&status).expect("writable"), expected, "{name}");
        }
    }

    #[test]
    fn an_item_that_cannot_be_read_costs_no_other() {
        let mut damaged = full();
        damaged["targets"] = json!([{"name": 1}, full()["targets"][0], "x"]);
        let status: HealthCheckStatus = serde_json::from_value(damaged).expect("lenient");
        assert_eq!(status.targets.len(), 1);
        assert_eq!(
            serde_json::from_value::<HealthCheckStatus>(json!("x")).expect("lenient"),
            HealthCheckStatus::default()
        );
    }
}

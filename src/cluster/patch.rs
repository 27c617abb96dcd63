//! The patches we send, each with the fence that makes it fail when somebody else was there first.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Client, Resource,
    api::{Patch, PatchParams, Request},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::{CallError, call},
    server_state::ServerState,
};
use crate::{
    api::{GROUP, HealthCheck, HealthCheckStatus},
    check::ObjectKey,
};

/// Names us in `managedFields`.
pub const FIELD_MANAGER: &str = "healthcheck-operator";

/// All that is read of an answer.
#[derive(Debug, Deserialize)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    #[serde(default)]
    resource_version: String,
}

/// What is written to a status.
#[derive(Clone, Debug)]
pub enum StatusChange {
    Whole(Box<HealthCheckStatus>),
    /// Only who confirms it, and when: for a status that a former owner left as it should be.
    Claim(Box<HealthCheckStatus>),
    /// Only what its gates do: whoever is not its owner says nothing of its health.
    Gates(Box<HealthCheckStatus>),
}

impl StatusChange {
    fn status(&self) -> &HealthCheckStatus {
        match self {
            Self::Whole(status) | Self::Claim(status) | Self::Gates(status) => status,
        }
    }
}

/// A JSON Patch on `/status`: refused when the object is another one of the same name, or was claimed by somebody else
/// since `known`.
fn status_patch(known: &ServerState, change: &StatusChange) -> Value {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/uid", "value": &*known.uid})];
    operations.push(match known.epoch {
        Some(epoch) => json!({"op": "test", "path": "/status/epoch", "value": epoch}),
        None => json!({"op": "test", "path": "/metadata/resourceVersion", "value": known.resource_version}),
    });
    let value = serde_json::to_value(change.status()).unwrap_or_default();
    let fields: &[&str] = match change {
        StatusChange::Whole(_) => &[],
        StatusChange::Claim(_) => &["observedAt", "prober", "epoch"],
        StatusChange::Gates(_) => &["conditions", "gates", "gate"],
    };
    if fields.is_empty() {
        operations.push(json!({"op": "add", "path": "/status", "value": value}));
    }
    for field in fields {
        operations.push(json!({"op": "add", "path": format!("/status/{field}"), "value": value[field]}));
    }
    Value::Array(operations)
}

/// Writes a status, and returns the object's new version.
///
/// # Errors
/// [`CallError::Invalid`] or [`CallError::Conflict`] when the fence held it back.
pub async fn write_status(
    client: &Client,
    key: &ObjectKey,
    known: &ServerState,
    change: &StatusChange,
) -> Result<String, CallError> {
    let patch = serde_json::from_value(status_patch(known, change))
        .map_err(|error| CallError::Other(format!("status cannot be written as a patch: {error}")))?;
    let url = HealthCheck::url_path(&(), Some(&key.namespace));
    let request = Request::new(url)
        .patch_subresource("status", &key.name, &PatchParams::default().manager(), &Patch::<()>::Json(patch))
        .map_err(|error| CallError::Other(error.to_string()))?;
    let answer: Answer = call(client.request(request)).await?;
    Ok(answer.metadata.resource_version)
}

trait Managed {
    fn manager(self) -> Self;
}

impl Managed for PatchParams {
    fn manager(mut self) -> Self {
        self.field_manager = Some(FIELD_MANAGER.to_owned());
        self
    }
}

/// A change of our own annotations on an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePatch {
    /// The version it was computed from.
    pub resource_version: String,
    /// By the name of the check; `None` removes.
    pub annotations: BTreeMap<String, Option<String>>,
}

/// Writes annotations, and returns the slice's new version.
///
/// # Errors
/// [`CallError::Conflict`] when the slice changed since.
pub async fn write_annotations(client: &Client, key: &ObjectKey, patch: &SlicePatch) -> Result<String, CallError> {
    let annotations: BTreeMap<String, &Option<String>> =
        patch.annotations.iter().map(|(name, value)| (format!("{GROUP}/{name}"), value)).collect();
    let body = json!({"metadata": {"resourceVersion": patch.resource_version, "annotations": annotations}});
    let url = EndpointSlice::url_path(&(), Some(&key.namespace));
    let request = Request::new(url)
        .patch(&key.name, &PatchParams::default().manager(), &Patch::Merge(&body))
        .map_err(|error| CallError::Other(error.to_string()))?;
    let answer: Answer = call(client.request(request)).await?;
    Ok(answer.metadata.resource_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(epoch: Option<i64>) -> ServerState {
        ServerState { uid: "u".into(), resource_version: "7".into(), epoch, ..ServerState::default() }
    }

    fn status() -> Box<HealthCheckStatus> {
        Box::new(HealthCheckStatus {
            prober: Some("p".into()),
            epoch: Some(4),
            summary: Some("1/1".into()),
            ..HealthCheckStatus::default()
        })
    }

    #[test]
    fn a_status_is_fenced_by_its_epoch_and_the_first_one_by_its_version() {
        let patch = status_patch(&known(Some(3)), &StatusChange::Whole(status()));
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(patch[1], json!({"op": "test", "path": "/status/epoch", "value": 3}));
        assert_eq!(patch[2]["path"], "/status");
        let patch = status_patch(&known(None), &StatusChange::Whole(status()));
        assert_eq!(patch[1], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
    }

    #[test]
    fn a_claim_changes_nothing_but_who_and_when() {
        let patch = status_patch(&known(Some(3)), &StatusChange::Claim(status()));
        let paths: Vec<_> = patch.as_array().into_iter().flatten().skip(2).map(|step| &step["path"]).collect();
        assert_eq!(paths, ["/status/observedAt", "/status/prober", "/status/epoch"]);
    }
}

//! One write of a gate, each with the fence that makes it fail when somebody else was there first.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use k8s_openapi::{
    api::{core::v1::Pod, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::slice::{Body, Owned, gate_label};
use crate::{
    check::{ObjectKey, Text},
    cluster::{
        client::{CallError, call},
        index::facts::{PodFacts, SliceFacts},
        patch::FIELD_MANAGER,
    },
};

/// What a gate writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GateKey {
    Slice(ObjectKey),
    /// A condition of a pod, by its type.
    Pod(ObjectKey, Text),
}

impl GateKey {
    #[must_use]
    pub const fn object(&self) -> &ObjectKey {
        match self {
            Self::Slice(key) | Self::Pod(key, _) => key,
        }
    }
}

/// What a gate writes. Each carries the version it was computed from.
#[derive(Clone, Debug, PartialEq)]
pub enum GateWrite {
    Slice(SliceWrite),
    Pod(PodWrite),
}

#[derive(Clone, Debug, PartialEq)]
pub enum SliceWrite {
    Create(Box<EndpointSlice>),
    Change { resource_version: String, gate: Text, body: Body, turns: Turns },
    Delete { uid: Text, resource_version: String },
}

/// What becomes of the endpoints of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// So many are taken out of traffic.
    pub removals: usize,
    /// So many are let in again.
    pub returns: usize,
    /// Some come, or are no longer listed.
    pub members: bool,
    /// Anything else changes, or what does cannot be told.
    pub other: bool,
}

impl Turns {
    /// What waits for nothing.
    pub const OTHER: Self = Self { removals: 0, returns: 0, members: false, other: true };
}

impl GateWrite {
    /// What it does to the endpoints of a slice.
    #[must_use]
    pub const fn turns(&self) -> Turns {
        match self {
            Self::Slice(SliceWrite::Change { turns, .. }) => *turns,
            _ => Turns::OTHER,
        }
    }

    /// What a slice or a condition comes to say, as a number; `None` where a slice goes.
    #[must_use]
    pub fn says(&self) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Slice(SliceWrite::Create(object)) => {
                let owned = Owned::of(object)?;
                (owned.gate, owned.body?).hash(&mut hasher);
            }
            Self::Slice(SliceWrite::Change { gate, body, .. }) => (gate, body).hash(&mut hasher),
            Self::Slice(SliceWrite::Delete { .. }) => return None,
            Self::Pod(PodWrite { status, reason, message, .. }) => (status, reason, message).hash(&mut hasher),
        }
        Some(hasher.finish())
    }
}

/// A condition of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWrite {
    pub resource_version: String,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
    /// The status is another than it was.
    pub turns: bool,
}

/// What is there after a write.
#[derive(Debug)]
pub enum Written {
    /// `None`: nothing any more.
    Slice(Option<Box<SliceFacts>>),
    Pod(Box<PodFacts>),
}

/// What became of a write.
#[derive(Debug)]
pub struct GateEnded {
    pub key: GateKey,
    pub write: GateWrite,
    pub result: Result<Written, CallError>,
}

/// Sends one write, within its deadline.
///
/// # Errors
/// [`CallError::Conflict`] when the object changed since, or is there already.
pub async fn send(client: &Client, key: &GateKey, write: &GateWrite) -> Result<Written, CallError> {
    match (key, write) {
        (GateKey::Slice(key), GateWrite::Slice(write)) => send_slice(client, key, write).await,
        (GateKey::Pod(key, kind), GateWrite::Pod(write)) => {
            Ok(Written::Pod(Box::new(send_pod(client, key, kind, write).await?)))
        }
        (key, _) => Err(CallError::Other(format!("what is to be written does not fit {}", key.object()))),
    }
}

/// Sets a condition, and leaves the others as they are. What the pod is after that.
///
/// # Errors
/// [`CallError::Conflict`] when the pod changed since the write was computed.
pub async fn send_pod(client: &Client, key: &ObjectKey, kind: &str, write: &PodWrite) -> Result<PodFacts, CallError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let mut condition = json!({
        "type": kind,
        "status": if write.status { "True" } else { "False" },
        "reason": write.reason,
        "message": write.message,
    });
    if write.turns {
        condition["lastTransitionTime"] = json!(Time(jiff::Timestamp::now()));
    }
    // Conditions are a list by type: a strategic merge touches this one alone.
    let patch = json!({"metadata": {"resourceVersion": write.resource_version}, "status": {"conditions": [condition]}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let pod = call(api.patch_status(&key.name, &params, &Patch::Strategic(patch))).await?;
    Ok(PodFacts::of(&pod))
}

async fn send_slice(client: &Client, key: &ObjectKey, write: &SliceWrite) -> Result<Written, CallError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
    let slice = match write {
        SliceWrite::Create(object) => {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            call(api.create(&params, object)).await?
        }
        SliceWrite::Change { resource_version, gate, body, .. } => {
            let labels = BTreeMap::from([(gate_label(), &**gate)]);
            let patch = json!({
                "metadata": {"resourceVersion": resource_version, "labels": labels},
                "ports": body.ports(),
                "endpoints": body.endpoints(),
            });
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            call(api.patch(&key.name, &params, &Patch::Merge(&patch))).await?
        }
        SliceWrite::Delete { uid, resource_version } => {
            let preconditions =
                Preconditions { uid: Some(uid.to_string()), resource_version: Some(resource_version.clone()) };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            return match call(api.delete(&key.name, &params)).await {
                Ok(_) | Err(CallError::NotFound(_)) => Ok(Written::Slice(None)),
                Err(error) => Err(error),
            };
        }
    };
    Ok(Written::Slice(Some(Box::new(SliceFacts::of(&slice)))))
}

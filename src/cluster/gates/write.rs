//! One write of a gate, each with the fence that makes it fail when somebody else was there first.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::slice::Body;
use crate::{
    check::ObjectKey,
    cluster::{
        client::{CallError, call},
        index::facts::SliceFacts,
        patch::FIELD_MANAGER,
    },
};

/// What a gate writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GateKey {
    Slice(ObjectKey),
}

impl GateKey {
    #[must_use]
    pub const fn object(&self) -> &ObjectKey {
        match self {
            Self::Slice(key) => key,
        }
    }
}

/// What a gate writes. Each carries the version it was computed from.
#[derive(Clone, Debug, PartialEq)]
pub enum GateWrite {
    Slice(SliceWrite),
}

#[derive(Clone, Debug, PartialEq)]
pub enum SliceWrite {
    Create(Box<EndpointSlice>),
    Change { resource_version: String, body: Body },
    Delete { uid: Arc<str>, resource_version: String },
}

/// What is there after a write.
#[derive(Debug)]
pub enum Written {
    /// `None`: nothing any more.
    Slice(Option<Box<SliceFacts>>),
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
    }
}

async fn send_slice(client: &Client, key: &ObjectKey, write: &SliceWrite) -> Result<Written, CallError> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
    let slice = match write {
        SliceWrite::Create(object) => {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            call(api.create(&params, object)).await?
        }
        SliceWrite::Change { resource_version, body } => {
            let patch = json!({
                "metadata": {"resourceVersion": resource_version},
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

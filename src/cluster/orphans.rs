//! Annotations whose check is gone, on slices that nobody watches: left behind while no operator was running.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, api::ListParams};

use super::{
    annotate::is_ours,
    checks::Selection,
    client::{CallError, call},
    index::facts::SliceFacts,
    lease::Held,
    patch::{SlicePatch, write_annotations},
};
use crate::{api::HealthCheck, check::ObjectKey};

/// How many slices are read at once.
const PAGE: u32 = 250;

/// Every slice that bears an annotation of ours.
pub async fn find(client: &Client, selection: &Selection) -> Vec<(ObjectKey, SliceFacts)> {
    let apis: Vec<Api<EndpointSlice>> = if selection.namespaces.is_empty() {
        vec![Api::all(client.clone())]
    } else {
        selection.namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    };
    let mut found = vec![];
    for api in apis {
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match call(api.list(&page)).await {
                Ok(list) => list,
                Err(error) => {
                    tracing::debug!(%error, "slices not searched for orphaned annotations; later again");
                    return found;
                }
            };
            let slices = list.items.iter().map(SliceFacts::of).filter(|slice| !slice.service.is_empty());
            found.extend(
                slices
                    .filter(|slice| slice.annotations.values().any(|value| is_ours(value)))
                    .map(|slice| (slice.key.clone(), slice)),
            );
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
    }
    found
}

/// Takes away the annotations of `checks` from `slice`, of those that are really gone.
pub async fn take_away(client: &Client, held: &Held, slice: &SliceFacts, checks: Vec<(String, bool)>) {
    let api: Api<HealthCheck> = Api::namespaced(client.clone(), &slice.key.namespace);
    let mut annotations = BTreeMap::new();
    for (check, certain) in checks {
        if certain || matches!(call(api.get_metadata(&check)).await, Err(CallError::NotFound(_))) {
            annotations.insert(check, None);
        }
    }
    if annotations.is_empty() || !held.now() {
        return;
    }
    let patch = SlicePatch { resource_version: slice.resource_version.clone(), annotations };
    if let Err(error) = write_annotations(client, &slice.key, &patch).await {
        tracing::debug!(slice = %slice.key, %error, "orphaned annotation not taken away; later again");
    }
}

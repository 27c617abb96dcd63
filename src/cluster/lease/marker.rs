//! The release marker, and whose it is.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt};

use crate::{
    api::GROUP,
    cluster::client::{CallError, call},
};

/// The release marker: an annotation on our own Lease. While it stands no gate acts, in whatever replica: whoever
/// uninstalls sets it first, and then releases what the gates hold.
#[must_use]
pub fn release_marker() -> String {
    format!("{GROUP}/release")
}

/// The name of the Lease that says which installation a release is: the chart makes it anew, or changes it, with every
/// `helm install` and `helm upgrade`.
#[must_use]
fn installation_name(lease: &str) -> String {
    format!("{lease}-installation")
}

/// Which installation this is, for the value of the release marker: a later one is another, and so the marker does not
/// hold for it. `None` where nobody says, as without the chart.
///
/// # Errors
/// When it cannot be read.
pub async fn installation(leases: &Api<Lease>, lease: &str) -> Result<Option<String>, CallError> {
    let found = call(leases.get_opt(&installation_name(lease))).await?;
    Ok(found.map(|found| {
        let revision = found.annotations().get(&format!("{GROUP}/revision")).cloned().unwrap_or_default();
        format!("{}/{revision}", found.uid().unwrap_or_default())
    }))
}

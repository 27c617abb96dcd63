//! The operator's own Lease: the release marker on it, and giving it up for those who hold it.

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};

use super::{HEEDED, PAUSE, Release, Report};
use crate::cluster::{
    client::{CallError, call},
    lease::{installation, release_marker},
    patch::FIELD_MANAGER,
};

/// The marker where nobody says which installation this is.
const UNNAMED: &str = "released";

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn leases(client: &Client, release: &Release) -> Api<Lease> {
    Api::namespaced(client.clone(), &release.namespace)
}

/// Sets the marker on the Lease, which is made where there is none: a replica may be about to start.
///
/// # Errors
/// [`CallError::Conflict`] when somebody renewed it meanwhile.
pub async fn set(client: &Client, release: &Release) -> Result<(), CallError> {
    let leases = leases(client, release);
    let marker = installation(&leases, &release.lease).await?.unwrap_or_else(|| UNNAMED.to_owned());
    let annotation = (release_marker(), marker);
    match call(leases.get_opt(&release.lease)).await? {
        Some(mut lease) => {
            let (key, value) = annotation;
            if lease.annotations().get(&key) == Some(&value) {
                return Ok(());
            }
            lease.annotations_mut().insert(key, value);
            call(leases.replace(&release.lease, &params(), &lease)).await?;
        }
        None => {
            let metadata = ObjectMeta {
                name: Some(release.lease.clone()),
                annotations: Some([annotation].into()),
                ..ObjectMeta::default()
            };
            call(leases.create(&params(), &Lease { metadata, spec: None })).await?;
        }
    }
    Ok(())
}

/// Takes the Lease from whoever holds it. Who lives sees that and stands by, and while the marker stands nobody takes a
/// free Lease before it could have run out (`lease`): at no time are there two holders.
pub async fn free(client: &Client, release: &Release, report: &mut Report) {
    loop {
        match try_free(client, release).await {
            Ok(held) => {
                report.freed = true;
                if held {
                    // The pods end only after this: whoever led has stopped by then.
                    tokio::time::sleep(HEEDED).await;
                }
                return;
            }
            Err(error) if error.is_outage() || matches!(error, CallError::Conflict(_)) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let lease = format!("{}/{}", release.namespace, release.lease);
                return report.left.push(format!("lease {lease}, which is held until it runs out: {error}"));
            }
        }
    }
}

/// Whether somebody held it.
async fn try_free(client: &Client, release: &Release) -> Result<bool, CallError> {
    let leases = leases(client, release);
    let Some(mut lease) = call(leases.get_opt(&release.lease)).await? else { return Ok(false) };
    let holder = lease.spec.as_mut().and_then(|spec| spec.holder_identity.take()).unwrap_or_default();
    if holder.is_empty() {
        return Ok(false);
    }
    // It carries the version that was read: a renewal in between is a conflict.
    call(leases.replace(&release.lease, &params(), &lease)).await?;
    Ok(true)
}

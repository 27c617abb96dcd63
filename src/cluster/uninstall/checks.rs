//! The HealthChecks of this release.

use std::collections::BTreeSet;

use kube::{Client, ResourceExt, api::ListParams};

use crate::{
    api::status::GateStatus,
    check::ObjectKey,
    cluster::{
        checks::{Object, Selection},
        client::{CallError, list_all},
    },
};

/// Which are ours, and where they have gates.
#[derive(Debug, Default)]
pub struct Checks {
    /// Where not all of a namespace are ours: those that are, and all there are. What another release holds is none of
    /// our business; what nobody holds any more is.
    shard: Option<(BTreeSet<ObjectKey>, BTreeSet<ObjectKey>)>,
    /// Namespaces with gates.
    pub gated: BTreeSet<String>,
}

impl Checks {
    /// # Errors
    /// When they cannot be listed.
    pub async fn list(client: &Client, selection: &Selection) -> Result<Self, CallError> {
        let mut ours = BTreeSet::new();
        let mut gated = BTreeSet::new();
        each(client, selection, |check| {
            let has_gates = check.spec.as_ref().is_ok_and(|spec| !spec.gates.is_empty());
            let status = check.status.as_ref();
            let told: &[GateStatus] = status.map(|status| status.gates.as_slice()).unwrap_or_default();
            if has_gates || !told.is_empty() {
                gated.insert(check.namespace().unwrap_or_default());
            }
            ours.insert(key(&check));
        })
        .await?;
        let mut shard = None;
        if selection.labels.is_some() {
            let mut all = BTreeSet::new();
            let everybody = Selection { labels: None, ..selection.clone() };
            each(client, &everybody, |check| all.extend([key(&check)])).await?;
            shard = Some((ours, all));
        }
        Ok(Self { shard, gated })
    }

    /// Whether what the HealthCheck `name` holds in `namespace` is ours to let go.
    pub fn own(&self, namespace: &str, name: Option<&str>) -> bool {
        let Some((ours, all)) = &self.shard else { return true };
        name.is_some_and(|name| {
            let key = ObjectKey::new(namespace, name);
            ours.contains(&key) || !all.contains(&key)
        })
    }
}

pub fn key(check: &Object) -> ObjectKey {
    ObjectKey::new(&check.namespace().unwrap_or_default(), &check.name_any())
}

/// Hands every HealthCheck of `selection` over. Where the CRD is gone there are none.
///
/// # Errors
/// When they cannot be listed.
pub async fn each(client: &Client, selection: &Selection, each: impl FnMut(Object)) -> Result<(), CallError> {
    let mut params = ListParams::default();
    params.label_selector.clone_from(&selection.labels);
    match list_all(&selection.apis::<Object>(client), &params, each).await {
        Ok(()) | Err(CallError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_release_holds_is_not_ours_and_what_nobody_holds_is() {
        let (ours, theirs) = (ObjectKey::new("shop", "ours"), ObjectKey::new("shop", "theirs"));
        let shard = Some(([ours.clone()].into(), [ours, theirs].into()));
        let checks = Checks { shard, gated: BTreeSet::new() };
        assert!(checks.own("shop", Some("ours")) && checks.own("shop", Some("gone")));
        assert!(!checks.own("shop", Some("theirs")) && !checks.own("shop", None));
        assert!(Checks::default().own("shop", None), "everything is");
    }
}

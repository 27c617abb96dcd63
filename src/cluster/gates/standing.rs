//! Who may publish the endpoints of a Service: one HealthCheck, and only where nobody else does. Pure: reads what is
//! known of the cluster.

use std::{cmp::Reverse, sync::Arc};

use super::slice::Owned;
use crate::{
    check::{Check, Gate, GateKind, GateMode, GateReason, ObjectKey, PortRef},
    cluster::{
        index::{ServicePort, facts::SliceFacts, scopes_of, service_port},
        reconcile::Reconciler,
    },
};

/// Why a gate writes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub reason: GateReason,
    /// With the mend.
    pub message: String,
}

fn obstacle(reason: GateReason, message: String) -> Obstacle {
    Obstacle { reason, message }
}

/// The gates of `check` that publish endpoints of `service`.
pub fn gates_on<'a>(check: &'a Check, service: &'a ObjectKey) -> impl Iterator<Item = &'a Gate> {
    check.gates.iter().filter(move |gate| match &gate.kind {
        GateKind::EndpointSlice { service: name, .. } => {
            *name == service.name && check.key.namespace == service.namespace
        }
        GateKind::PodReadiness { .. } | GateKind::Annotation => false,
    })
}

/// The check that holds `service`: one that enforces before one that only shows; then the older; then the lower UID.
#[must_use]
pub fn holder<'a>(service: &ObjectKey, reconciler: &'a Reconciler) -> Option<&'a Arc<Check>> {
    let claims = reconciler.index.checks_of_gated(service).filter_map(|key| reconciler.accepted(key));
    claims.min_by_key(|check| {
        let enforces = gates_on(check, service).any(|gate| gate.mode == GateMode::Enforce);
        (Reverse(enforces), reconciler.created(&check.key), check.uid.clone())
    })
}

/// Why nobody may publish endpoints of `service`, whatever gate asks.
fn unpublishable(service: &ObjectKey, reconciler: &Reconciler) -> Option<Obstacle> {
    let Some(facts) = reconciler.index.sources.services.get(service) else {
        let message = format!(
            "Service '{}' not found in namespace '{}'; create it, without a selector, or correct the name",
            service.name, service.namespace
        );
        return Some(obstacle(GateReason::NotFound, message));
    };
    let name = &service.name;
    if facts.external_name {
        let message = format!(
            "Service '{name}' is of type ExternalName and has no endpoints; make it a ClusterIP Service without a selector"
        );
        return Some(obstacle(GateReason::Conflict, message));
    }
    let message = format!(
        "Service '{name}' has a selector, so its EndpointSlices are made from pods; take the selector away, or gate the pods with podReadiness"
    );
    facts.selector.then(|| obstacle(GateReason::Conflict, message))
}

/// Whether what is published for `service` must go: the Service is none of ours any more.
#[must_use]
pub fn is_lost(service: &ObjectKey, reconciler: &Reconciler) -> bool {
    unpublishable(service, reconciler).is_some()
}

/// Which port `gate` of `check` publishes under, or why it publishes nothing.
///
/// # Errors
/// The first obstacle, with its mend.
pub fn standing(
    check: &Check,
    service: &ObjectKey,
    port: Option<&PortRef>,
    reconciler: &Reconciler,
) -> Result<ServicePort, Obstacle> {
    for scope in scopes_of(check) {
        if let Some(refusal) = reconciler.index.sources.refusal(scope.kind, &scope.namespace) {
            return Err(obstacle(GateReason::Forbidden, refusal.to_owned()));
        }
    }
    if let Some(obstacle) = unpublishable(service, reconciler) {
        return Err(obstacle);
    }
    if let Some(other) = holder(service, reconciler).filter(|holder| holder.key != check.key) {
        let message = format!(
            "Service '{}' is held by a gate of HealthCheck '{}', which comes first; remove one of the two gates",
            service.name, other.key.name
        );
        return Err(obstacle(GateReason::Conflict, message));
    }
    let slices = reconciler.index.sources.slices.get(service);
    if let Some((slice, whose)) =
        slices.into_iter().flat_map(|slices| slices.values()).find_map(|slice| foreign(slice, reconciler))
    {
        let message = format!(
            "EndpointSlice '{}' of Service '{}' {whose}; delete it, and whatever makes it, or gate another Service",
            slice.key.name, service.name
        );
        return Err(obstacle(GateReason::Conflict, message));
    }
    let Some(facts) = reconciler.index.sources.services.get(service) else {
        return Err(obstacle(GateReason::NotFound, format!("Service '{}' not found", service.name)));
    };
    service_port(facts, port).cloned().map_err(|message| obstacle(GateReason::NotFound, message))
}

/// A slice that no gate of ours has made, and whose it is.
fn foreign<'a>(slice: &'a SliceFacts, reconciler: &Reconciler) -> Option<(&'a SliceFacts, String)> {
    match slice.owned.as_deref() {
        // Of another release, or of one that is gone: then it goes, and is a stranger no more.
        Some(Owned { owner: Some(owner), .. }) => {
            let key = ObjectKey::of(slice.key.namespace.clone(), owner.name.clone());
            (!reconciler.knows(&key))
                .then(|| (slice, format!("belongs to HealthCheck '{}', which is not served here", owner.name)))
        }
        Some(Owned { owner: None, .. }) => Some((slice, "has no HealthCheck as its owner".to_owned())),
        None if slice.managed_by.is_empty() => Some((slice, "is somebody else's".to_owned())),
        None => Some((slice, format!("is managed by '{}'", slice.managed_by))),
    }
}

/// What is to become of a slice of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A gate keeps it, or nobody can tell.
    Stays,
    /// No gate wants it any more.
    Goes,
    /// Its owner is none that we know: it has to be looked for.
    Unclear,
    /// What it depends on has not been listed yet, or may not be: it stays until that is known.
    Waits,
}

/// Whether all that `check` refers to has been listed, so that what is not there is gone.
fn is_known(check: &Check, reconciler: &Reconciler) -> bool {
    let sources = &reconciler.index.sources;
    reconciler.index.is_ready(check)
        && scopes_of(check).iter().all(|scope| sources.refusal(scope.kind, &scope.namespace).is_none())
}

/// What is to become of `owned`, a slice of `service`.
#[must_use]
pub fn fate(service: &ObjectKey, owned: &Owned, reconciler: &Reconciler) -> Fate {
    let Some(owner) = &owned.owner else { return Fate::Stays };
    let key = ObjectKey::of(service.namespace.clone(), owner.name.clone());
    if !reconciler.knows(&key) {
        return Fate::Unclear;
    }
    if reconciler.uid(&key) != Some(&owner.uid) {
        return Fate::Goes;
    }
    let holder = holder(service, reconciler);
    let Some(check) = reconciler.accepted(&key) else {
        // Nobody can read what it wants; what it had published stays, unless somebody else publishes instead.
        return match holder {
            None => Fate::Stays,
            Some(holder) if !is_known(holder, reconciler) => Fate::Waits,
            Some(_) => Fate::Goes,
        };
    };
    if gates_on(check, service).next().is_none() {
        return Fate::Goes;
    }
    match holder {
        // A Service that has not been listed yet, or may not be, looks like one that is gone.
        Some(holder) if !is_known(holder, reconciler) => Fate::Waits,
        Some(holder) if holder.key == key && !is_lost(service, reconciler) => Fate::Stays,
        _ => Fate::Goes,
    }
}

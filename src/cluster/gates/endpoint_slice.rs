//! The `endpointSlice` gate: slices of a Service without a selector.

use super::{
    Evaluated, KindCtx,
    candidates::{Candidate, Places, Spot, places},
    decision,
    remains::own,
    report::GateReport,
    slice::{Entry, Owner},
    slices::{Existing, Published, Publisher, Wanted, let_go, plan},
    standing::standing,
    write::{GateKey, GateWrite},
};
use crate::{
    check::{GateMode, GateReason, ObjectKey, Place, PortRef, Text},
    compile::is_publishable,
};

impl KindCtx<'_> {
    /// What the gate does and writes.
    pub(super) fn endpoint_slice(&mut self, service: &Text, port: Option<&PortRef>) -> Evaluated {
        let name = &self.gate.name;
        let service = ObjectKey::of(self.check.key.namespace.clone(), service.clone());
        let reconciler = self.reconciler;
        let port = match standing(self.check, &service, port, reconciler) {
            Ok(port) => port,
            Err(obstacle) => return Evaluated::idle(name, obstacle.reason, obstacle.message),
        };
        let owner = Owner { name: self.check.key.name.clone(), uid: self.check.uid.clone() };
        // Of whichever gate: one that was renamed goes on with what it has.
        let existing = own(&service, &owner, &reconciler.index.sources);
        let read = Published::read(&existing);
        let Places { candidates, unknown } = places(self.check, self.view, self.judged, &read.names);
        // Such a name is left out until somebody has looked, unless there is nothing else.
        if !unknown.is_empty() && candidates.is_empty() {
            return Evaluated::idle(name, GateReason::Pending, "names of targets are being looked up");
        }
        // What no slice can hold is no candidate: it would count as published, and nothing of it is.
        let (candidates, refused): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| is_publishable(candidate.spot.address.ip()));
        let outcome = self.decide(&candidates, false, |candidate| read.ready.get(&candidate.spot.address).copied());
        let wanted: Vec<_> = candidates.iter().zip(&outcome.published).map(|(it, ready)| wanted(it, *ready)).collect();
        let mut report = decision::report(self.gate, &outcome);
        if !refused.is_empty() {
            let refused: Vec<_> = refused.iter().map(|candidate| &*candidate.label).collect();
            report.message =
                format!("{}; not published, since a slice cannot hold it: {}", report.message, refused.join(", "));
        }
        if candidates.is_empty() && self.check.targets.iter().any(|target| matches!(target.place, Place::Host(_))) {
            // Hosts are declared, and none of them can be published: nothing is enforced.
            report = GateReport { effective: GateReason::NotFound, ..report };
            report.message = format!("no target leads to an address that a slice can hold; {}", report.message);
        }
        let publisher = Publisher { service: &service, gate: &self.gate.name, owner: &owner, port_name: &port.name };
        let writes = match self.gate.mode {
            GateMode::Enforce => plan(&publisher, &wanted, &existing),
            GateMode::DryRun => let_go(&publisher, &existing),
        };
        let writes: Vec<_> =
            writes.into_iter().map(|(key, write)| (GateKey::Slice(key), GateWrite::Slice(write))).collect();
        if self.gate.mode == GateMode::Enforce && !writes.is_empty() {
            // Nothing is told as done that is not.
            let ready = candidates.iter().filter(|it| read.ready.get(&it.spot.address) == Some(&true)).count();
            report.published = u32::try_from(ready).unwrap_or(u32::MAX);
            report.withheld = u32::try_from(candidates.len() - ready).unwrap_or(u32::MAX);
            report.message =
                format!("being written, {ready} of {} published so far; {}", candidates.len(), report.message);
        }
        let undone = |slice: &Existing<'_>| {
            self.book.undone(&GateKey::Slice(ObjectKey::new(&service.namespace, slice.name)), self.now)
        };
        if let Some(message) = existing.iter().find_map(undone) {
            report = GateReport { effective: GateReason::Conflict, message, ..report };
        }
        if let Some((reason, message)) = writes.iter().find_map(|(key, _)| self.book.failure(key)) {
            report = GateReport { effective: *reason, message: message.clone(), ..report };
        }
        Evaluated { report, writes }
    }
}

/// What a slice is to say of `candidate`.
fn wanted(candidate: &Candidate, ready: bool) -> Wanted {
    let Spot { address, name_of } = &candidate.spot;
    let entry = Entry { address: address.ip(), ready, zone: candidate.zone.clone(), name_of: name_of.clone() };
    Wanted { entry, port: address.port() }
}

//! The `endpointSlice` gate: slices of a Service without a selector.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    Evaluated, KindCtx,
    candidates::{Candidate, Spot},
    decision,
    names::Answer,
    report::GateReport,
    slice::{Entry, Owner},
    slices::{Existing, Published, Publisher, Wanted, let_go, plan},
    standing::standing,
    write::{GateKey, GateWrite},
};
use crate::{
    check::{GateMode, GateReason, ObjectKey, PortRef},
    compile::is_publishable,
};

impl KindCtx<'_> {
    /// What the gate does and writes.
    pub(super) fn endpoint_slice(&mut self, service: &Arc<str>, port: Option<&PortRef>) -> Evaluated {
        let name = &self.gate.name;
        let service = ObjectKey { namespace: self.check.key.namespace.clone(), name: service.clone() };
        let reconciler = self.reconciler;
        let port = match standing(self.check, &service, port, reconciler) {
            Ok(port) => port,
            Err(obstacle) => return Evaluated::idle(name, obstacle.reason, obstacle.message),
        };
        let owner = Owner { name: self.check.key.name.clone(), uid: self.check.uid.clone() };
        let slices = reconciler.index.sources.slices.get(&service);
        let existing: Vec<_> = slices
            .into_iter()
            .flatten()
            .filter_map(|(name, facts)| {
                let owned = facts.owned.as_deref()?;
                // Of whichever gate: one that was renamed goes on with what it has.
                (owned.owner.as_ref() == Some(&owner)).then_some(Existing {
                    name,
                    resource_version: &facts.resource_version,
                    owned,
                })
            })
            .collect();
        let read = Published::read(&existing);
        let Some(addresses) = self.addresses(&read) else {
            return Evaluated::idle(name, GateReason::Pending, "names of targets are being looked up");
        };
        let candidates = self.candidates;
        let outcome = self.decide(candidates, false, |candidate| match &candidate.spot {
            Spot::Address(address) => read.ready.get(address).copied(),
            spot @ Spot::Name { port, .. } => {
                let of = |ip: &IpAddr| read.ready.get(&(*ip, *port).into()).copied();
                addresses.get(spot)?.iter().filter_map(of).reduce(|one, other| one || other)
            }
        });
        let (wanted, refused) = entries(self.candidates, &outcome.published, &addresses);
        let mut report = decision::report(self.gate, &outcome);
        if !refused.is_empty() {
            report.message =
                format!("{}; not published, since a slice cannot hold it: {}", report.message, refused.join(", "));
        }
        let publisher = Publisher { service: &service, gate: &self.gate.name, owner: &owner, port_name: &port.name };
        let writes = match self.gate.mode {
            GateMode::Enforce => plan(&publisher, &wanted, &existing),
            GateMode::DryRun => let_go(&publisher, &existing),
        };
        let writes: Vec<_> =
            writes.into_iter().map(|(key, write)| (GateKey::Slice(key), GateWrite::Slice(write))).collect();
        if let Some((reason, message)) = writes.iter().find_map(|(key, _)| self.book.failure(key)) {
            report = GateReport { effective: *reason, message: message.clone(), ..report };
        }
        Evaluated { report, writes }
    }

    /// The addresses of every candidate that is a name. `None` while one of them is looked up for the first time, and
    /// nothing is known of it from an earlier life.
    fn addresses(&mut self, published: &Published) -> Option<BTreeMap<Spot, Vec<IpAddr>>> {
        let mut addresses = BTreeMap::new();
        let mut waiting = false;
        for candidate in self.candidates {
            let Spot::Name { target, name, port } = &candidate.spot else { continue };
            let earlier = published.names.get(&(target.clone(), *port));
            let found = match self.names.ask(name, &self.check.key, self.check.rhythm.interval, self.now) {
                Answer::Addresses(addresses) => addresses.to_vec(),
                Answer::Unknown => earlier.cloned().unwrap_or_default(),
                Answer::Waiting => {
                    waiting |= earlier.is_none();
                    earlier.cloned().unwrap_or_default()
                }
            };
            addresses.insert(candidate.spot.clone(), found);
        }
        (!waiting).then_some(addresses)
    }
}

/// What the slices are to say, and what no slice may hold.
fn entries(
    candidates: &[Candidate],
    published: &[bool],
    addresses: &BTreeMap<Spot, Vec<IpAddr>>,
) -> (Vec<Wanted>, Vec<String>) {
    let mut wanted: BTreeMap<(IpAddr, u16), Entry> = BTreeMap::new();
    let mut refused = vec![];
    for (candidate, ready) in candidates.iter().zip(published) {
        let (port, ips, name_of) = match &candidate.spot {
            Spot::Address(address) => (address.port(), vec![address.ip()], None),
            spot @ Spot::Name { target, port, .. } => {
                (*port, addresses.get(spot).cloned().unwrap_or_default(), Some(target.clone()))
            }
        };
        for address in ips {
            if !is_publishable(address) {
                refused.push(if name_of.is_some() {
                    format!("{} ({address})", candidate.label)
                } else {
                    address.to_string()
                });
                continue;
            }
            let entry = Entry { address, ready: *ready, zone: candidate.zone.clone(), name_of: name_of.clone() };
            // An address that a name leads to and that is a target of its own is as good as the worse of the two.
            wanted
                .entry((address, port))
                .and_modify(|known| {
                    known.ready &= *ready;
                    known.name_of = known.name_of.take().or_else(|| entry.name_of.clone());
                })
                .or_insert(entry);
        }
    }
    (wanted.into_iter().map(|((_, port), entry)| Wanted { entry, port }).collect(), refused)
}

//! What a data plane reports: finding out whom a report is about, and taking it in.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use jiff::Timestamp;

use super::{
    group::Member,
    judgement::Hearing,
    scheduler::{Scheduler, millis},
    table::Table,
};
use crate::{
    check::{ObjectKey, Observed},
    probe::Lane,
};

/// What a data plane has seen, `count` times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub about: About,
    pub observed: Observed,
    pub count: u32,
}

/// Which endpoint a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// An endpoint of a check, by its address and port as people see it, or by the name of a target that has no other.
    Endpoint { check: Arc<ObjectKey>, endpoint: Box<str> },
    /// Whatever in scope is at this address: all a proxy knows.
    Address { scope: Arc<Scope>, address: SocketAddr },
}

/// Whose endpoints an address may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespace(Box<str>),
    Check(ObjectKey),
}

impl Scope {
    fn covers(&self, key: &ObjectKey) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => **namespace == *key.namespace,
            Self::Check(check) => check == key,
        }
    }
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// Judged, whether it counts or is neutral.
    Accepted,
    UnknownCheck,
    UnknownEndpoint,
    /// The check has no `spec.passive`.
    NotPassive,
    Suspended,
}

impl Fate {
    /// The word that whoever reports is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::UnknownCheck => "unknownCheck",
            Self::UnknownEndpoint => "unknownEndpoint",
            Self::NotPassive => "notPassive",
            Self::Suspended => "suspended",
        }
    }
}

/// Endpoints of checks that listen, by the address that traffic goes to.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    at: HashMap<SocketAddr, Vec<u32>>,
    /// Those that are names: where they lead to may change at every probe.
    named: Vec<u32>,
}

impl<L: Lane> Scheduler<L> {
    /// Takes `reports` in, in their order.
    pub(super) fn observe(&mut self, reports: &[Observation], now: u64) -> Vec<Fate> {
        let wall = Timestamp::now();
        reports.iter().map(|report| self.observe_one(report, now, wall)).collect()
    }

    fn observe_one(&mut self, report: &Observation, now: u64, wall: Timestamp) -> Fate {
        let times = u16::try_from(report.count).unwrap_or(u16::MAX);
        match &report.about {
            About::Endpoint { check, endpoint } => match self.find_endpoint(check, endpoint) {
                Ok((id, address)) => {
                    self.hear_of(id, address, (report.observed, times), now, wall);
                    Fate::Accepted
                }
                Err(fate) => fate,
            },
            About::Address { scope, address } => {
                let mut fate = Fate::UnknownEndpoint;
                let address = canonical(*address);
                for id in self.find_address(address) {
                    let Some((_, group)) = self.table.with_group(id) else { continue };
                    if !scope.covers(&group.check.key) {
                        continue;
                    }
                    if group.check.suspend {
                        fate = if fate == Fate::Accepted { fate } else { Fate::Suspended };
                        continue;
                    }
                    self.hear_of(id, Some(address), (report.observed, times), now, wall);
                    fate = Fate::Accepted;
                }
                fate
            }
        }
    }

    /// The endpoint of `check` that goes by `name`; with an address where it is one of a name's.
    fn find_endpoint(&mut self, check: &ObjectKey, name: &str) -> Result<(u32, Option<SocketAddr>), Fate> {
        let at = self.table.find(check).ok_or(Fate::UnknownCheck)?;
        let group = self.table.group(at).ok_or(Fate::UnknownCheck)?;
        if group.check.passive.is_none() {
            return Err(Fate::NotPassive);
        }
        if group.check.suspend {
            return Err(Fate::Suspended);
        }
        if group.places.is_none() {
            let places = self.table.places(at);
            if let Some(group) = self.table.group_mut(at) {
                group.places = Some(places);
            }
        }
        let group = self.table.group(at).ok_or(Fate::UnknownCheck)?;
        let find = |name: &str| group.places.as_ref().and_then(|places| places.get(name)).copied();
        if let Some(id) = find(name) {
            return Ok((id, None));
        }
        // Another spelling of an address, or one that a name leads to.
        let address: SocketAddr = name.parse().map_err(|_| Fate::UnknownEndpoint)?;
        let address = canonical(address);
        if let Some(id) = find(&address.to_string()) {
            return Ok((id, None));
        }
        let mut ids = group.members.iter().filter_map(|member| match member {
            Member::Endpoint(id) => Some(*id),
            Member::Check { .. } => None,
        });
        let found = ids.find(|id| self.table.leads_to(*id, address));
        found.map(|id| (id, Some(address))).ok_or(Fate::UnknownEndpoint)
    }

    /// Every endpoint of a check that listens at `address`.
    fn find_address(&mut self, address: SocketAddr) -> Vec<u32> {
        let table = &self.table;
        let known = self.addresses.get_or_insert_with(|| table.listening());
        let mut found = known.at.get(&address).cloned().unwrap_or_default();
        found.extend(known.named.iter().filter(|id| table.leads_to(**id, address)));
        found
    }

    /// Takes in what was seen of `id`, or of the one address of it.
    fn hear_of(&mut self, id: u32, address: Option<SocketAddr>, seen: (Observed, u16), now: u64, wall: Timestamp) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        let Some(passive) = &group.check.passive else { return };
        let hearing = Hearing { passive, stale_after: millis(group.check.stale_after) };
        let rhythm = &group.check.rhythm;
        let before = record.belief.cadence(rhythm);
        let ip = address.map(|address| address.ip());
        let changed = record.belief.observe(ip, seen, &hearing, now, wall);
        let after = record.belief.cadence(rhythm);
        let paced = before != after;
        if paced {
            record.change_pace(after, rhythm, now);
        }
        let group = record.group;
        if changed {
            self.mark(group);
        }
        // A report that confirms only puts off when the verdict is too old: the wheel looks early and finds that out.
        if changed || paced {
            self.reschedule(id);
        }
    }
}

impl Table {
    /// The endpoints of a check by label, and by target where that has but one.
    fn places(&self, at: u32) -> HashMap<Arc<str>, u32> {
        let Some(group) = self.group(at) else { return HashMap::new() };
        let mut places = HashMap::new();
        let mut targets: HashMap<Arc<str>, Option<u32>> = HashMap::new();
        for member in &group.members {
            let Member::Endpoint(id) = member else { continue };
            let Some(record) = self.record(*id) else { continue };
            let only = targets.entry(record.endpoint.target.clone()).or_insert(Some(*id));
            *only = only.filter(|only| only == id);
            if !record.endpoint.label.is_empty() {
                places.insert(record.endpoint.label.clone(), *id);
            }
        }
        for (target, only) in targets {
            if let Some(id) = only {
                // An address cannot be the name of a target, which is a DNS label.
                places.entry(target).or_insert(id);
            }
        }
        places
    }

    /// Every endpoint of a check that listens.
    fn listening(&self) -> Addresses {
        let mut addresses = Addresses::default();
        for at in self.group_numbers() {
            let Some(group) = self.group(at).filter(|group| group.check.passive.is_some()) else { continue };
            for member in &group.members {
                let Member::Endpoint(id) = member else { continue };
                let Some(record) = self.record(*id) else { continue };
                if record.endpoint.is_named() {
                    addresses.named.push(*id);
                } else if let Ok(address) = record.endpoint.label.parse::<SocketAddr>() {
                    addresses.at.entry(canonical(address)).or_default().push(*id);
                }
            }
        }
        addresses
    }

    /// Whether `id` is a name that leads to `address`.
    fn leads_to(&self, id: u32, address: SocketAddr) -> bool {
        self.record(id)
            .is_some_and(|record| record.endpoint.port == Some(address.port()) && record.belief.leads_to(address.ip()))
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

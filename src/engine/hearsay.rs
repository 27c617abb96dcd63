//! What a data plane reports: finding out whom a report is about, and taking it in.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    judgement::ago,
    record::Record,
    scheduler::{Scheduler, millis},
    table::Table,
    testimony::{Heard, Hearing},
};
use crate::{
    check::{ObjectKey, Observed, Text},
    probe::Lane,
};

/// What a data plane has seen, `count` times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    pub about: About,
    pub observed: Observed,
    pub count: u32,
    /// `None`: now.
    pub when: Option<When>,
}

/// When a data plane has seen something, by its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// When the request began, or the connection.
    pub began: Timestamp,
    /// When it was known what came of it.
    pub ended: Timestamp,
}

impl When {
    /// From `began`, for `lasted`; what no calendar has ends as it began.
    #[must_use]
    pub fn lasting(began: Timestamp, lasted: Duration) -> Self {
        Self { began, ended: began.checked_add(lasted).unwrap_or(began) }
    }
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
    /// Seen so long ago, or before the endpoint recovered, that it says nothing of now.
    Late,
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
            Self::Late => "late",
        }
    }
}

/// Endpoints of checks that listen, by the addresses that traffic goes to. Kept true at every change, of one endpoint at a
/// time: what a line of a log costs does not depend on how many there are.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    at: HashMap<SocketAddr, Vec<u32>>,
    of: HashMap<u32, Vec<SocketAddr>>,
}

impl Addresses {
    /// From now on `id` is at `places`, and nowhere else.
    fn set(&mut self, id: u32, places: Vec<SocketAddr>) {
        if self.of.get(&id).map_or(&[][..], Vec::as_slice) == places {
            return;
        }
        self.forget(id);
        for place in &places {
            self.at.entry(*place).or_default().push(id);
        }
        if !places.is_empty() {
            self.of.insert(id, places);
        }
    }

    /// `id` is gone; another endpoint may have its number next.
    pub fn forget(&mut self, id: u32) {
        for place in self.of.remove(&id).unwrap_or_default() {
            if let Some(ids) = self.at.get_mut(&place) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.at.remove(&place);
                }
            }
        }
    }

    /// Who is at `address`.
    fn find(&self, address: SocketAddr) -> &[u32] {
        self.at.get(&address).map_or(&[], Vec::as_slice)
    }
}

impl<L: Lane> Scheduler<L> {
    /// Takes `reports` in, in their order.
    pub(super) fn observe(&mut self, reports: &[Observation], now: u64) -> Vec<Fate> {
        let wall = self.wall;
        reports.iter().map(|report| self.observe_one(report, now, wall)).collect()
    }

    fn observe_one(&mut self, report: &Observation, now: u64, wall: Timestamp) -> Fate {
        let times = u16::try_from(report.count).unwrap_or(u16::MAX);
        let of = |then: fn(&When) -> Timestamp| ago(report.when.as_ref().map_or(wall, then), now, wall);
        let (began, ended) = (of(|when| when.began), of(|when| when.ended));
        let heard = Heard { observed: report.observed, times, began: began.min(ended), ended };
        match &report.about {
            About::Endpoint { check, endpoint } => match self.find_endpoint(check, endpoint) {
                Ok((id, address)) => self.hear_of(id, address, &heard, now, wall),
                Err(fate) => fate,
            },
            About::Address { scope, address } => {
                let mut fate = Fate::UnknownEndpoint;
                let address = canonical(*address);
                for id in self.addresses.find(address).to_vec() {
                    let Some((_, group)) = self.table.with_group(id) else { continue };
                    if !scope.covers(&group.check.key) {
                        continue;
                    }
                    let its = if group.check.suspend {
                        Fate::Suspended
                    } else {
                        self.hear_of(id, Some(address), &heard, now, wall)
                    };
                    fate = match (fate, its) {
                        // One that takes it is enough.
                        (Fate::Accepted, _) | (Fate::Late, Fate::Suspended) => fate,
                        (_, its) => its,
                    };
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
        let ids = self.addresses.find(address).iter().copied();
        let found = ids.filter(|id| self.table.record(*id).is_some_and(|record| record.group == at)).min();
        found.map(|id| (id, Some(address))).ok_or(Fate::UnknownEndpoint)
    }

    /// Takes note of where `id` is now, if anybody listens.
    pub(super) fn locate(&mut self, id: u32) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        let places = if group.check.passive.is_some() { record.places() } else { vec![] };
        self.addresses.set(id, places);
    }

    /// Takes in what was seen of `id`, or of the one address of it.
    fn hear_of(&mut self, id: u32, address: Option<SocketAddr>, heard: &Heard, now: u64, wall: Timestamp) -> Fate {
        let Some((record, group)) = self.table.with_group(id) else { return Fate::UnknownEndpoint };
        let Some(passive) = &group.check.passive else { return Fate::NotPassive };
        let hearing = Hearing { passive, stale_after: millis(group.check.stale_after) };
        let rhythm = &group.check.rhythm;
        let before = record.belief.cadence(rhythm, now);
        let ip = address.map(|address| address.ip());
        let Some(changed) = record.belief.observe(ip, heard, &hearing, now, wall) else { return Fate::Late };
        let after = record.belief.cadence(rhythm, now);
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
        Fate::Accepted
    }
}

impl Table {
    /// The endpoints of a check by label, and by target where that has but one.
    fn places(&self, at: u32) -> HashMap<Text, u32> {
        let Some(group) = self.group(at) else { return HashMap::new() };
        let mut places = HashMap::new();
        let mut targets: HashMap<Text, Option<u32>> = HashMap::new();
        for id in &group.endpoints {
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
}

impl Record {
    /// Where traffic to it goes.
    fn places(&self) -> Vec<SocketAddr> {
        match (self.endpoint.is_named(), self.endpoint.port) {
            (true, Some(port)) => {
                self.belief.addresses().into_iter().map(|ip| canonical(SocketAddr::new(ip, port))).collect()
            }
            (true, None) => vec![],
            (false, _) => self.endpoint.label.parse().ok().map(canonical).into_iter().collect(),
        }
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

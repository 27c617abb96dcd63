//! From the endpoints that a gate publishes to what has to be written to its slices. Pure.
//!
//! An endpoint stays in the slice where it is, so that one flip rewrites one slice; new ones fill what room there is. A
//! slice holds one family of addresses and one port, and no more than a hundred endpoints, as those of Kubernetes' own
//! controller do.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use super::{
    slice::{Body, Entry, Owned, Owner},
    write::{SliceWrite, Turns},
};
use crate::{
    check::{Family, ObjectKey, Text},
    engine::stable_hash,
};

/// The most endpoints of one slice.
pub const MAX_ENDPOINTS: usize = 100;

/// For whom slices are written.
#[derive(Clone, Debug)]
pub struct Publisher<'a> {
    pub service: &'a ObjectKey,
    pub gate: &'a str,
    pub owner: &'a Owner,
    /// The name of the Service's port.
    pub port_name: &'a Text,
}

/// An endpoint to be published, ready or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub entry: Entry,
    pub port: u16,
}

/// A slice of the gate as it is.
#[derive(Clone, Debug)]
pub struct Existing<'a> {
    pub name: &'a Text,
    pub resource_version: &'a str,
    pub owned: &'a Owned,
}

type Group = (Family, u16);

/// What to write, and to which slice, so that `existing` come to say `wanted`. What goes waits until nothing is to be
/// created any more: nothing that moves may be missing in between, nor where a creation is refused.
#[must_use]
pub fn plan(publisher: &Publisher<'_>, wanted: &[Wanted], existing: &[Existing<'_>]) -> Vec<(ObjectKey, SliceWrite)> {
    let mut groups: BTreeMap<Group, BTreeMap<IpAddr, Entry>> = BTreeMap::new();
    for Wanted { entry, port } in wanted {
        groups.entry((Family::of(entry.address), *port)).or_default().insert(entry.address, entry.clone());
    }
    let mut existing: Vec<_> = existing.iter().collect();
    // Those of the gate's own name before those of a former one.
    existing.sort_unstable_by_key(|slice| (&*slice.owned.gate != publisher.gate, slice.name));
    let taken: BTreeSet<&str> = existing.iter().map(|slice| &**slice.name).collect();
    let key = |name: &str| ObjectKey::new(&publisher.service.namespace, name);

    let (mut writes, mut deletions) = (vec![], vec![]);
    let named = named(publisher, &groups);
    let mut slices_of: HashMap<Group, Vec<&Existing<'_>>> = HashMap::new();
    for slice in existing {
        match group_of(slice, &named).filter(|group| groups.contains_key(group)) {
            Some(group) => slices_of.entry(group).or_default().push(slice),
            None => deletions.push(slice),
        }
    }
    for (group, mut entries) in groups {
        let slices = slices_of.remove(&group).unwrap_or_default();
        let mut kept: Vec<Vec<Entry>> = slices.iter().map(|slice| keep(slice, &mut entries)).collect();
        let mut rest = entries.into_values();
        for entries in &mut kept {
            entries.extend(rest.by_ref().take(MAX_ENDPOINTS.saturating_sub(entries.len())));
            entries.sort_unstable();
        }
        let body = |entries| Body { family: group.0, port: group.1, port_name: publisher.port_name.clone(), entries };
        for (slice, entries) in slices.into_iter().zip(kept) {
            if entries.is_empty() {
                deletions.push(slice);
                continue;
            }
            let body = body(entries);
            if !says(slice.owned, &body) || &*slice.owned.gate != publisher.gate {
                writes.push((key(slice.name), change(publisher, slice, body)));
            }
        }
        let rest: Vec<_> = rest.collect();
        let free = (0..).map(|ordinal| name(publisher, group, ordinal)).filter(|name| !taken.contains(&**name));
        for (entries, name) in rest.chunks(MAX_ENDPOINTS).zip(free) {
            let key = key(&name);
            let body = body(entries.to_vec());
            let object = body.object(&key, &publisher.service.name, publisher.gate, publisher.owner);
            writes.push((key, SliceWrite::Create(Box::new(object))));
        }
    }
    if !writes.iter().any(|(_, write)| matches!(write, SliceWrite::Create(_))) {
        writes
            .extend(deletions.into_iter().map(|slice| (key(slice.name), delete(slice.owned, slice.resource_version))));
    }
    writes
}

/// The groups of those slices that `groups` are created as.
fn named(publisher: &Publisher<'_>, groups: &BTreeMap<Group, BTreeMap<IpAddr, Entry>>) -> HashMap<String, Group> {
    let all = groups.iter().flat_map(|(group, entries)| {
        let needed = u32::try_from(entries.len().div_ceil(MAX_ENDPOINTS)).unwrap_or(u32::MAX);
        (0..=needed).map(|ordinal| (name(publisher, *group, ordinal), *group))
    });
    all.collect()
}

/// What a slice is for: what its name says before what it says itself. Whatever else comes to be said of a slice that we
/// made, it is written over and not made a second time: otherwise, where something changes all that is created, each look
/// would make one more.
fn group_of(slice: &Existing<'_>, named: &HashMap<String, Group>) -> Option<Group> {
    let body = slice.owned.body.as_ref();
    let by_name = named.get(&**slice.name).copied().filter(|group| body.is_none_or(|body| body.family == group.0));
    by_name.or_else(|| body.map(|body| (body.family, body.port)))
}

/// Whether a slice says `body`, and nothing else.
pub fn says(owned: &Owned, body: &Body) -> bool {
    owned.strange.is_none() && owned.body.as_ref() == Some(body)
}

fn change(publisher: &Publisher<'_>, slice: &Existing<'_>, body: Body) -> SliceWrite {
    let there = slice.owned.body.as_ref().filter(|_| *slice.owned.gate == *publisher.gate);
    SliceWrite::Change {
        resource_version: slice.resource_version.to_owned(),
        gate: publisher.gate.into(),
        turns: there.filter(|_| slice.owned.strange.is_none()).map_or(Turns::OTHER, |there| turns(there, &body)),
        body,
    }
}

/// What becomes of the endpoints.
fn turns(from: &Body, to: &Body) -> Turns {
    let before: HashMap<IpAddr, &Entry> = from.entries.iter().map(|entry| (entry.address, entry)).collect();
    let mut turns = Turns { members: from.entries.len() != to.entries.len(), ..Turns::default() };
    turns.other = (from.family, from.port, &from.port_name) != (to.family, to.port, &to.port_name);
    for entry in &to.entries {
        match before.get(&entry.address) {
            None => turns.members = true,
            Some(before) => {
                turns.removals += usize::from(before.ready && !entry.ready);
                turns.returns += usize::from(!before.ready && entry.ready);
                turns.other |= (&before.zone, &before.name_of) != (&entry.zone, &entry.name_of);
            }
        }
    }
    turns
}

/// What to write so that nothing is withheld: of a gate that no longer enforces.
#[must_use]
pub fn let_go(publisher: &Publisher<'_>, existing: &[Existing<'_>]) -> Vec<(ObjectKey, SliceWrite)> {
    let mut writes = vec![];
    for slice in existing {
        let Some(body) = slice.owned.body.clone().filter(|body| body.entries.iter().any(|entry| !entry.ready)) else {
            continue;
        };
        let entries = body.entries.into_iter().map(|entry| Entry { ready: true, ..entry }).collect();
        let key = ObjectKey::new(&publisher.service.namespace, slice.name);
        writes.push((key, change(publisher, slice, Body { entries, ..body })));
    }
    writes
}

/// Takes a slice of ours away.
#[must_use]
pub fn delete(owned: &Owned, resource_version: &str) -> SliceWrite {
    SliceWrite::Delete { uid: owned.uid.clone(), resource_version: resource_version.to_owned() }
}

/// The entries that stay in `slice`, taken out of `entries`.
fn keep(slice: &Existing<'_>, entries: &mut BTreeMap<IpAddr, Entry>) -> Vec<Entry> {
    let there = slice.owned.body.iter().flat_map(|body| &body.entries);
    there.filter_map(|entry| entries.remove(&entry.address)).take(MAX_ENDPOINTS).collect()
}

/// The same in every life, so that a creation that is tried again meets itself.
fn name(publisher: &Publisher<'_>, (family, port): Group, ordinal: u32) -> String {
    let family = match family {
        Family::V4 => "4",
        Family::V6 => "6",
    };
    let parts = [
        &*publisher.owner.uid,
        publisher.gate,
        &*publisher.service.name,
        family,
        &port.to_string(),
        &ordinal.to_string(),
    ];
    format!("{}-{:010x}", publisher.service.name, stable_hash(&parts) & 0xff_ffff_ffff)
}

/// The addresses of targets that are DNS names, by target.
pub type Names = HashMap<Text, BTreeSet<IpAddr>>;

/// What slices say of each address, and which are the addresses of each target that is a DNS name.
#[derive(Clone, Debug, Default)]
pub struct Published {
    pub ready: HashMap<SocketAddr, bool>,
    pub names: Names,
}

impl Published {
    #[must_use]
    pub fn read(existing: &[Existing<'_>]) -> Self {
        let mut published = Self::default();
        for body in existing.iter().filter_map(|slice| slice.owned.body.as_ref()) {
            for entry in &body.entries {
                published.ready.insert(SocketAddr::new(entry.address, body.port), entry.ready);
                if let Some(target) = &entry.name_of {
                    published.names.entry(target.clone()).or_default().insert(entry.address);
                }
            }
        }
        published
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn service() -> ObjectKey {
        ObjectKey::new("shop", "db")
    }

    fn owner() -> Owner {
        Owner { name: "db".into(), uid: "u".into() }
    }

    /// A server that takes what it is sent.
    #[derive(Clone, Debug, Default)]
    struct Server {
        slices: BTreeMap<Text, (u32, Owned)>,
        writes: usize,
        /// It makes something else of what it is sent.
        changes: Option<fn(&mut Owned)>,
    }

    impl Server {
        /// All writes until there are no more: the first ones, and those that waited for them.
        fn publish(&mut self, wanted: &[Wanted]) -> Vec<(ObjectKey, SliceWrite)> {
            let mut all = vec![];
            for _ in 0..3 {
                let writes = self.round(wanted);
                if writes.is_empty() {
                    return all;
                }
                all.extend(writes);
            }
            panic!("there is no end to it: {all:?}");
        }

        fn round(&mut self, wanted: &[Wanted]) -> Vec<(ObjectKey, SliceWrite)> {
            let versions: BTreeMap<_, _> =
                self.slices.iter().map(|(name, (version, _))| (name.clone(), version.to_string())).collect();
            let existing: Vec<_> = self
                .slices
                .iter()
                .map(|(name, (_, owned))| Existing { name, resource_version: &versions[name], owned })
                .collect();
            let (service, owner, port_name) = (service(), owner(), "pg".into());
            let publisher = Publisher { service: &service, gate: "traffic", owner: &owner, port_name: &port_name };
            let writes = plan(&publisher, wanted, &existing);
            for (key, write) in writes.clone() {
                self.take(key, write);
            }
            writes
        }

        fn take(&mut self, key: ObjectKey, write: SliceWrite) {
            self.writes += 1;
            let version = self.writes as u32;
            match write {
                SliceWrite::Create(object) => {
                    let mut owned = Owned::of(&object).expect("ours");
                    self.changes.iter().for_each(|change| change(&mut owned));
                    assert!(self.slices.insert(key.name.clone(), (version, owned)).is_none(), "created twice");
                }
                SliceWrite::Change { resource_version, body, gate, .. } => {
                    let slice = self.slices.get_mut(&key.name).expect("there");
                    assert_eq!(slice.0.to_string(), resource_version);
                    let mut owned = Owned { body: Some(body), gate, strange: None, ..slice.1.clone() };
                    self.changes.iter().for_each(|change| change(&mut owned));
                    *slice = (version, owned);
                }
                SliceWrite::Delete { .. } => {
                    self.slices.remove(&key.name).expect("there");
                }
            }
        }

        fn says(&self) -> BTreeMap<SocketAddr, bool> {
            let mut says = BTreeMap::new();
            for (_, owned) in self.slices.values() {
                let body = owned.body.as_ref().expect("as we write it");
                assert!(!body.entries.is_empty() && body.entries.len() <= MAX_ENDPOINTS);
                for entry in &body.entries {
                    assert_eq!(Family::of(entry.address), body.family);
                    let twice = says.insert(SocketAddr::new(entry.address, body.port), entry.ready);
                    assert_eq!(twice, None, "{} is in two slices", entry.address);
                }
            }
            says
        }
    }

    fn wanted(address: IpAddr, port: u16, ready: bool) -> Wanted {
        Wanted { entry: Entry { address, ready, zone: None, name_of: None }, port }
    }

    fn many(count: u16) -> Vec<Wanted> {
        (0..count).map(|index| wanted([10, 0, (index >> 8) as u8, index as u8].into(), 80, true)).collect()
    }

    #[test]
    fn a_flip_of_one_of_250_rewrites_one_of_three_slices() {
        let mut server = Server::default();
        let mut endpoints = many(250);
        assert_eq!(server.publish(&endpoints).len(), 3);
        endpoints[120].entry.ready = false;
        let writes = server.publish(&endpoints);
        assert!(matches!(writes.as_slice(), [(_, SliceWrite::Change { .. })]), "{writes:?}");
        assert!(server.publish(&endpoints).is_empty());
        endpoints.remove(30);
        assert_eq!(server.publish(&endpoints).len(), 1, "the others stay where they are");
        endpoints.push(wanted([10, 9, 9, 9].into(), 80, true));
        assert_eq!(server.publish(&endpoints).len(), 1);
        assert_eq!(server.slices.len(), 3);
    }

    #[test]
    fn what_is_edited_by_hand_is_written_over_where_it_is() {
        let edits: [fn(&mut Owned); 4] = [
            |owned| owned.body = None,
            |owned| owned.strange = Some("endpoints"),
            |owned| owned.body.as_mut().expect("there").port = 81,
            |owned| owned.body.as_mut().expect("there").entries.clear(),
        ];
        for edit in edits {
            let mut server = Server::default();
            server.publish(&many(3));
            server.slices.values_mut().for_each(|(_, owned)| edit(owned));
            let writes = server.publish(&many(3));
            assert!(matches!(writes.as_slice(), [(_, SliceWrite::Change { .. })]), "{writes:?}");
            assert_eq!(server.says().len(), 3);
        }
    }

    #[test]
    fn a_server_that_changes_what_it_is_sent_is_not_sent_slice_after_slice() {
        let changes: [fn(&mut Owned); 4] = [
            |owned| (owned.strange, owned.body) = (Some("ports"), None),
            |owned| owned.strange = Some("endpoints"),
            // A port of which there are endpoints too.
            |owned| owned.body.as_mut().expect("there").port = 81,
            |owned| owned.body.as_mut().expect("there").entries.truncate(20),
        ];
        let all: Vec<_> = many(250).into_iter().chain([wanted([10, 9, 9, 9].into(), 81, true)]).collect();
        for (index, change) in changes.into_iter().enumerate() {
            let mut server = Server { changes: Some(change), ..Server::default() };
            for round in 0..50 {
                let writes = server.round(&all);
                let creates = writes.iter().any(|(_, write)| matches!(write, SliceWrite::Create(_)));
                assert!(round == 0 || !creates, "{index}: {writes:?}");
            }
            assert_eq!(server.slices.len(), 4, "{index}");
        }
    }

    #[test]
    fn a_write_tells_what_it_turns() {
        let body = |entries: &[(u8, bool)]| {
            let entry = |(last, ready): &(u8, bool)| wanted([10, 0, 0, *last].into(), 80, *ready).entry;
            Body { family: Family::V4, port: 80, port_name: "pg".into(), entries: entries.iter().map(entry).collect() }
        };
        let there = body(&[(1, true), (2, false), (3, true)]);
        let of = |entries: &[(u8, bool)]| turns(&there, &body(entries));
        let none = Turns::default();
        assert_eq!(of(&[(1, false), (2, true), (3, false)]), Turns { removals: 2, returns: 1, ..none });
        assert_eq!(of(&[(1, true), (3, true), (4, true)]), Turns { members: true, ..none });
        assert_eq!(of(&[(1, true), (3, false)]), Turns { members: true, removals: 1, ..none });
        let renamed = turns(&there, &Body { port_name: "sql".into(), ..there.clone() });
        assert_eq!(renamed, Turns { other: true, ..none });
    }

    #[test]
    fn what_goes_waits_for_what_comes() {
        let mut server = Server::default();
        server.publish(&[wanted([10, 0, 0, 1].into(), 80, true)]);
        let moved = [wanted([10, 0, 0, 1].into(), 81, true)];
        assert!(matches!(server.round(&moved).as_slice(), [(_, SliceWrite::Create(_))]));
        assert_eq!(server.slices.len(), 2, "both, until the new one is there");
        assert!(matches!(server.round(&moved).as_slice(), [(_, SliceWrite::Delete { .. })]));
    }

    #[test]
    fn a_gate_that_was_renamed_goes_on_with_its_slices() {
        let mut server = Server::default();
        let endpoints = many(3);
        server.publish(&endpoints);
        for (_, owned) in server.slices.values_mut() {
            owned.gate = "former".into();
        }
        let writes = server.publish(&endpoints);
        assert!(
            matches!(writes.as_slice(), [(_, SliceWrite::Change { gate, .. })] if &**gate == "traffic"),
            "{writes:?}"
        );
    }

    #[test]
    fn what_no_longer_enforces_withholds_nothing() {
        let mut server = Server::default();
        let mut endpoints = many(3);
        endpoints[1].entry.ready = false;
        server.publish(&endpoints);
        let (service, owner, port_name) = (service(), owner(), "pg".into());
        let publisher = Publisher { service: &service, gate: "traffic", owner: &owner, port_name: &port_name };
        let (name, (version, owned)) = server.slices.iter().next().expect("one slice");
        let version = version.to_string();
        let existing = [Existing { name, resource_version: &version, owned }];
        for (key, write) in let_go(&publisher, &existing) {
            server.take(key, write);
        }
        assert!(server.says().len() == 3 && server.says().values().all(|ready| *ready));
        let (name, (version, owned)) = server.slices.iter().next().expect("one slice");
        let version = version.to_string();
        assert!(let_go(&publisher, &[Existing { name, resource_version: &version, owned }]).is_empty());
    }

    fn endpoint() -> impl Strategy<Value = (IpAddr, u16)> {
        let v4 = (0..=255_u8, 0..2_u8).prop_map(|(low, high)| IpAddr::from([10, 0, high, low]));
        let v6 = (0..200_u16).prop_map(|low| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, low]));
        (prop_oneof![3 => v4, 1 => v6], prop_oneof![9 => Just(80_u16), 1 => Just(81_u16)])
    }

    proptest! {
        #[test]
        fn slices_say_what_is_wanted_and_nothing_is_written_twice(
            rounds in prop::collection::vec(prop::collection::btree_map(endpoint(), any::<bool>(), 0..330), 1..5),
        ) {
            let mut server = Server::default();
            for round in rounds {
                let all: Vec<_> = round.iter().map(|((address, port), ready)| wanted(*address, *port, *ready)).collect();
                server.publish(&all);
                let says: BTreeMap<_, _> = round.iter().map(|((ip, port), ready)| (SocketAddr::new(*ip, *port), *ready)).collect();
                prop_assert_eq!(server.says(), says);
                prop_assert!(server.publish(&all).is_empty());
                let mut reversed = all.clone();
                reversed.reverse();
                prop_assert!(server.publish(&reversed).is_empty(), "the order does not matter");
            }
        }

        #[test]
        fn one_flip_rewrites_one_slice(
            endpoints in prop::collection::btree_set(endpoint(), 1..330), which in any::<prop::sample::Index>(),
        ) {
            let mut server = Server::default();
            let mut all: Vec<_> = endpoints.into_iter().map(|(address, port)| wanted(address, port, true)).collect();
            server.publish(&all);
            let flipped = which.index(all.len());
            all[flipped].entry.ready = false;
            prop_assert_eq!(server.publish(&all).len(), 1);
        }
    }
}

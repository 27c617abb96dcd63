//! The engine's tables: records of endpoints and checks by number, and who depends on whom.

use std::collections::{HashMap, HashSet};

use super::{group::Group, record::Record};
use crate::check::{Check, ObjectKey};

/// How many entries are allocated together. One list that doubles would hold up to twice what is there, and three times
/// that while it moves.
const CHUNK: usize = 64;

/// Numbers are reused; whoever keeps one forgets it when the entry goes.
#[derive(Debug)]
struct Slots<T> {
    /// Each as long as [`CHUNK`], but for the last.
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    /// Numbers that were ever given.
    given: usize,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: vec![], free: vec![], given: 0 }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.chunks[id as usize / CHUNK][id as usize % CHUNK] = Some(value);
            return id;
        }
        match self.chunks.last_mut().filter(|last| last.len() < CHUNK) {
            Some(last) => last.push(Some(value)),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Some(value));
                self.chunks.push(chunk);
            }
        }
        self.given += 1;
        (self.given - 1) as u32
    }

    fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.take()?;
        self.free.push(id);
        Some(value)
    }

    fn get(&self, id: u32) -> Option<&T> {
        self.chunks.get(id as usize / CHUNK)?.get(id as usize % CHUNK)?.as_ref()
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.chunks.get_mut(id as usize / CHUNK)?.get_mut(id as usize % CHUNK)?.as_mut()
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten().flatten()
    }

    fn len(&self) -> usize {
        self.given - self.free.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    records: Slots<Record>,
    groups: Slots<Group>,
    by_key: HashMap<ObjectKey, u32>,
    /// Which checks have the one named as a member, whether it exists or not.
    dependents: HashMap<ObjectKey, HashSet<u32>>,
    /// Checks that time alone may change: operators speak of them, or an endpoint has left.
    passing: HashSet<u32>,
}

impl Table {
    pub fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id)
    }

    pub fn record_mut(&mut self, id: u32) -> Option<&mut Record> {
        self.records.get_mut(id)
    }

    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut()
    }

    pub fn add_record(&mut self, record: Record) -> u32 {
        self.records.insert(record)
    }

    pub fn remove_record(&mut self, id: u32) -> Option<Record> {
        self.records.remove(id)
    }

    /// How many endpoints there are.
    pub fn endpoints(&self) -> usize {
        self.records.len()
    }

    /// A record with the check it belongs to.
    pub fn with_group(&mut self, id: u32) -> Option<(&mut Record, &mut Group)> {
        let record = self.records.get_mut(id)?;
        let group = self.groups.get_mut(record.group)?;
        Some((record, group))
    }

    /// A record with the check it belongs to, to look at.
    pub fn with_check(&self, id: u32) -> Option<(&Record, &Check)> {
        let record = self.records.get(id)?;
        Some((record, &self.groups.get(record.group)?.check))
    }

    pub fn find(&self, key: &ObjectKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub fn group(&self, at: u32) -> Option<&Group> {
        self.groups.get(at)
    }

    pub fn group_mut(&mut self, at: u32) -> Option<&mut Group> {
        self.groups.get_mut(at)
    }

    /// Checks that have to be looked at now and then, whatever is probed.
    pub fn passing(&self) -> Vec<u32> {
        self.passing.iter().copied().collect()
    }

    /// Notes whether a check has to be looked at now and then.
    pub fn note_passing(&mut self, at: u32) {
        if self.groups.get(at).is_some_and(Group::passes) {
            self.passing.insert(at);
        } else {
            self.passing.remove(&at);
        }
    }

    pub fn add_group(&mut self, group: Group) -> u32 {
        let key = group.check.key.clone();
        let at = self.groups.insert(group);
        self.by_key.insert(key, at);
        at
    }

    pub fn remove_group(&mut self, at: u32) -> Option<Group> {
        let group = self.groups.remove(at)?;
        self.by_key.remove(&group.check.key);
        Some(group)
    }

    /// From now on `dependent` has `key` as a member, or has no longer.
    pub fn set_dependent(&mut self, key: &ObjectKey, dependent: u32, depends: bool) {
        if depends {
            self.dependents.entry(key.clone()).or_default().insert(dependent);
        } else if let Some(set) = self.dependents.get_mut(key) {
            set.remove(&dependent);
            if set.is_empty() {
                self.dependents.remove(key);
            }
        }
    }

    pub fn dependents_of(&self, key: &ObjectKey) -> Option<&HashSet<u32>> {
        self.dependents.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_what_has_gone_are_given_again_and_lead_to_nothing_meanwhile() {
        let mut slots = Slots::default();
        let count = 2 * CHUNK + 1;
        let ids: Vec<u32> = (0..count).map(|value| slots.insert(value)).collect();
        assert!(ids.iter().enumerate().all(|(value, id)| slots.get(*id) == Some(&value)));
        let middle = ids[CHUNK];
        assert_eq!((slots.remove(middle), slots.remove(middle), slots.get(middle)), (Some(CHUNK), None, None));
        assert_eq!((slots.len(), slots.iter_mut().count()), (count - 1, count - 1));
        assert_eq!(slots.insert(7), middle);
        assert_eq!((slots.get_mut(middle).copied(), slots.len()), (Some(7), count));
        assert_eq!(slots.get(count as u32), None);
    }
}

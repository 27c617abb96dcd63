//! The engine's tables: records of endpoints and checks by number, and who depends on whom.

use std::collections::{HashMap, HashSet};

use super::{group::Group, record::Record, scheduler::GRACE};
use crate::check::ObjectKey;

/// Numbers are reused; whoever keeps one forgets it when the entry goes.
#[derive(Debug)]
struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: vec![], free: vec![] }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.entries[id as usize] = Some(value);
            return id;
        }
        self.entries.push(Some(value));
        (self.entries.len() - 1) as u32
    }

    fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.entries.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(value)
    }

    fn get(&self, id: u32) -> Option<&T> {
        self.entries.get(id as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.entries.get_mut(id as usize)?.as_mut()
    }

    fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    records: Slots<Record>,
    groups: Slots<Group>,
    by_key: HashMap<ObjectKey, u32>,
    /// Which checks have the one named as a member, whether it exists or not.
    dependents: HashMap<ObjectKey, HashSet<u32>>,
}

impl Table {
    pub fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id)
    }

    pub fn record_mut(&mut self, id: u32) -> Option<&mut Record> {
        self.records.get_mut(id)
    }

    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.entries.iter_mut().flatten()
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

    pub fn find(&self, key: &ObjectKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub fn group(&self, at: u32) -> Option<&Group> {
        self.groups.get(at)
    }

    pub fn group_mut(&mut self, at: u32) -> Option<&mut Group> {
        self.groups.get_mut(at)
    }

    /// The number of every check.
    pub fn group_numbers(&self) -> Vec<u32> {
        self.by_key.values().copied().collect()
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

    /// Drops what left so long ago that it may not come back to its state.
    pub fn forget_departed(&mut self, now: u64) {
        for group in self.groups.entries.iter_mut().flatten().filter(|group| !group.departed.is_empty()) {
            group.departed.retain(|departed| now.saturating_sub(departed.at) < GRACE);
        }
    }
}

//! From objects to what the engine is to run and what is to be said of them. Plain and synchronous: events in, actions
//! out.
//!
//! A check is handed to the engine only when everything it refers to has been listed, its members before itself: a
//! restart then looks to the engine like no change at all.

mod decide;
mod entry;
mod stand_in;
#[cfg(test)]
mod tests;

pub use entry::{CheckFacts, Version};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use self::{
    entry::{Entry, members_of},
    stand_in::{says_the_same, undecided},
};
use super::{
    checks::{Listing, Selection},
    index::{
        Index, Problem, ProblemKind, SourceChange,
        facts::{PodFacts, SliceFacts},
        services_of,
    },
    referred::Referred,
    watch::Told,
    writer::Note,
};
use crate::{
    api::status::GateStatus,
    check::{Check, ObjectKey, Text},
    compile,
    engine::{Board, CheckView, Desired},
};

/// What follows.
#[derive(Debug)]
pub enum Action {
    Upsert(Box<Desired>),
    Remove(ObjectKey),
    Note(Box<Note>),
    /// These are to be looked up, and the answer handed to [`Reconciler::references`].
    LookUp(ObjectKey, Version, Vec<Referred>),
}

/// See the module's own words.
#[derive(Debug)]
pub struct Reconciler {
    pub index: Index,
    /// In boxes: names are listed in order, and a tree that is filled in order is half empty.
    entries: BTreeMap<ObjectKey, Box<Entry>>,
    /// Which checks have a check as a member.
    by_member: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// Circles and too deep nesting.
    graph: BTreeMap<ObjectKey, Vec<Problem>>,
    graph_dirty: BTreeSet<Text>,
    dirty: BTreeSet<ObjectKey>,
    /// Services whose slices' annotations are to be looked at.
    services: BTreeSet<ObjectKey>,
    listing: Listing,
    scripts_allowed: bool,
    refresh: Duration,
    actions: Vec<Action>,
}

impl Reconciler {
    #[must_use]
    pub fn new(selection: &Selection, scripts_allowed: bool, refresh: Duration) -> Self {
        Self {
            index: Index::default(),
            entries: BTreeMap::new(),
            by_member: HashMap::new(),
            graph: BTreeMap::new(),
            graph_dirty: BTreeSet::new(),
            dirty: BTreeSet::new(),
            services: BTreeSet::new(),
            listing: Listing::new(selection),
            scripts_allowed,
            refresh,
            actions: Vec::new(),
        }
    }

    /// Whether all HealthChecks have been listed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.listing.is_complete()
    }

    /// Whether every check that is known runs.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.entries.values().all(|entry| entry.sent)
    }

    /// The checks that the engine has not been given yet, for what they refer to has not been listed: Unknown, where
    /// `board` does not say so already.
    #[must_use]
    pub fn undecided(&self, board: &Board, now: Timestamp) -> Vec<CheckView> {
        let unsent = self.entries.iter().filter(|(_, entry)| !entry.sent);
        unsent
            .filter_map(|(key, entry)| {
                let former = board.get(key).filter(|view| view.uid == entry.uid);
                let view = undecided(key, entry, self.index.get(key).map(|check| &**check), former.as_deref(), now);
                former.is_none_or(|former| !says_the_same(&former, &view)).then_some(view)
            })
            .collect()
    }

    /// Whether the engine has not been given the check under `key` yet.
    #[must_use]
    pub fn is_undecided(&self, key: &ObjectKey) -> bool {
        self.entries.get(key).is_some_and(|entry| !entry.sent)
    }

    #[must_use]
    pub fn knows(&self, key: &ObjectKey) -> bool {
        self.entries.contains_key(key)
    }

    /// The UID of the object under `key`.
    #[must_use]
    pub fn uid(&self, key: &ObjectKey) -> Option<&Text> {
        self.entries.get(key).map(|entry| &entry.uid)
    }

    /// When the object under `key` was made.
    #[must_use]
    pub fn created(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.entries.get(key).and_then(|entry| entry.created)
    }

    /// What the gates of `key` did, by its status, when it was first seen.
    #[must_use]
    pub fn found_gates(&self, key: &ObjectKey) -> &[GateStatus] {
        self.entries.get(key).map_or(&[], |entry| &entry.found_gates)
    }

    /// Whether the engine was given `key`.
    #[must_use]
    pub fn runs(&self, key: &ObjectKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.sent)
    }

    /// Every check that has gates.
    pub fn gated(&self) -> impl Iterator<Item = ObjectKey> {
        let gated = |key: &&ObjectKey| self.index.get(key).is_some_and(|check| !check.gates.is_empty());
        self.entries.keys().filter(gated).cloned()
    }

    /// Takes in what a gate of ours wrote to a slice: see [`Index::wrote`].
    pub fn wrote(&mut self, key: &ObjectKey, base: Option<&str>, now_there: Option<SliceFacts>) {
        self.dirty.extend(self.index.wrote(key, base, now_there));
    }

    /// Takes in what a gate of ours wrote to a pod: see [`Index::wrote_pod`].
    pub fn wrote_pod(&mut self, base: &str, now_there: PodFacts) {
        self.dirty.extend(self.index.wrote_pod(base, now_there));
    }

    /// The check under `key`, unless something is wrong with its spec.
    #[must_use]
    pub fn accepted(&self, key: &ObjectKey) -> Option<&Arc<Check>> {
        self.index.get(key).filter(|_| !self.graph.contains_key(key))
    }

    /// Services whose slices may need other annotations since this was last asked.
    pub fn take_services(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.services)
    }

    /// The Services of `key` are to be looked at: its verdict changed.
    pub fn verdict_changed(&mut self, key: &ObjectKey) {
        if let Some(check) = self.index.get(key) {
            self.services.extend(services_of(check));
        }
    }

    /// The slices of all Services that are referred to are to be looked at again.
    pub fn look_at_slices(&mut self) {
        self.services.extend(self.index.sources.slices.keys().cloned());
    }

    /// Takes in what a watch of HealthChecks told.
    pub fn check(&mut self, watch: usize, told: Told<CheckFacts>) {
        match told {
            Told::Begin => self.listing.begin(watch),
            Told::Is(facts) => {
                self.listing.has(watch, &facts.key);
                self.put(facts);
            }
            Told::Gone(facts) => self.remove(&facts.key),
            Told::Complete => {
                for key in self.listing.complete(watch, self.entries.keys()) {
                    self.remove(&key);
                }
            }
            Told::Failed(_) => {}
        }
    }

    fn put(&mut self, facts: CheckFacts) {
        let CheckFacts { key, uid, generation, labels, created, overrides, compiled, server, prior, references } =
            facts;
        // Most have none, and an empty one of their own each would take room.
        let found_gates = if server.gates.is_empty() { Arc::default() } else { server.gates.as_slice().into() };
        self.actions.push(Action::Note(Box::new(Note::Seen(key.clone(), server))));
        let known = self.entries.get(&key);
        if known.is_some_and(|known| known.uid != uid) {
            // Another object of the same name: the former one is gone, though nobody said so.
            self.remove_entry(&key);
        } else if known.is_some_and(|known| {
            known.generation == generation && known.labels == labels && known.overrides == overrides
        }) {
            return;
        }
        if let Some(former) = self.index.get(&key) {
            self.services.extend(services_of(former));
        }
        self.unlink(&key);
        let (check, broken) = match compiled {
            Ok(check) => (Some(check), vec![]),
            Err(problems) => {
                let problem = |each: compile::Problem| Problem {
                    kind: ProblemKind::InvalidSpec,
                    path: each.field_path,
                    message: each.message,
                };
                (None, problems.into_iter().map(problem).collect())
            }
        };
        let sent = self.entries.get(&key).is_some_and(|entry| entry.sent);
        let prior = if sent { None } else { prior };
        // What is told later is what we have written ourselves.
        let found_gates = self.entries.get(&key).map_or(found_gates, |entry| entry.found_gates.clone());
        let entry = Entry {
            uid,
            generation,
            labels,
            created,
            overrides,
            found_gates,
            broken,
            prior,
            sent,
            references,
            reference_problems: None,
        };
        self.entries.insert(key.clone(), Box::new(entry));
        if let Some(check) = check {
            for member in members_of(&check) {
                self.by_member.entry(member).or_default().insert(key.clone());
            }
            self.services.extend(services_of(&check));
            self.index.insert(check);
        } else {
            self.index.remove(&key);
        }
        self.touch(&key);
    }

    /// `key` changed, and so may everything that has it as a member.
    fn touch(&mut self, key: &ObjectKey) {
        self.dirty.insert(key.clone());
        self.dirty.extend(self.by_member.get(key).into_iter().flatten().cloned());
        self.graph_dirty.insert(key.namespace.clone());
    }

    /// Takes `key` out of the members' map.
    fn unlink(&mut self, key: &ObjectKey) {
        let Some(check) = self.index.get(key).cloned() else { return };
        for member in members_of(&check) {
            if let Some(owners) = self.by_member.get_mut(&member) {
                owners.remove(key);
                if owners.is_empty() {
                    self.by_member.remove(&member);
                }
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if self.entries.contains_key(key) {
            self.remove_entry(key);
            self.touch(key);
            self.dirty.remove(key);
            self.actions.push(Action::Note(Box::new(Note::Gone(key.clone()))));
        }
    }

    fn remove_entry(&mut self, key: &ObjectKey) {
        self.unlink(key);
        self.graph.remove(key);
        if let Some(check) = self.index.remove(key) {
            self.services.extend(services_of(&check));
        }
        if self.entries.remove(key).is_some_and(|entry| entry.sent) {
            self.actions.push(Action::Remove(key.clone()));
        }
    }

    /// Takes in what a watch of Services, slices or pods told.
    pub fn source(&mut self, change: SourceChange) {
        if let SourceChange::Slice(_, Told::Is(slice)) = &change
            && !slice.service.is_empty()
        {
            self.services.insert(ObjectKey::of(slice.key.namespace.clone(), slice.service.clone()));
        }
        let touched = self.index.apply(change);
        self.dirty.extend(touched);
    }

    /// Takes in what came of looking up the references of `key` as it was at `version`.
    pub fn references(&mut self, key: &ObjectKey, version: &Version, problems: Vec<Problem>) {
        if let Some(entry) = self.entries.get_mut(key)
            && (&entry.uid, entry.generation) == (&version.0, version.1)
            && entry.reference_problems.as_ref() != Some(&problems)
        {
            entry.reference_problems = Some(problems);
            self.dirty.insert(key.clone());
        }
    }

    /// Everything that has references, for looking them up again.
    pub fn referring(&self) -> Vec<(ObjectKey, Version, Vec<Referred>)> {
        self.entries
            .iter()
            .filter(|(key, entry)| !entry.references.is_empty() && self.index.get(key).is_some())
            .map(|(key, entry)| (key.clone(), entry.version(), entry.references.clone()))
            .collect()
    }
}

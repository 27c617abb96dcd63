//! Which EndpointSlices are to bear which annotations: what is wanted against what is there.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    annotate::{is_ours, says_the_same, value},
    index::{facts::SliceFacts, services_of},
    patch::SlicePatch,
    reconcile::Reconciler,
    writer::Note,
};
use crate::{check::ObjectKey, engine::Board};

/// Putting the same annotation back more often than this means that somebody else insists: we then wait.
const PATIENCE: u32 = 20;
const PATIENCE_WINDOW: Duration = Duration::from_secs(60);

/// An annotation of a check that nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Orphan {
    pub slice: ObjectKey,
    pub check: String,
}

#[derive(Debug)]
struct Sent {
    patch: SlicePatch,
    window: Instant,
    count: u32,
    /// The slice has come to bear what it should.
    settled: bool,
}

/// Remembers what is on its way, so that nothing is sent twice.
#[derive(Debug, Default)]
pub struct AnnotationPlan {
    sent: HashMap<ObjectKey, Sent>,
    /// Orphans that were asked about: whether the check is really gone.
    judged: HashMap<Orphan, bool>,
}

/// What is to be done about one Service's slices.
#[derive(Debug, Default)]
pub struct Plan {
    pub notes: Vec<Note>,
    /// To be asked about, and handed to [`AnnotationPlan::judge`].
    pub orphans: Vec<Orphan>,
    /// Slices that are left alone until the window is over.
    pub later: bool,
}

impl AnnotationPlan {
    /// What the slices of `service` need.
    pub fn plan(&mut self, service: &ObjectKey, reconciler: &Reconciler, board: &Board) -> Plan {
        let mut plan = Plan::default();
        for slice in reconciler.index.sources.slices.get(service).into_iter().flat_map(BTreeMap::values) {
            self.slice(service, slice, reconciler, board, &mut plan);
        }
        plan
    }

    fn slice(
        &mut self,
        service: &ObjectKey,
        slice: &SliceFacts,
        reconciler: &Reconciler,
        board: &Board,
        plan: &mut Plan,
    ) {
        let mut changes = BTreeMap::new();
        for (name, current) in &slice.annotations {
            let check = ObjectKey::new(&slice.key.namespace, name);
            if !is_ours(current) || wants(reconciler, &check, service) {
                continue;
            }
            let orphan = Orphan { slice: slice.key.clone(), check: name.clone() };
            match (reconciler.knows(&check), self.judged.get(&orphan)) {
                (true, _) | (false, Some(true)) => {
                    changes.insert(name.clone(), None);
                }
                // It may be a check that this replica was told not to look at.
                (false, None) => plan.orphans.push(orphan),
                (false, Some(false)) => {}
            }
        }
        for check in reconciler.index.checks_of_service(service) {
            if !wants(reconciler, check, service) {
                continue;
            }
            let Some(wanted) = board.get(check).and_then(|view| value(&view)) else { continue };
            let name = check.name.to_string();
            match slice.annotations.get(&name) {
                Some(current) if says_the_same(current, &wanted) => {}
                _ => {
                    changes.insert(name, Some(wanted));
                }
            }
        }
        if changes.is_empty() {
            if let Some(sent) = self.sent.get_mut(&slice.key)
                && !sent.settled
                && sent.patch.resource_version != slice.resource_version
            {
                // Said once; who insists on something else is still counted.
                sent.settled = true;
                plan.notes.push(Note::Slice(slice.key.clone(), None));
            }
            return;
        }
        let patch = SlicePatch { resource_version: slice.resource_version.clone(), annotations: changes };
        match self.may_send(&slice.key, &patch) {
            Some(true) => plan.notes.push(Note::Slice(slice.key.clone(), Some(patch))),
            Some(false) => {}
            None => plan.later = true,
        }
    }

    /// Whether `patch` is new; `None`: it is, but we have been putting the same back all the time.
    fn may_send(&mut self, slice: &ObjectKey, patch: &SlicePatch) -> Option<bool> {
        let now = Instant::now();
        let sent = self.sent.entry(slice.clone()).or_insert_with(|| Sent {
            patch: SlicePatch { resource_version: String::new(), annotations: BTreeMap::new() },
            window: now,
            count: 0,
            settled: false,
        });
        if sent.patch == *patch {
            return Some(false);
        }
        if now.duration_since(sent.window) > PATIENCE_WINDOW {
            sent.window = now;
            sent.count = 0;
        }
        if sent.patch.annotations == patch.annotations {
            sent.count += 1;
            if sent.count > PATIENCE {
                return None;
            }
        }
        sent.patch = patch.clone();
        sent.settled = false;
        Some(true)
    }

    /// The patch of `slice` came to nothing: the same may be sent again.
    pub fn failed(&mut self, slice: &ObjectKey) {
        self.sent.remove(slice);
    }

    /// Annotations on `slice`, which nobody watches, that no check wants. `true`: for certain; otherwise the check has to
    /// be looked for.
    #[must_use]
    pub fn strays(&self, slice: &SliceFacts, reconciler: &Reconciler) -> Vec<(String, bool)> {
        let service = ObjectKey::of(slice.key.namespace.clone(), slice.service.clone());
        slice
            .annotations
            .iter()
            .filter(|(_, value)| is_ours(value))
            .map(|(name, _)| (name, ObjectKey::new(&slice.key.namespace, name)))
            .filter(|(_, check)| !wants(reconciler, check, &service))
            .map(|(name, check)| (name.clone(), reconciler.knows(&check)))
            .collect()
    }

    /// Takes in whether the check of an orphan is gone.
    pub fn judge(&mut self, orphan: Orphan, gone: bool) {
        self.judged.insert(orphan, gone);
    }

    /// Forgets what can no longer matter. To be called now and then.
    pub fn sweep(&mut self, reconciler: &Reconciler) {
        let known = |key: &ObjectKey| reconciler.index.sources.slice(key).is_some();
        self.sent.retain(|key, _| known(key));
        self.judged.clear();
    }
}

/// Whether `check` is to be annotated on the slices of `service`.
fn wants(reconciler: &Reconciler, check: &ObjectKey, service: &ObjectKey) -> bool {
    reconciler.accepted(check).is_some_and(|check| check.annotations && services_of(check).contains(service))
}

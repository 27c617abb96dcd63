//! What no gate wants any more goes: the slices of a HealthCheck that is gone, of a gate that was edited, and of one
//! that has lost its Service.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Client, api::ListParams};
use tokio::time::Instant;

use super::{
    Gates, Scene, Turn,
    slice::{MANAGED_BY, MANAGER, Owner},
    slices,
    standing::{Fate, fate},
    write::{GateKey, GateWrite},
};
use crate::{
    check::{ObjectKey, Text},
    cluster::{checks::Selection, client::list_all, index::facts::SliceFacts},
};

/// Owners that nobody here knows, and what was found of them: `None` while somebody is asking.
#[derive(Debug, Default)]
pub struct Owners(HashMap<(Text, Owner), Option<bool>>);

impl Owners {
    /// Answers may have become wrong: whoever matters is asked about again.
    pub fn forget(&mut self) {
        self.0.retain(|_, answer| answer.is_none());
    }
}

impl Gates {
    /// Takes away what no gate wants of the slices of `service`.
    pub(super) fn release(&mut self, service: &ObjectKey, scene: Scene<'_>, now: Instant, turn: &mut Turn) {
        if !self.features.endpoint_slices {
            return;
        }
        let slices = scene.reconciler.index.sources.slices.get(service);
        let writes = slices
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter_map(|facts| self.judge_slice(service, facts, scene, turn))
            .collect();
        let former = self.releasing.remove(service).unwrap_or_default();
        let outstanding = self.write_all(writes, former, now, turn);
        if !outstanding.is_empty() {
            self.releasing.insert(service.clone(), outstanding);
        }
    }

    fn judge_slice(
        &mut self,
        service: &ObjectKey,
        facts: &SliceFacts,
        scene: Scene<'_>,
        turn: &mut Turn,
    ) -> Option<(GateKey, GateWrite)> {
        let owned = facts.owned.as_deref()?;
        let goes = match fate(service, owned, scene.reconciler) {
            Fate::Goes => true,
            Fate::Stays => false,
            Fate::Waits => {
                self.waiting.insert(service.clone());
                false
            }
            Fate::Unclear => owned.owner.as_ref().is_some_and(|owner| self.is_gone(&service.namespace, owner, turn)),
        };
        let write = slices::delete(owned, &facts.resource_version);
        goes.then(|| (GateKey::Slice(facts.key.clone()), GateWrite::Slice(write)))
    }

    /// Whether `owner` is known to be gone. Who has not been asked about is.
    pub(super) fn is_gone(&mut self, namespace: &Text, owner: &Owner, turn: &mut Turn) -> bool {
        let key = (namespace.clone(), owner.clone());
        match self.owners.0.get(&key) {
            Some(answer) => *answer == Some(true),
            None => {
                self.owners.0.insert(key.clone(), None);
                turn.owners.push(key);
                false
            }
        }
    }

    /// Takes in whether an owner is gone; `None`: nobody could be asked.
    pub fn judge(&mut self, namespace: &Text, owner: Owner, gone: Option<bool>, scene: Scene<'_>) {
        let key = (namespace.clone(), owner);
        match gone {
            Some(gone) => self.owners.0.insert(key, Some(gone)),
            None => self.owners.0.remove(&key),
        };
        if gone == Some(true) {
            self.strays_again = true;
            self.namespaces.insert(namespace.clone());
            self.services.extend(
                scene.reconciler.index.sources.slices.keys().filter(|key| key.namespace == *namespace).cloned(),
            );
        }
    }

    /// Takes in what was found of our slices everywhere: those in namespaces that nobody watches are judged too.
    pub fn found(&mut self, slices: Vec<SliceFacts>) {
        self.strays = slices;
        self.strays_again = true;
    }

    /// Judges those that nobody watches: when they were found, and when more is known of their owners.
    pub(super) fn judge_strays(&mut self, scene: Scene<'_>, now: Instant, turn: &mut Turn) {
        if !std::mem::take(&mut self.strays_again) {
            return;
        }
        let mut all = vec![];
        for facts in std::mem::take(&mut self.strays) {
            if scene.reconciler.index.sources.slice(&facts.key).is_none() {
                let service = ObjectKey::of(facts.key.namespace.clone(), facts.service.clone());
                let writes: Vec<_> = self.judge_slice(&service, &facts, scene, turn).into_iter().collect();
                if writes.is_empty() {
                    self.strays.push(facts);
                }
                all.extend(writes);
            }
        }
        let former = std::mem::take(&mut self.stray_writes);
        self.stray_writes = self.write_all(all, former, now, turn);
    }

    /// What is said of the slice `key` may be wrong now.
    pub(super) fn touch_slice(&mut self, key: &ObjectKey, scene: Scene<'_>) {
        let index = &scene.reconciler.index;
        match index.sources.slice(key) {
            Some(facts) => {
                let service = ObjectKey::of(key.namespace.clone(), facts.service.clone());
                self.dirty.extend(index.checks_of_gated(&service).cloned());
                self.services.insert(service);
            }
            // A creation that failed, or a slice that is gone: its gate is one of this namespace.
            None => self.dirty.extend(self.known.keys().filter(|known| known.namespace == key.namespace).cloned()),
        }
    }
}

/// Every slice of ours in the namespaces of `selection`; nothing where they cannot be listed.
pub async fn find(client: &Client, selection: &Selection) -> Vec<SliceFacts> {
    let mut found = vec![];
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let keep = |slice: EndpointSlice| found.push(SliceFacts::of(&slice));
    if let Err(error) = list_all(&selection.apis(client), &ours, keep).await {
        tracing::debug!(%error, "slices without a gate not searched for; later again");
    }
    found
}

//! The leader's part in gates: tells them what changed, and does what follows.

use jiff::Timestamp;
use kube::Api;
use tokio::time::Instant;

use super::{Input, Leader};
use crate::{
    api::HealthCheck,
    check::{ObjectKey, Text},
    cluster::{
        client::{CallError, call},
        gates::{
            self, GateEnded, Gates, Scene, Turn,
            slice::Owner,
            write::{GateWrite, SliceWrite, Written},
        },
        index::facts::{PodFacts, SliceFacts},
        reconcile::Reconciler,
    },
    engine::Board,
};

/// What is learnt for gates outside of watches.
pub(super) enum Learnt {
    /// Whether an owner of slices is gone; `None`: nobody could be asked.
    Owner(Text, Owner, Option<bool>),
    /// Every slice of ours, wherever.
    Slices(Vec<SliceFacts>),
    /// Every pod with a condition of ours, wherever.
    Pods(Vec<PodFacts>),
}

fn scene<'a>(reconciler: &'a Reconciler, board: &'a Board) -> Scene<'a> {
    Scene { reconciler, board, wall: Timestamp::now() }
}

impl Leader {
    /// The parts that gates need at once: what is decided, and what it is decided from.
    fn split(&mut self) -> (&mut Gates, Scene<'_>) {
        (&mut self.gates, scene(&self.reconciler, &self.parts.board))
    }

    pub(super) fn verdicts_changed(&mut self, keys: &[ObjectKey]) {
        let (gates, scene) = self.split();
        for key in keys {
            gates.verdict_changed(key, scene);
        }
    }

    pub(super) async fn gate(&mut self) {
        let touched = self.reconciler.index.take_gated();
        self.gates.changed(touched);
        if !self.synced {
            return;
        }
        self.gates.set_released(self.parts.held.is_released());
        let (gates, scene) = self.split();
        let turn = gates.turn(scene);
        self.follow(turn).await;
    }

    async fn follow(&mut self, turn: Turn) {
        for note in turn.notes {
            self.note(note).await;
        }
        for (namespace, owner) in turn.owners {
            self.ask_for(namespace, owner);
        }
    }

    /// Asks whether the HealthCheck that owns a slice is really gone: it may be one that this replica was told not to
    /// look at.
    fn ask_for(&mut self, namespace: Text, owner: Owner) {
        let (client, inputs) = (self.parts.client.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let api: Api<HealthCheck> = Api::namespaced(client, &namespace);
            let gone = match call(api.get_metadata(&owner.name)).await {
                Err(CallError::NotFound(_)) => Some(true),
                // A condition says only the name.
                Ok(found) => Some(!owner.uid.is_empty() && found.metadata.uid.as_deref() != Some(&*owner.uid)),
                Err(error) => {
                    tracing::debug!(%namespace, owner = %owner.name, %error, "cannot tell whether the owner of what a gate has written is gone; asking again");
                    None
                }
            };
            let _ = inputs.send(Input::Gate(Learnt::Owner(namespace, owner, gone))).await;
        });
    }

    pub(super) fn learnt(&mut self, learnt: Learnt) {
        let (gates, scene) = self.split();
        match learnt {
            Learnt::Owner(namespace, owner, gone) => gates.judge(&namespace, owner, gone, scene),
            Learnt::Slices(slices) => gates.found(slices),
            Learnt::Pods(pods) => gates.found_pods(pods, Instant::now()),
        }
    }

    /// Takes in what became of a write.
    pub(super) fn gate_ended(&mut self, ended: &GateEnded) {
        match (&ended.write, &ended.result) {
            (GateWrite::Slice(write), Ok(Written::Slice(now_there))) => {
                let base = match write {
                    SliceWrite::Create(_) => None,
                    SliceWrite::Change { resource_version, .. } | SliceWrite::Delete { resource_version, .. } => {
                        Some(resource_version.as_str())
                    }
                };
                self.reconciler.wrote(ended.key.object(), base, now_there.as_deref().cloned());
            }
            (GateWrite::Pod(write), Ok(Written::Pod(now_there))) => {
                self.reconciler.wrote_pod(&write.resource_version, (**now_there).clone());
            }
            _ => {}
        }
        let (gates, scene) = self.split();
        gates.ended(ended, scene);
    }

    /// Looks for slices without a gate, in namespaces too that nobody watches.
    pub(super) fn sweep_gates(&mut self) {
        if !self.synced || !self.gates.begin_sweep() {
            return;
        }
        let (client, selection, inputs) =
            (self.parts.client.clone(), self.parts.selection.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let found = gates::find(&client, &selection).await;
            let _ = inputs.send(Input::Gate(Learnt::Slices(found))).await;
        });
    }

    /// Looks for conditions without a gate on pods of namespaces that nobody watches. What loses its gate while this
    /// replica leads is seen by the watches: this finds what was missed.
    pub(super) fn sweep_pods(&mut self) {
        let (gates, scene) = self.split();
        if !gates.begin_pod_search(scene) {
            return;
        }
        let (client, selection, inputs) =
            (self.parts.client.clone(), self.parts.selection.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let found = gates::find_pods(&client, &selection).await;
            let _ = inputs.send(Input::Gate(Learnt::Pods(found))).await;
        });
    }
}

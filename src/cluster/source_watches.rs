//! The watches of Services, EndpointSlices and pods: begun when a check first refers to a kind in a namespace, ended a
//! while after the last one stopped.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    time::Duration,
};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use super::{
    index::{
        Scope, SourceChange, SourceKind,
        facts::{PodFacts, ServiceFacts, SliceFacts},
    },
    watch::{Told, watch},
};
use crate::telemetry::Metrics;

/// How long a watch is kept that nobody refers to: annotations are still being taken away, or an edit is undone.
const LINGER: Duration = Duration::from_secs(60);

struct Running {
    task: AbortHandle,
    /// Since when nobody refers to it.
    idle: Option<Instant>,
}

/// See the module's own words.
pub struct SourceWatches<I> {
    client: Client,
    metrics: Metrics,
    sender: mpsc::Sender<I>,
    wrap: fn(SourceChange) -> I,
    running: HashMap<Scope, Running>,
}

impl<I: Send + 'static> SourceWatches<I> {
    #[must_use]
    pub fn new(client: Client, metrics: Metrics, sender: mpsc::Sender<I>, wrap: fn(SourceChange) -> I) -> Self {
        Self { client, metrics, sender, wrap, running: HashMap::new() }
    }

    /// Watches what is in `wanted`, and nothing else for long. The scopes whose watch has ended.
    pub fn set(&mut self, wanted: &BTreeSet<Scope>) -> Vec<Scope> {
        let now = Instant::now();
        for scope in wanted {
            if let Some(running) = self.running.get_mut(scope) {
                running.idle = None;
            } else {
                tracing::debug!(kind = scope.kind.resource(), namespace = %scope.namespace, "watching");
                self.running.insert(scope.clone(), Running { task: self.begin(scope), idle: None });
            }
        }
        let mut ended = vec![];
        self.running.retain(|scope, running| {
            if wanted.contains(scope) {
                return true;
            }
            let keep = now.duration_since(*running.idle.get_or_insert(now)) < LINGER;
            if !keep {
                running.task.abort();
                ended.push(scope.clone());
            }
            keep
        });
        ended
    }

    fn begin(&self, scope: &Scope) -> AbortHandle {
        match scope.kind {
            SourceKind::Services => self.begin_as(scope, ServiceFacts::of, SourceChange::Service),
            SourceKind::Slices => self.begin_as(scope, SliceFacts::of, SourceChange::Slice),
            SourceKind::Pods => self.begin_as(scope, PodFacts::of, SourceChange::Pod),
        }
    }

    /// Watches the objects of `scope` as what they are: `K`, of which `facts` are kept, and told as `change`.
    fn begin_as<K, T: Send + 'static>(
        &self,
        scope: &Scope,
        facts: fn(&K) -> T,
        change: fn(Scope, Told<T>) -> SourceChange,
    ) -> AbortHandle
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &scope.namespace);
        let (kind, scope, wrap) = (scope.kind.resource(), scope.clone(), self.wrap);
        let keep = move |object: K| Some(facts(&object));
        let tell = move |told| wrap(change(scope.clone(), told));
        tokio::spawn(watch(kind, api, None, self.metrics.clone(), keep, tell, self.sender.clone())).abort_handle()
    }
}

impl<I> Drop for SourceWatches<I> {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

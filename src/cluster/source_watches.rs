//! The watches of Services, EndpointSlices and pods: begun when a check first refers to a kind in a namespace, ended a
//! while after the last one stopped.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client};
use tokio::{sync::mpsc, task::AbortHandle, time::Instant};

use super::{
    index::{
        Scope, SourceChange, SourceKind,
        facts::{PodFacts, ServiceFacts, SliceFacts},
    },
    watch::watch,
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
        let (kind, namespace) = (scope.kind.resource(), &*scope.namespace);
        let (client, metrics, sender, wrap) =
            (self.client.clone(), self.metrics.clone(), self.sender.clone(), self.wrap);
        let scope = scope.clone();
        let task = match scope.kind {
            SourceKind::Services => {
                let api: Api<Service> = Api::namespaced(client, namespace);
                let keep = |service: Service| Some(ServiceFacts::of(&service));
                tokio::spawn(watch(
                    kind,
                    api,
                    None,
                    metrics,
                    keep,
                    move |told| wrap(SourceChange::Service(scope.clone(), told)),
                    sender,
                ))
            }
            SourceKind::Slices => {
                let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
                let keep = |slice: EndpointSlice| Some(SliceFacts::of(&slice));
                tokio::spawn(watch(
                    kind,
                    api,
                    None,
                    metrics,
                    keep,
                    move |told| wrap(SourceChange::Slice(scope.clone(), told)),
                    sender,
                ))
            }
            SourceKind::Pods => {
                let api: Api<Pod> = Api::namespaced(client, namespace);
                let keep = |pod: Pod| Some(PodFacts::of(&pod));
                tokio::spawn(watch(
                    kind,
                    api,
                    None,
                    metrics,
                    keep,
                    move |told| wrap(SourceChange::Pod(scope.clone(), told)),
                    sender,
                ))
            }
        };
        task.abort_handle()
    }
}

impl<I> Drop for SourceWatches<I> {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

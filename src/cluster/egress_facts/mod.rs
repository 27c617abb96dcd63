//! What only the cluster knows of the addresses that are never probed: the API server's, the nodes', our own pods'.

mod addresses;
#[cfg(test)]
mod tests;

pub use addresses::without_asking;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use self::addresses::{api_servers, node_addresses, pod_addresses, release_labels};
use super::{
    client::CallError,
    watch::{Told, watch},
};
use crate::{
    probe::{DeniedDynamic, EgressGuard},
    server::Readiness,
    telemetry::Metrics,
};

/// How often the API server's own endpoints are read.
const API_SERVERS: Duration = Duration::from_secs(60);
/// How soon what could not be read is asked for again.
const RETRY: Duration = Duration::from_secs(3);
/// How long probing waits for the first answers: an operator that never begins protects nobody.
const PATIENCE: Duration = Duration::from_secs(10);

enum Fact {
    Node(Told<(String, Vec<IpAddr>)>),
    Pod(Told<(String, Vec<IpAddr>)>),
    Servers(Result<HashSet<SocketAddr>, CallError>),
    /// The labels of our release.
    Own(Result<Option<String>, CallError>),
}

/// Where our own pods are.
#[derive(Clone, Debug)]
pub struct OwnPods {
    pub namespace: String,
    pub pod: String,
}

/// The addresses of one kind of object, by name.
#[derive(Debug, Default)]
struct Addresses {
    by_name: HashMap<String, Vec<IpAddr>>,
    listed: Option<HashSet<String>>,
}

impl Addresses {
    fn take(&mut self, told: Told<(String, Vec<IpAddr>)>) {
        match told {
            Told::Begin => self.listed = Some(HashSet::new()),
            Told::Is((name, addresses)) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(name.clone());
                }
                self.by_name.insert(name, addresses);
            }
            Told::Gone((name, _)) => {
                self.by_name.remove(&name);
            }
            Told::Complete => {
                if let Some(listed) = self.listed.take() {
                    self.by_name.retain(|name, _| listed.contains(name));
                }
            }
            Told::Failed(_) => {}
        }
    }

    fn all(&self) -> HashSet<IpAddr> {
        self.by_name.values().flatten().copied().collect()
    }
}

/// What keeps a guard up to date.
pub struct Parts {
    pub client: Client,
    pub cluster_url: http::Uri,
    pub own: Option<OwnPods>,
    pub guard: Arc<EgressGuard>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    /// Cancelled when the guard knows all there is to know, or has waited long enough: nothing is to be probed before.
    pub known: CancellationToken,
}

/// How far the first answer to a question is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Awaited,
    Given,
    /// We may not ask, and said so.
    Refused,
}

struct Keeper {
    parts: Parts,
    sender: mpsc::Sender<Fact>,
    tasks: JoinSet<()>,
    servers: HashSet<SocketAddr>,
    nodes: Addresses,
    pods: Addresses,
    servers_answer: Answer,
    nodes_answer: Answer,
    pods_answer: Answer,
    /// When the API server's endpoints are read next; `None` while they are being read.
    servers_due: Option<Instant>,
    /// Our own pod is being read.
    reading_own: bool,
}

/// Keeps the guard of `parts` up to date until `stop`.
pub async fn keep(parts: Parts, stop: CancellationToken) {
    let (sender, mut facts) = mpsc::channel(64);
    parts.readiness.not_ready("egress", "the addresses that must not be probed are being looked up");
    let mut keeper = Keeper::new(parts, sender);
    let mut again = tokio::time::interval(RETRY);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = tokio::time::sleep(PATIENCE);
    let mut patience = std::pin::pin!(patience);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = again.tick() => keeper.ask(),
            fact = facts.recv() => match fact {
                Some(fact) => keeper.take(fact),
                None => return,
            },
            () = &mut patience, if !keeper.parts.known.is_cancelled() => keeper.give_up_waiting(),
        }
    }
}

impl Keeper {
    fn new(parts: Parts, sender: mpsc::Sender<Fact>) -> Self {
        let mut tasks = JoinSet::new();
        let nodes: Api<Node> = Api::all(parts.client.clone());
        let keep = |node| Some(node_addresses(&node));
        tasks.spawn(watch("nodes", nodes, None, parts.metrics.clone(), keep, Fact::Node, sender.clone()));
        Self {
            servers: without_asking(&parts.cluster_url),
            pods_answer: if parts.own.is_some() { Answer::Awaited } else { Answer::Given },
            parts,
            sender,
            tasks,
            nodes: Addresses::default(),
            pods: Addresses::default(),
            servers_answer: Answer::Awaited,
            nodes_answer: Answer::Awaited,
            servers_due: Some(Instant::now()),
            reading_own: false,
        }
    }

    /// Asks what is due.
    fn ask(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        if self.servers_due.is_some_and(|due| due <= Instant::now()) {
            self.servers_due = None;
            let (client, sender) = (self.parts.client.clone(), self.sender.clone());
            self.tasks.spawn(async move {
                let _ = sender.send(Fact::Servers(api_servers(&client).await)).await;
            });
        }
        if let Some(own) = self.parts.own.clone()
            && !std::mem::replace(&mut self.reading_own, true)
        {
            let (client, sender) = (self.parts.client.clone(), self.sender.clone());
            self.tasks.spawn(async move {
                let _ = sender.send(Fact::Own(release_labels(&client, &own).await)).await;
            });
        }
    }

    fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Node(told) => {
                let lost = "the kubelet ports of nodes are not protected from probes; grant list and watch on nodes";
                note(&mut self.nodes_answer, &told, lost);
                self.nodes.take(told);
            }
            Fact::Pod(told) => {
                let lost = "the operator's own pods are not protected from probes; grant list and watch on pods in its namespace";
                note(&mut self.pods_answer, &told, lost);
                self.pods.take(told);
            }
            Fact::Servers(Ok(found)) => {
                self.servers = without_asking(&self.parts.cluster_url);
                self.servers.extend(found);
                self.servers_answer = Answer::Given;
                self.servers_due = Some(Instant::now() + API_SERVERS);
            }
            Fact::Servers(Err(error)) => {
                let lost = "the API server's own addresses are not protected from probes; grant list on endpointslices in the namespace default";
                refused(&mut self.servers_answer, &error, lost);
                self.servers_due = Some(Instant::now() + RETRY);
            }
            Fact::Own(Ok(labels)) => self.watch_own(labels),
            Fact::Own(Err(error)) => {
                let lost = "the operator's own pods are not protected from probes; grant get, list and watch on pods in its namespace";
                refused(&mut self.pods_answer, &error, lost);
                self.reading_own = false;
            }
        }
        self.parts.guard.update(DeniedDynamic {
            api_servers: self.servers.clone(),
            nodes: self.nodes.all(),
            own_pods: self.pods.all(),
        });
        if self.awaited().is_empty() {
            self.become_known();
        }
    }

    fn watch_own(&mut self, labels: Option<String>) {
        let Some(place) = self.parts.own.take() else { return };
        let Some(labels) = labels else {
            // Not in a pod after all, or not one of a release.
            self.pods_answer = Answer::Given;
            return;
        };
        let api: Api<Pod> = Api::namespaced(self.parts.client.clone(), &place.namespace);
        let keep = |pod: Pod| Some(pod_addresses(&pod));
        let (metrics, sender) = (self.parts.metrics.clone(), self.sender.clone());
        self.tasks.spawn(watch("pods", api, Some(labels), metrics, keep, Fact::Pod, sender));
    }

    /// What was not answered even once.
    fn awaited(&self) -> Vec<&'static str> {
        let answers =
            [("API servers", self.servers_answer), ("nodes", self.nodes_answer), ("own pods", self.pods_answer)];
        answers.into_iter().filter(|(_, answer)| *answer == Answer::Awaited).map(|(name, _)| name).collect()
    }

    fn give_up_waiting(&self) {
        tracing::warn!(
            unknown = self.awaited().join(", "),
            "not all addresses that must not be probed are known after {PATIENCE:?}; probing without them until they are"
        );
        self.become_known();
    }

    fn become_known(&self) {
        if !self.parts.known.is_cancelled() {
            self.parts.readiness.ready("egress");
            self.parts.known.cancel();
        }
    }
}

/// Takes in how the watch of a kind fares.
fn note<T>(answer: &mut Answer, told: &Told<T>, lost: &str) {
    match told {
        Told::Complete => *answer = Answer::Given,
        Told::Failed(error) => refused(answer, error, lost),
        Told::Begin | Told::Is(_) | Told::Gone(_) => {}
    }
}

/// Says once what is `lost` by a refusal. Any other failure is waited for.
fn refused(answer: &mut Answer, error: &CallError, lost: &str) {
    match error {
        CallError::Forbidden(_) if *answer == Answer::Refused => {}
        CallError::Forbidden(_) => {
            *answer = Answer::Refused;
            tracing::warn!(%error, "{lost}");
        }
        _ => tracing::debug!(%error, "addresses that must not be probed cannot be read; trying again"),
    }
}

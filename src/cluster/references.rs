//! Secrets and ConfigMaps by name: fetched when used, kept for at most half a minute, and asked for once however many
//! wait. Nothing is listed and nothing is watched.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use tokio::{sync::OnceCell, time::Instant};

use super::{
    client::{CallError, call},
    index::{Problem, ProblemKind},
};
use crate::{
    check::{Reason, Reference, ReferenceKind},
    probe::{ReferenceResult, References},
};

/// How long a value is used before it is asked for again (`chart.md`: 30 s at most).
const KEPT: Duration = Duration::from_secs(20);
/// How long an absence is believed: somebody is probably about to mend it.
const ABSENCE_KEPT: Duration = Duration::from_secs(5);
/// When more objects than this are known, those that are too old are dropped.
const SWEEP: usize = 256;

type Data = BTreeMap<String, Bytes>;
type Object = (ReferenceKind, String, Arc<str>);
type Fetched = Result<Data, Failure>;

/// Why a reference has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Missing(String),
    Forbidden(String),
    /// Nobody could be asked; the last value, if there was one, is too old.
    Unavailable(String),
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    fetched: Arc<OnceCell<Fetched>>,
}

/// See the module's own words.
#[derive(Clone)]
pub struct ReferenceStore {
    client: Client,
    /// How to grant ourselves the reading of Secrets, for messages.
    grant: Grant,
    entries: Arc<Mutex<HashMap<Object, Entry>>>,
}

/// Names for the line that a namespace's owner has to run.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The chart's ClusterRole that may get Secrets.
    pub cluster_role: String,
    /// Who we are, as `kubectl create rolebinding` takes it: `--serviceaccount=NAMESPACE:NAME`.
    pub subject: String,
}

impl ReferenceStore {
    #[must_use]
    pub fn new(client: Client, grant: Grant) -> Self {
        Self { client, grant, entries: Arc::default() }
    }

    /// The value `reference` names in `namespace`.
    ///
    /// # Errors
    /// Why there is none; the message names the object and the mend, and holds nothing of its content.
    pub async fn value(&self, namespace: &str, reference: &Reference) -> Result<Bytes, Failure> {
        let (kind, name, key) = (reference.kind.as_str(), &reference.name, &reference.key);
        let cell = self.cell(&(reference.kind, namespace.to_owned(), name.clone()));
        // Whoever comes first asks; if that one gives up, the next in line asks anew.
        match cell.get_or_init(|| self.fetch(namespace, reference)).await {
            Ok(data) => data.get(&**key).cloned().ok_or_else(|| {
                Failure::Missing(format!("{kind} '{name}' has no key '{key}'; add it or correct the name"))
            }),
            Err(failure) => Err(failure.clone()),
        }
    }

    /// What is wrong with `references`, looked up now or a short while ago.
    pub async fn problems(&self, namespace: &str, references: &[Reference]) -> Vec<Problem> {
        let mut problems = vec![];
        for reference in references {
            let (kind, message) = match self.value(namespace, reference).await {
                // Nobody could be asked: that says nothing about the reference.
                Ok(_) | Err(Failure::Unavailable(_)) => continue,
                Err(Failure::Missing(message)) => (ProblemKind::InvalidReference, message),
                Err(Failure::Forbidden(message)) => (ProblemKind::Forbidden, message),
            };
            problems.push(Problem { kind, path: String::new(), message });
        }
        problems
    }

    fn cell(&self, object: &Object) -> Arc<OnceCell<Fetched>> {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |entry: &Entry| {
            let kept = match entry.fetched.get() {
                Some(Err(_)) => ABSENCE_KEPT,
                Some(Ok(_)) | None => KEPT,
            };
            now.duration_since(entry.since) < kept
        };
        if entries.len() > SWEEP {
            entries.retain(|_, entry| fresh(entry));
        }
        match entries.get(object) {
            Some(entry) if fresh(entry) => entry.fetched.clone(),
            _ => {
                let fetched = Arc::new(OnceCell::new());
                entries.insert(object.clone(), Entry { since: now, fetched: fetched.clone() });
                fetched
            }
        }
    }

    async fn fetch(&self, namespace: &str, reference: &Reference) -> Fetched {
        let name = &*reference.name;
        let fetched = match reference.kind {
            ReferenceKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                call(api.get(name)).await.map(|secret| {
                    secret.data.into_iter().flatten().map(|(key, value)| (key, Bytes::from(value.0))).collect()
                })
            }
            ReferenceKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                call(api.get(name)).await.map(|map| {
                    let text = map.data.into_iter().flatten().map(|(key, value)| (key, Bytes::from(value)));
                    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, Bytes::from(value.0)));
                    text.chain(binary).collect()
                })
            }
        };
        fetched.map_err(|error| self.failure(namespace, reference, &error))
    }

    fn failure(&self, namespace: &str, reference: &Reference, error: &CallError) -> Failure {
        let (kind, name) = (reference.kind.as_str(), &reference.name);
        match error {
            CallError::NotFound(_) => Failure::Missing(format!(
                "{kind} '{name}' not found in namespace '{namespace}'; create it or correct the name"
            )),
            CallError::Forbidden(_) | CallError::Unauthorized(_) => Failure::Forbidden(format!(
                "not allowed to read {kind} '{name}'; to allow it: kubectl create rolebinding {}-secret-reader \
                 --namespace={namespace} --clusterrole={} {}",
                super::patch::FIELD_MANAGER,
                self.grant.cluster_role,
                self.grant.subject
            )),
            other => Failure::Unavailable(format!("{kind} '{name}' cannot be read: {other}")),
        }
    }
}

impl References for ReferenceStore {
    fn get<'a>(&'a self, namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        Box::pin(async move {
            self.value(namespace, reference).await.map_err(|failure| match failure {
                Failure::Missing(message) | Failure::Unavailable(message) => (Reason::SecretMissing, message),
                Failure::Forbidden(message) => (Reason::SecretForbidden, message),
            })
        })
    }
}

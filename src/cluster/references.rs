//! Secrets and ConfigMaps by name: fetched when used, kept for at most half a minute, and asked for once however many
//! wait. Nothing is listed and nothing is watched. While the API server is away, what it said last is used on: probing
//! goes on without it.

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
    referred::Referred,
};
use crate::{
    check::{Reason, Reference, ReferenceKind, Text},
    probe::{ReferenceResult, References},
};

/// How long a value is used before it is asked for again (`chart.md`: 30 s at most).
const KEPT: Duration = Duration::from_secs(20);
/// How long an absence is believed: somebody is probably about to mend it.
const ABSENCE_KEPT: Duration = Duration::from_secs(5);
/// A value that is being asked for anew is used for so long without waiting for the answer.
const USED: Duration = Duration::from_secs(30);
/// How long an older value waits for the answer: an API server that hangs must not eat up the time of the attempt.
const GRACE: Duration = Duration::from_millis(200);
/// When more objects than this are known, those that nobody asked for in `UNUSED` are dropped.
const SWEEP: usize = 256;
const UNUSED: Duration = Duration::from_secs(600);

type Data = Arc<BTreeMap<String, Bytes>>;
type Object = (ReferenceKind, String, Text);
type Fetched = Result<Data, Failure>;

/// Why a reference has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    Missing(String),
    Forbidden(String),
    /// Nobody could be asked, and there is no value from before.
    Unavailable(String),
    /// The answer was none of these.
    Unreadable(String),
}

#[derive(Clone, Debug)]
struct Entry {
    since: Instant,
    fetched: Arc<OnceCell<Fetched>>,
    /// What was there when somebody could last be asked.
    last: Option<Last>,
}

#[derive(Clone, Debug)]
struct Last {
    data: Data,
    since: Instant,
    /// The attempt after it came to nothing.
    outage: bool,
}

impl Entry {
    fn is_fresh(&self, now: Instant) -> bool {
        let kept = match self.fetched.get() {
            Some(Err(_)) => ABSENCE_KEPT,
            Some(Ok(_)) | None => KEPT,
        };
        now.duration_since(self.since) < kept
    }

    /// What can be used on while the entry that follows this one cannot be filled.
    fn last(&self) -> Option<Last> {
        match self.fetched.get() {
            Some(Ok(data)) => Some(Last { data: data.clone(), since: self.since, outage: false }),
            Some(Err(Failure::Unavailable(_))) => self.last.clone().map(|last| Last { outage: true, ..last }),
            // An absence or a refusal is an answer: nothing from before outlives it.
            Some(Err(_)) => None,
            None => self.last.clone(),
        }
    }
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
        match self.data(namespace, reference).await {
            Ok(data) => data.get(&**key).cloned().ok_or_else(|| {
                Failure::Missing(format!("{kind} '{name}' has no key '{key}'; add it or correct the name"))
            }),
            Err(failure) => Err(failure),
        }
    }

    async fn data(&self, namespace: &str, reference: &Reference) -> Fetched {
        let (entry, is_new) = self.entry(&(reference.kind, namespace.to_owned(), reference.name.clone()));
        let Some(last) = &entry.last else {
            // Whoever comes first asks; if that one gives up, the next in line asks anew.
            return entry.fetched.get_or_init(|| self.fetch(namespace, reference)).await.clone();
        };
        if is_new {
            // By itself, so that nobody's giving up ends it.
            let (store, cell) = (self.clone(), entry.fetched.clone());
            let (namespace, reference) = (namespace.to_owned(), reference.clone());
            tokio::spawn(async move {
                cell.get_or_init(|| store.fetch(&namespace, &reference)).await;
            });
        }
        if entry.fetched.get().is_none() && !last.outage && last.since.elapsed() >= USED {
            let answer = entry.fetched.get_or_init(|| self.fetch(namespace, reference));
            // Without an answer in time the last value is used; the one who was sent to ask goes on asking.
            let _ = tokio::time::timeout(GRACE, answer).await;
        }
        match entry.fetched.get() {
            None | Some(Err(Failure::Unavailable(_))) => Ok(last.data.clone()),
            Some(answer) => answer.clone(),
        }
    }

    /// What is wrong with `references`, looked up now or a short while ago.
    pub async fn problems(&self, namespace: &str, references: &[Referred]) -> Vec<Problem> {
        let mut problems = vec![];
        for Referred { path, reference } in references {
            let (kind, message) = match self.value(namespace, reference).await {
                // Nobody could be asked: that says nothing about the reference.
                Ok(_) | Err(Failure::Unavailable(_) | Failure::Unreadable(_)) => continue,
                Err(Failure::Missing(message)) => (ProblemKind::InvalidReference, message),
                Err(Failure::Forbidden(message)) => (ProblemKind::Forbidden, message),
            };
            problems.push(Problem { kind, path: path.clone(), message });
        }
        problems
    }

    /// The entry to be used for `object`, and whether it has just been made.
    fn entry(&self, object: &Object) -> (Entry, bool) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() > SWEEP {
            entries.retain(|_, entry| now.duration_since(entry.since) < UNUSED);
        }
        match entries.get(object) {
            Some(entry) if entry.is_fresh(now) => (entry.clone(), false),
            former => {
                let last = former.and_then(Entry::last);
                let entry = Entry { since: now, fetched: Arc::new(OnceCell::new()), last };
                entries.insert(object.clone(), entry.clone());
                (entry, true)
            }
        }
    }

    async fn fetch(&self, namespace: &str, reference: &Reference) -> Fetched {
        let name = &*reference.name;
        let fetched = match reference.kind {
            ReferenceKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                call(api.get(name)).await.map(|secret| {
                    secret
                        .data
                        .into_iter()
                        .flatten()
                        .map(|(key, value)| (key, Bytes::from(value.0)))
                        .collect::<BTreeMap<_, _>>()
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
        fetched.map(Arc::new).map_err(|error| self.failure(namespace, reference, &error))
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
            other => {
                let message = format!("{kind} '{name}' cannot be read: {other}");
                if other.is_outage() { Failure::Unavailable(message) } else { Failure::Unreadable(message) }
            }
        }
    }
}

impl References for ReferenceStore {
    fn get<'a>(&'a self, namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        Box::pin(async move {
            self.value(namespace, reference).await.map_err(|failure| match failure {
                Failure::Missing(message) | Failure::Unavailable(message) | Failure::Unreadable(message) => {
                    (Reason::SecretMissing, message)
                }
                Failure::Forbidden(message) => (Reason::SecretForbidden, message),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// What the API server says; `None`: it does not answer at all.
    type Says = Arc<Mutex<Option<StatusCode>>>;

    fn store(says: &Says) -> ReferenceStore {
        let says = says.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            let status = *says.lock().expect("not poisoned");
            async move {
                let Some(status) = status else { return std::future::pending().await };
                let body = match status {
                    StatusCode::OK => json!({
                        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "data": {"key": "dmFsdWU="},
                    }),
                    status => json!({
                        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                        "message": "so it is", "reason": "x", "code": status.as_u16(),
                    }),
                };
                let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, tower::BoxError>(response.expect("valid"))
            }
        });
        let grant = Grant { cluster_role: "reader".into(), subject: "--user=x".into() };
        ReferenceStore::new(Client::new(service, "default"), grant)
    }

    fn token() -> Reference {
        Reference { kind: ReferenceKind::Secret, name: "token".into(), key: "key".into() }
    }

    /// Asks every second for `seconds`, as probes do; all answers.
    async fn ask(store: &ReferenceStore, seconds: u64) -> Vec<Result<Bytes, Failure>> {
        let mut answers = vec![];
        for _ in 0..seconds {
            answers.push(store.value("shop", &token()).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        answers
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_made_is_found_in_a_few_seconds() {
        for absent in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
            let says: Says = Arc::new(Mutex::new(Some(absent)));
            let store = store(&says);
            assert!(store.value("shop", &token()).await.is_err());
            *says.lock().expect("not poisoned") = Some(StatusCode::OK);
            let answers = ask(&store, 8).await;
            assert!(answers[0].is_err(), "{absent}: asked for at every probe");
            assert_eq!(answers[7], Ok(Bytes::from_static(b"value")), "{absent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_known_outlives_an_outage_of_any_kind() {
        for away in [None, Some(StatusCode::SERVICE_UNAVAILABLE)] {
            let says: Says = Arc::new(Mutex::new(Some(StatusCode::OK)));
            let store = store(&says);
            assert_eq!(store.value("shop", &token()).await, Ok(Bytes::from_static(b"value")));
            *says.lock().expect("not poisoned") = away;
            let begun = Instant::now();
            let answers = ask(&store, 900).await;
            assert!(answers.iter().all(|answer| *answer == Ok(Bytes::from_static(b"value"))), "{away:?}");
            assert!(begun.elapsed() < Duration::from_secs(930), "{away:?}: waited for an API server that is away");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_even_after_an_outage() {
        for answer in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
            let says: Says = Arc::new(Mutex::new(Some(StatusCode::OK)));
            let store = store(&says);
            ask(&store, 1).await;
            *says.lock().expect("not poisoned") = Some(StatusCode::SERVICE_UNAVAILABLE);
            ask(&store, 60).await;
            *says.lock().expect("not poisoned") = Some(answer);
            let answers = ask(&store, 60).await;
            let refused =
                |answer: &Result<Bytes, Failure>| matches!(answer, Err(Failure::Missing(_) | Failure::Forbidden(_)));
            assert!(answers.last().is_some_and(refused), "{answer}: {:?}", answers.last());
            // And is not forgotten in the next outage.
            *says.lock().expect("not poisoned") = None;
            let answers = ask(&store, 60).await;
            assert!(answers.iter().all(Result::is_err), "{answer}: what was taken away came back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_made_up_where_nothing_was_known() {
        let says: Says = Arc::new(Mutex::new(None));
        let answer = store(&says).value("shop", &token()).await;
        assert!(matches!(answer, Err(Failure::Unavailable(_))), "{answer:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_problem_names_the_field() {
        let says: Says = Arc::new(Mutex::new(Some(StatusCode::NOT_FOUND)));
        let referred = Referred { path: "spec.probe.http.tls.caRef".into(), reference: token() };
        let problems = store(&says).problems("shop", &[referred]).await;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("spec.probe.http.tls.caRef: Secret 'token' not found"));
    }
}

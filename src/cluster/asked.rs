//! What a check consists of, asked of the API server when somebody wants to know: for a replica that mirrors the statuses and
//! watches neither Services nor pods. So a probe on demand is made by whichever replica the request comes to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::{
    checks::{Object, Selection, facts},
    client::{CallError, call, list_all},
    index::{
        Index, Scope, SourceChange, SourceKind,
        facts::{PodFacts, SERVICE_NAME, ServiceFacts, SliceFacts},
        resolve,
    },
    watch::Told,
};
use crate::{
    check::{Check, ObjectKey, Place, PodSelector, Text},
    engine::Declared,
    on_demand::Declares,
};

/// See the module's own words.
#[derive(Clone)]
pub struct Asked {
    client: Client,
    selection: Selection,
    /// What has been listed, where it is remembered.
    pods: Option<Arc<Pods>>,
}

/// The pods of each namespace that was asked about: one list serves every check that selects some of them.
#[derive(Default)]
struct Pods(Mutex<HashMap<Text, Listed>>);

type Listed = Arc<OnceCell<Vec<PodFacts>>>;

impl Declares for Asked {
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>> {
        Box::pin(async move {
            self.look_up(key).await.map_err(|error| format!("the API server could not be asked: {error}"))
        })
    }

    fn remembering(&self) -> Option<Arc<dyn Declares>> {
        Some(Arc::new(Self { pods: Some(Arc::default()), ..self.clone() }))
    }
}

impl Asked {
    #[must_use]
    pub const fn new(client: Client, selection: Selection) -> Self {
        Self { client, selection, pods: None }
    }

    async fn look_up(&self, key: &ObjectKey) -> Result<Option<Declared>, CallError> {
        let namespaces = &self.selection.namespaces;
        if !namespaces.is_empty() && !namespaces.iter().any(|namespace| **namespace == *key.namespace) {
            return Ok(None);
        }
        let api: Api<Object> = Api::namespaced(self.client.clone(), &key.namespace);
        let object = match call(api.get(&key.name)).await {
            Ok(object) => object,
            Err(CallError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(facts) = facts(object).filter(|facts| self.is_ours(&facts.labels)) else { return Ok(None) };
        // One that cannot work has nothing that could be asked.
        let Ok(check) = facts.compiled else { return Ok(None) };
        let mut index = Index::default();
        index.insert(check.clone());
        self.fill(&mut index, &check).await?;
        let endpoints = resolve(&check, &index.sources).endpoints;
        Ok(Some(Declared { check, endpoints }))
    }

    fn is_ours(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        // Checked when the flag was read: the API server takes it too.
        let selector = self.selection.labels.as_deref().map(str::parse::<PodSelector>);
        selector.is_none_or(|selector| selector.is_ok_and(|selector| selector.matches(labels)))
    }

    /// Lists what the targets of `check` refer to, and no more.
    async fn fill(&self, index: &mut Index, check: &Check) -> Result<(), CallError> {
        let namespace = &check.key.namespace;
        let scope = |kind| Scope { kind, namespace: namespace.clone() };
        let mut pods = false;
        for target in &check.targets {
            match &target.place {
                Place::Service { name } => {
                    // By lists: the operator may not get what it watches.
                    let named = ListParams::default().fields(&format!("metadata.name={name}"));
                    let services = self.list(namespace, &named, ServiceFacts::of).await?;
                    tell(index, scope(SourceKind::Services), services, SourceChange::Service);
                    let of_it = ListParams::default().labels(&format!("{SERVICE_NAME}={name}"));
                    let slices = self.list(namespace, &of_it, SliceFacts::of).await?;
                    tell(index, scope(SourceKind::Slices), slices, SourceChange::Slice);
                }
                Place::Pods { .. } if !std::mem::replace(&mut pods, true) => {
                    tell(index, scope(SourceKind::Pods), self.pods_of(namespace).await?, SourceChange::Pod);
                }
                Place::Pods { .. } | Place::Host(_) | Place::Check { .. } | Place::Nowhere => {}
            }
        }
        Ok(())
    }

    async fn pods_of(&self, namespace: &Text) -> Result<Vec<PodFacts>, CallError> {
        let list = async || self.list(namespace, &ListParams::default(), PodFacts::of).await;
        let Some(pods) = &self.pods else { return list().await };
        // Who comes while it is listed waits for the list; one that failed is asked for anew.
        let listed = {
            let mut pods = pods.0.lock().unwrap_or_else(PoisonError::into_inner);
            pods.entry(namespace.clone()).or_default().clone()
        };
        listed.get_or_try_init(list).await.cloned()
    }

    async fn list<K, T>(&self, namespace: &str, params: &ListParams, facts: fn(&K) -> T) -> Result<Vec<T>, CallError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut found = vec![];
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        list_all(&[api], params, |object| found.push(facts(&object))).await?;
        Ok(found)
    }
}

/// Adds what was listed; what was listed before for another target stays.
fn tell<T>(index: &mut Index, scope: Scope, listed: Vec<T>, change: fn(Scope, Told<T>) -> SourceChange) {
    for one in listed {
        index.apply(change(scope.clone(), Told::Is(one)));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures::future::join_all;
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// What the API server answers in a namespace of three pods where any HealthCheck that is asked for selects them.
    fn answer(path: &str) -> Value {
        let meta = |name: &str| json!({"name": name, "namespace": "shop", "uid": name, "generation": 1});
        match path.rsplit_once('/').unwrap_or_default() {
            (_, "pods") => {
                let pod = |at: u8| {
                    let mut pod = json!({
                        "metadata": meta(&format!("app-{at}")),
                        "spec": {"containers": []},
                        "status": {"phase": "Running", "podIP": format!("10.0.0.{at}"), "podIPs": [{"ip": format!("10.0.0.{at}")}]},
                    });
                    pod["metadata"]["labels"] = json!({"app": "app"});
                    pod
                };
                json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": (1..=3).map(pod).collect::<Vec<_>>()})
            }
            (_, name) => json!({
                "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck", "metadata": meta(name),
                "spec": {"targets": [
                    {"name": "pods", "port": 80, "pods": {"selector": {"matchLabels": {"app": "app"}}}},
                    {"name": "again", "port": 81, "pods": {"selector": {"matchLabels": {"app": "app"}}}},
                ]},
            }),
        }
    }

    #[tokio::test]
    async fn what_one_set_asks_about_is_listed_once() {
        let lists = Arc::new(AtomicUsize::new(0));
        let count = lists.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            count.fetch_add(usize::from(path.ends_with("/pods")), SeqCst);
            async move { Ok::<_, Infallible>(Response::new(Body::from(answer(&path).to_string().into_bytes()))) }
        });
        let asked = Asked::new(Client::new(service, "default"), Selection::default());
        let keys: Vec<_> = (0..50).map(|at| ObjectKey::new("shop", &format!("c{at}"))).collect();
        for sets in 1..=2 {
            let set = asked.remembering().expect("it costs a request");
            for declared in join_all(keys.iter().map(|key| set.declared(key))).await {
                let declared = declared.expect("answered").expect("declared");
                let mut per_target = BTreeMap::new();
                for endpoint in &declared.endpoints {
                    *per_target.entry(&*endpoint.target).or_insert(0) += 1;
                }
                assert_eq!(per_target, BTreeMap::from([("again", 3), ("pods", 3)]));
            }
            assert_eq!(lists.load(SeqCst), sets, "and the next set looks anew");
        }
        asked.declared(&keys[0]).await.expect("answered").expect("declared");
        asked.declared(&keys[0]).await.expect("answered").expect("declared");
        assert_eq!(lists.load(SeqCst), 4, "nothing is remembered beyond a set");
    }
}

//! What a check consists of, asked of the API server when somebody wants to know: for a replica that mirrors the statuses and
//! watches neither Services nor pods. So a probe on demand is made by whichever replica the request comes to.

use futures::future::BoxFuture;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;

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
    check::{Check, ObjectKey, Place, PodSelector},
    engine::Declared,
    on_demand::Declares,
};

/// See the module's own words.
#[derive(Clone)]
pub struct Asked {
    client: Client,
    selection: Selection,
}

impl Declares for Asked {
    fn declared<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<Option<Declared>, String>> {
        Box::pin(async move {
            self.look_up(key).await.map_err(|error| format!("the API server could not be asked: {error}"))
        })
    }
}

impl Asked {
    #[must_use]
    pub const fn new(client: Client, selection: Selection) -> Self {
        Self { client, selection }
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
                    let listed = self.list(namespace, &ListParams::default(), PodFacts::of).await?;
                    tell(index, scope(SourceKind::Pods), listed, SourceChange::Pod);
                }
                Place::Pods { .. } | Place::Host(_) | Place::Check { .. } | Place::Nowhere => {}
            }
        }
        Ok(())
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

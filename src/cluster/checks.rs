//! The watch of HealthChecks, for leader and standby alike.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    client::CallError,
    prior::prior,
    reconcile::CheckFacts,
    referred::references_in,
    server_state::ServerState,
    watch::{Told, watch},
};
use crate::{
    api::{HealthCheck, HealthCheckSpec, HealthCheckStatus, OVERRIDE_ANNOTATION},
    check::{ObjectKey, shared},
    compile::{self, Mode},
    server::Readiness,
    telemetry::Metrics,
};

/// Which HealthChecks are ours.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty: all namespaces.
    pub namespaces: Vec<String>,
    pub labels: Option<String>,
}

impl Selection {
    /// Where the objects of one kind are.
    #[must_use]
    pub fn apis<K>(&self, client: &Client) -> Vec<Api<K>>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        if self.namespaces.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }
}

/// A HealthCheck whose spec may be one that we cannot read: it is then reported on the object itself, and its list
/// goes on.
#[derive(Clone, Debug)]
pub struct Object {
    pub metadata: ObjectMeta,
    /// Or what is wrong with it.
    pub spec: Result<Box<HealthCheckSpec>, compile::Problem>,
    pub status: Option<HealthCheckStatus>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            metadata: Meta,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Option<HealthCheckStatus>,
        }
        let Raw { metadata, spec, status } = Raw::deserialize(deserializer)?;
        let spec = serde_path_to_error::deserialize(spec).map(Box::new).map_err(|error| {
            let field_path = match error.path().to_string().as_str() {
                "." => "spec".to_owned(),
                path => format!("spec.{path}"),
            };
            let message = format!("cannot be read: {}; correct it, or bring the CRD up to date", error.inner());
            compile::Problem { field_path, message }
        });
        Ok(Self { metadata: metadata.into(), spec, status })
    }
}

/// What is read of an object's metadata. What nobody here looks at, `managedFields` above all, is passed over as it comes:
/// it is most of a small object.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    generation: Option<i64>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Annotations,
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            generation: meta.generation,
            resource_version: meta.resource_version,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            labels: meta.labels,
            annotations: meta.annotations.said.map(|said| BTreeMap::from([(OVERRIDE_ANNOTATION.to_owned(), said)])),
            ..Self::default()
        }
    }
}

/// The annotation that is ours to read; the others may hold the whole object once more.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "healthcheck-operator.dev/override")]
    said: Option<String>,
}

impl Resource for Object {
    type DynamicType = ();
    type Scope = <HealthCheck as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        HealthCheck::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        HealthCheck::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        HealthCheck::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        HealthCheck::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Watches every HealthCheck of `selection`, one watch for each namespace, or one for all.
pub fn watch_checks<T: Send + 'static, I: Send + 'static>(
    client: &Client,
    selection: &Selection,
    metrics: &Metrics,
    complaints: &Complaints,
    keep: fn(Object) -> Option<T>,
    wrap: fn(usize, Told<T>) -> I,
    sender: &mpsc::Sender<I>,
) -> JoinSet<()> {
    let apis: Vec<Api<Object>> = selection.apis(client);
    let mut watches = JoinSet::new();
    for (index, api) in apis.into_iter().enumerate() {
        let (labels, complaints) = (selection.labels.clone(), complaints.clone());
        let wrap = move |told| {
            complaints.hear(index, &told);
            wrap(index, told)
        };
        watches.spawn(watch("healthchecks", api, labels, metrics.clone(), keep, wrap, sender.clone()));
    }
    watches
}

/// Which watch lists what, and how far each of them is.
#[derive(Debug)]
pub struct Listing {
    namespaces: Vec<String>,
    /// What the list that is under way has brought.
    listed: Vec<Option<BTreeSet<ObjectKey>>>,
    complete: Vec<bool>,
}

impl Listing {
    #[must_use]
    pub fn new(selection: &Selection) -> Self {
        let count = selection.namespaces.len().max(1);
        Self { namespaces: selection.namespaces.clone(), listed: vec![None; count], complete: vec![false; count] }
    }

    /// Whether all watches have listed once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.iter().all(|complete| *complete)
    }

    pub fn begin(&mut self, watch: usize) {
        self.listed[watch] = Some(BTreeSet::new());
    }

    pub fn has(&mut self, watch: usize, key: &ObjectKey) {
        if let Some(listed) = &mut self.listed[watch] {
            listed.insert(key.clone());
        }
    }

    /// The list has ended: which of the `known` are gone.
    pub fn complete<'a>(&mut self, watch: usize, known: impl Iterator<Item = &'a ObjectKey>) -> Vec<ObjectKey> {
        self.complete[watch] = true;
        let Some(listed) = self.listed[watch].take() else { return vec![] };
        let namespace = self.namespaces.get(watch);
        known
            .filter(|key| namespace.is_none_or(|namespace| *namespace == *key.namespace) && !listed.contains(*key))
            .cloned()
            .collect()
    }
}

/// What is kept of an object for running it.
#[must_use]
pub fn facts(object: Object) -> Option<CheckFacts> {
    let Object { metadata, spec, status } = object;
    let mut server = ServerState::of(&metadata, status.as_ref());
    let earlier = status.and_then(|status| prior(&status, Duration::ZERO)).map(Box::new);
    let references = spec.as_ref().map(|spec| references_in(spec)).unwrap_or_default();
    let (metadata, compiled) = match spec {
        Ok(spec) => {
            let object = HealthCheck { metadata, spec: *spec, status: None };
            let compiled = compile::compile(&object, Mode::Cluster).map(Arc::new);
            (object.metadata, compiled)
        }
        Err(problem) => (metadata, Err(vec![problem])),
    };
    let (namespace, name) = (metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    // One name and one uid for all who keep them.
    let key = compiled.as_ref().map_or_else(|_| ObjectKey::shared(namespace, name), |check| check.key.clone());
    let uid = metadata.uid.as_deref().unwrap_or_default();
    let uid = compiled.as_ref().ok().filter(|check| *check.uid == *uid).map_or_else(|| uid.into(), |it| it.uid.clone());
    server.uid = uid.clone();
    let labels = compiled.as_ref().map(|check| check.labels.clone());
    Some(CheckFacts {
        key,
        uid,
        generation: metadata.generation.unwrap_or(0),
        labels: labels.unwrap_or_else(|_| shared::labels(metadata.labels.unwrap_or_default())),
        created: metadata.creation_timestamp.map(|time| time.0),
        overrides: metadata
            .annotations
            .and_then(|mut annotations| annotations.remove(OVERRIDE_ANNOTATION))
            .map(|text| text.as_str().into()),
        compiled,
        server: Box::new(server),
        prior: earlier,
        references,
    })
}

/// Tells `readiness` how the watch of HealthChecks fares.
pub fn tell_readiness<T>(readiness: &Readiness, told: &Told<T>) {
    match told {
        Told::Complete => readiness.ready("crd"),
        Told::Failed(error) => {
            if let Some(trouble) = trouble(error) {
                readiness.not_ready("crd", trouble);
            }
        }
        Told::Begin | Told::Is(_) | Told::Gone(_) => {}
    }
}

/// What keeps HealthChecks from being watched, and the mend; `None`: it passes by itself.
fn trouble(error: &CallError) -> Option<String> {
    match error {
        CallError::NotFound(_) => Some(
            "the CRD healthchecks.healthcheck-operator.dev is not installed; waiting for it (healthcheck-operator crds prints it)"
                .to_owned(),
        ),
        CallError::Forbidden(message) => Some(format!(
            "HealthChecks cannot be watched: {message}; grant list and watch on healthchecks in {}",
            crate::api::GROUP
        )),
        CallError::Unauthorized(message) => Some(format!(
            "HealthChecks cannot be watched: the API server refuses our credentials ({message}); check the service account"
        )),
        _ => None,
    }
}

/// What keeps each watch of HealthChecks from beginning: logged once, however often and in whichever role it is met.
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Complaints(Arc<Mutex<HashMap<usize, String>>>);

impl Complaints {
    fn hear<T>(&self, watch: usize, told: &Told<T>) {
        // Whoever panicked while holding it left a whole map.
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Told::Failed(error) => {
                let Some(trouble) = trouble(error) else { return };
                if made.get(&watch) != Some(&trouble) {
                    tracing::warn!("{trouble}");
                    made.insert(watch, trouble);
                }
            }
            Told::Complete if made.remove(&watch).is_some() => tracing::info!("HealthChecks are watched"),
            Told::Complete | Told::Begin | Told::Is(_) | Told::Gone(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::Text;

    #[test]
    fn of_metadata_only_what_is_used_is_kept() {
        let object: Object = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"tier": "gold"},
                "annotations": {OVERRIDE_ANNOTATION: "a=Healthy", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"targets": [{"name": "t", "host": "10.0.0.1", "port": 80}]},
        }))
        .expect("an object");
        let annotations = object.metadata.annotations.clone().expect("one");
        assert_eq!(annotations, BTreeMap::from([(OVERRIDE_ANNOTATION.to_owned(), "a=Healthy".to_owned())]));
        assert!(object.metadata.managed_fields.is_none());
        let facts = facts(object).expect("a name");
        assert_eq!((&*facts.key.name, &*facts.uid, facts.generation), ("a", "u", 3));
        assert_eq!((facts.server.generation, &*facts.server.resource_version), (3, "7"));
        assert_eq!(facts.labels.get("tier").map(String::as_str), Some("gold"));
        assert!(facts.created.is_some() && facts.overrides.as_deref() == Some("a=Healthy"));
        let check = facts.compiled.expect("compiles");
        assert!(Arc::ptr_eq(&check.labels, &facts.labels) && Text::ptr_eq(&check.uid, &facts.server.uid), "kept once");
    }
}

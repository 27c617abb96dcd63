//! A namespace of a show's own, with the outside hosts and the operator that the show puts there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use serde_json::{Value, json};

use crate::hosts::Host;
use crate::node::Node;
use crate::release::Release;
use crate::support::recorder::Recorder;
use crate::support::run_dir::sub_dir;
use crate::support::wait::wait_until;

/// What should happen soon, on a machine that may do other things.
pub const SOON: Duration = Duration::from_secs(60);

/// See the module's own words.
pub struct Room {
    pub node: Arc<Node>,
    pub namespace: String,
    pub client: Client,
    watched: String,
    releases: Mutex<Vec<Release>>,
    hosts: Mutex<Vec<Host>>,
}

impl Room {
    pub async fn new(node: Arc<Node>, name: &str) -> anyhow::Result<Self> {
        let client = node.client().await?;
        let meta = ObjectMeta { generate_name: Some(format!("{name}-")), ..Default::default() };
        let made = Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &Namespace { metadata: meta, ..Default::default() })
            .await?;
        let namespace = made.metadata.name.context("the API server gave the namespace no name")?;
        let watched = format!("watchNamespaces={{{namespace}}}");
        Ok(Self { node, namespace, client, watched, releases: Mutex::default(), hosts: Mutex::default() })
    }

    /// An outside host; it goes with the room. Its name begins with `name`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn host(&self, name: &str) -> anyhow::Result<Host> {
        let host = Host::add(&self.node, name).await?;
        lock(&self.hosts).push(host.clone());
        Ok(host)
    }

    /// `COUNT` outside hosts with the switchable HTTP target on them, all answering 200.
    ///
    /// # Errors
    /// When one cannot be made.
    pub async fn http_hosts(&self, names: &[&str]) -> anyhow::Result<Vec<Host>> {
        let mut hosts = Vec::new();
        for name in names {
            let host = self.host(name).await?;
            host.serve(&["http"]).await?;
            hosts.push(host);
        }
        Ok(hosts)
    }

    /// An operator that watches this namespace, installed in it by Helm with the CRDs of the node.
    ///
    /// # Errors
    /// When Helm fails, or its pods do not become ready.
    pub async fn operator(&self, values: &[&str]) -> anyhow::Result<Release> {
        self.node.need_crds().await?;
        let release = self.release(&self.namespace);
        release.upgrade(&self.own_values(values)).await?;
        Ok(release)
    }

    /// The values of this room's operator, with some more.
    pub fn own_values<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["--set", self.watched.as_str(), "--set", "crds.enabled=false"];
        all.extend(more);
        all
    }

    /// A release of this room; it is uninstalled with it.
    pub fn release(&self, name: &str) -> Release {
        let release = Release::new(Arc::clone(&self.node), &self.namespace, name);
        lock(&self.releases).push(release.clone());
        release
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a manifest in this namespace as a user would.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn apply(&self, manifest: &Value) -> anyhow::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), manifest.to_string())?;
        let file = file.path().to_string_lossy().into_owned();
        self.node.kubectl(&["apply", "--namespace", &self.namespace, "--filename", &file]).await.map(|_| ())
    }

    /// Applies a HealthCheck.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn check(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        self.apply(&json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": name}, "spec": spec,
        }))
        .await
    }

    /// Applies a Service.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn service(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})).await
    }

    /// Everything that happens to the HealthChecks of this namespace from now on.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn record(&self) -> anyhow::Result<Recorder<HealthCheck>> {
        Recorder::start(self.api()).await
    }

    /// Waits until the health of a check is this word.
    ///
    /// # Errors
    /// After [`SOON`], with its status.
    pub async fn health(&self, name: &str, health: &str) -> anyhow::Result<HealthCheck> {
        wait_until(&format!("{name} to be {health}"), SOON, || async {
            let check = self.api::<HealthCheck>().get(name).await?;
            let seen = check.status.as_ref().and_then(|status| status.health.as_deref());
            ensure!(seen == Some(health), "{:?}", check.status);
            anyhow::Ok(check)
        })
        .await
    }

    /// The cluster address of a Service.
    ///
    /// # Errors
    /// When there is none.
    pub async fn service_ip(&self, name: &str) -> anyhow::Result<std::net::IpAddr> {
        let service = self.api::<Service>().get(name).await?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
        Ok(ip.parse()?)
    }

    /// Keeps what tells why a show failed.
    pub async fn keep_traces(&self) {
        let directory = sub_dir(&self.namespace);
        let namespace = self.namespace.as_str();
        let looks = [
            ("objects.yaml", "get healthchecks,all,endpointslices,leases,events --output=yaml --namespace"),
            ("pods.txt", "describe pods --namespace"),
        ];
        for (file, command) in looks {
            let args: Vec<&str> = command.split(' ').chain([namespace]).collect();
            let said = self.node.kubectl(&args).await.unwrap_or_else(|error| format!("{error:#}"));
            let _ = std::fs::write(directory.join(file), said);
        }
        let releases = lock(&self.releases).clone();
        for release in releases {
            release.keep_logs(&directory).await;
        }
        println!("kept: {}", directory.display());
    }

    /// Removes all that is in the room, and does not wait for the namespace to be gone.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn close(&self) -> anyhow::Result<()> {
        let releases = std::mem::take(&mut *lock(&self.releases));
        for release in releases {
            release.uninstall_if_there().await?;
        }
        let hosts = std::mem::take(&mut *lock(&self.hosts));
        for host in hosts {
            host.remove().await?;
        }
        self.node.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]).await.map(|_| ())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! A namespace with an operator of its own, for trials of the controller.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::identity::Credentials;
use crate::support::operator::{self, Command, Operator};
use crate::support::recorder::Recorder;
use crate::support::wait::wait_until;

/// What should happen soon, on a machine that does six other things.
pub const SOON: Duration = Duration::from_secs(60);
/// The account the operator runs as.
pub const ACCOUNT: &str = "operator";

/// See the module's own words.
pub struct Stage {
    pub cluster: Arc<ControlPlane>,
    pub namespace: String,
    pub account: Credentials,
}

impl Stage {
    /// A stage whose operator may do anything.
    pub async fn new(cluster: Arc<ControlPlane>, test: &str) -> anyhow::Result<Self> {
        cluster.install_crds().await?;
        let namespace = cluster.namespace(test).await?;
        let account = cluster.service_account(&namespace, ACCOUNT).await?;
        cluster.bind(&namespace, ACCOUNT, "cluster-admin").await?;
        Ok(Self { cluster, namespace, account })
    }

    /// The same namespace for an operator that runs as another account, which may do nothing yet.
    pub async fn as_account(&self, name: &str) -> anyhow::Result<Self> {
        let account = self.cluster.service_account(&self.namespace, name).await?;
        Ok(Self { cluster: self.cluster.clone(), namespace: self.namespace.clone(), account })
    }

    /// The user name of the operator in the audit log.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{ACCOUNT}", self.namespace)
    }

    pub fn kubeconfig(&self, server: Option<&str>) -> anyhow::Result<PathBuf> {
        self.cluster.kubeconfig(&self.account, server)
    }

    /// The operator's command line: this namespace only, loopback allowed. `server` as in `ControlPlane::kubeconfig`.
    pub fn command(&self, pod: &str, server: Option<&str>) -> anyhow::Result<Command> {
        Ok(operator::command("controller")
            .arg("--kubeconfig")
            .arg(self.kubeconfig(server)?)
            .args(["--watch-namespace", &self.namespace, "--egress-allow", "127.0.0.0/8,198.18.0.0/15"])
            .args(["--log-level", "info,healthcheck_operator::cluster=debug"])
            .env("POD_NAME", pod)
            .env("POD_NAMESPACE", &self.namespace))
    }

    /// Starts an operator and waits until it holds the lease and has listed everything.
    pub async fn operator(&self, pod: &str) -> anyhow::Result<Operator> {
        self.serve(self.command(pod, None)?).await
    }

    pub async fn serve(&self, command: Command) -> anyhow::Result<Operator> {
        let operator = command.serve()?;
        self.ready(&operator).await?;
        Ok(operator)
    }

    pub async fn ready(&self, operator: &Operator) -> anyhow::Result<()> {
        operator.wait_alive(SOON).await?;
        wait_until("the operator to be ready", SOON, || async {
            operator.process().check_alive()?;
            let answer = operator.admin_get("/readyz?verbose").await?;
            ensure!(answer.status == 200, "{}", answer.body);
            anyhow::Ok(())
        })
        .await
    }

    pub fn checks(&self) -> Api<HealthCheck> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// Everything that happens to the HealthChecks from now on.
    pub async fn record(&self) -> anyhow::Result<Recorder<HealthCheck>> {
        Recorder::start(self.checks()).await
    }

    /// Applies a HealthCheck as a user would.
    pub async fn apply(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let manifest = json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": {"name": name}, "spec": spec,
        });
        self.cluster.apply(&self.namespace, &manifest.to_string()).await.map(|_| ())
    }

    pub async fn get(&self, name: &str) -> anyhow::Result<HealthCheck> {
        Ok(self.checks().get(name).await?)
    }

    /// Waits until the health of a check is this word.
    pub async fn wait_health(&self, name: &str, wanted: &str) -> anyhow::Result<HealthCheck> {
        self.wait(name, &format!("{name} to be {wanted}"), |check| health(check) == wanted).await
    }

    /// Waits until `good` holds for a check.
    pub async fn wait(
        &self,
        name: &str,
        what: &str,
        good: impl Fn(&HealthCheck) -> bool,
    ) -> anyhow::Result<HealthCheck> {
        wait_until(what, SOON, || async {
            let check = self.get(name).await?;
            ensure!(good(&check), "{}", json!(check.status));
            anyhow::Ok(check)
        })
        .await
    }

    /// kubectl in this namespace.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl_ok(&[&["--namespace", &self.namespace], args].concat()).await
    }

    /// Events about a check: reason and how often, oldest first.
    pub async fn events(&self, name: &str) -> anyhow::Result<Vec<(String, i32)>> {
        let api: Api<Event> = Api::namespaced(self.cluster.client(), &self.namespace);
        let mut events = api.list(&ListParams::default()).await?.items;
        events.retain(|event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name)));
        events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
        let count = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
        Ok(events.iter().map(|event| (event.reason.clone().unwrap_or_default(), count(event))).collect())
    }
}

/// The health in a status; empty where there is none.
pub fn health(check: &HealthCheck) -> String {
    check.status.as_ref().and_then(|status| status.health.clone()).unwrap_or_default()
}

/// `Ready=True/Accepted`, or nothing.
pub fn condition(check: &HealthCheck, kind: &str) -> String {
    let conditions = check.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == kind)
        .map(|condition| format!("{}/{}", condition.status, condition.reason))
        .collect()
}

pub fn message(check: &HealthCheck, kind: &str) -> String {
    let conditions = check.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.type_ == kind).map(|condition| condition.message.clone()).collect()
}

/// A target at an address.
pub fn target(name: &str, address: SocketAddr) -> Value {
    json!({"name": name, "host": address.ip().to_string(), "port": address.port()})
}

/// An HTTP check of one target that decides fast.
pub fn fast(targets: &[Value]) -> Value {
    json!({
        "interval": "200ms", "failureThreshold": 2, "successThreshold": 2,
        "probe": {"http": {"path": "/health"}}, "targets": targets,
    })
}

/// A status without what a confirmation may change.
pub fn lasting(check: &HealthCheck) -> anyhow::Result<Value> {
    let mut status = serde_json::to_value(check.status.as_ref().context("no status")?)?;
    let object = status.as_object_mut().context("no object")?;
    for name in ["observedAt", "prober", "epoch"] {
        object.remove(name);
    }
    Ok(status)
}

//! A real API server, and an operator that may do anything there.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

use crate::common::{
    client::Client,
    operator::{IMAGE, Operator},
};
use crate::support::{control_plane::ControlPlane, identity::Credentials, programs::Programs};

const ACCOUNT: &str = "operator";
/// The network of the benchmark's own; see `tests/support/netns.rs`.
const TARGETS: &str = "198.18.0.0/15";
const SOON: Duration = Duration::from_secs(120);

pub struct Stage {
    pub cluster: ControlPlane,
    account: Credentials,
    home: String,
}

impl Stage {
    pub async fn start(programs: &Programs) -> anyhow::Result<Self> {
        let cluster = ControlPlane::start(programs, false).await?;
        cluster.install_crds().await?;
        let home = cluster.namespace("operator").await?;
        let account = cluster.service_account(&home, ACCOUNT).await?;
        cluster.bind(&home, ACCOUNT, "cluster-admin").await?;
        Ok(Self { cluster, account, home })
    }

    /// The operator's name in the audit log.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{ACCOUNT}", self.home)
    }

    /// Starts an operator for one namespace; it has every core, like everything else here.
    pub fn operator(&self, namespace: &str, flags: &[&str]) -> anyhow::Result<Operator> {
        self.operator_with(namespace, flags, &[])
    }

    /// The same in an environment.
    pub fn operator_with(&self, namespace: &str, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Operator> {
        let args = self.arguments(namespace, flags)?;
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Operator::start(&every_core(), &args, env)
    }

    /// How such an operator is told what to do.
    pub fn arguments(&self, namespace: &str, flags: &[&str]) -> anyhow::Result<Vec<String>> {
        let config = self.cluster.kubeconfig(&self.account, None)?.display().to_string();
        Ok(arguments(&config, namespace, flags))
    }

    /// An operator that reaches the API server by a proxy.
    pub fn operator_by(&self, proxy: &str, namespace: &str) -> anyhow::Result<Operator> {
        let config = self.cluster.kubeconfig(&self.account, Some(proxy))?.display().to_string();
        let args = arguments(&config, namespace, &[]);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        Operator::start(&every_core(), &args, &IMAGE)
    }

    /// Waits until the operator holds the lease and has listed everything.
    pub async fn ready(&self, operator: &Operator) -> anyhow::Result<Duration> {
        while operator.started.elapsed() < SOON {
            operator.process().check_alive()?;
            let answer = Client::connect(operator.admin).and_then(|mut client| client.get("/readyz"));
            if answer.is_ok_and(|(status, _)| status == 200) {
                return Ok(operator.started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the operator did not become ready; its log ends:\n{}", operator.process().log_tail())
    }

    pub fn checks(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client(), namespace, &resource())
    }

    /// Creates a HealthCheck.
    pub async fn create(&self, namespace: &str, name: &str, labels: Value, spec: Value) -> anyhow::Result<()> {
        let object = serde_json::from_value(json!({
            "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
            "metadata": { "name": name, "labels": labels }, "spec": spec,
        }))?;
        self.checks(namespace).create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Creates a Service without a selector, for a gate.
    pub async fn service(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let service = json!({ "metadata": { "name": name }, "spec": { "ports": [{ "port": 80 }] } });
        let services: Api<Service> = Api::namespaced(self.cluster.client(), namespace);
        services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
        Ok(())
    }
}

/// Ends an operator as the kubelet does, so that the next one need not wait for its lease.
pub fn stop(operator: Operator) -> anyhow::Result<()> {
    let ended = operator.process().stop()?;
    ensure!(ended.success(), "the operator ended with {ended}");
    Ok(())
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("healthcheck-operator.dev", "v1alpha1", "HealthCheck");
    ApiResource::from_gvk_with_plural(&kind, "healthchecks")
}

fn arguments(config: &str, namespace: &str, flags: &[&str]) -> Vec<String> {
    let mut args = vec!["controller", "--kubeconfig", config, "--watch-namespace", namespace];
    args.extend(["--egress-allow", TARGETS, "--lease-name", namespace]);
    args.extend(flags);
    args.into_iter().map(str::to_owned).collect()
}

pub fn every_core() -> String {
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    format!("0-{last}")
}

/// Waits for `good`, looking often: the time between two looks is an error of what is measured.
pub async fn until(what: &str, mut good: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < SOON {
        if good().await? {
            return Ok(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("waited {SOON:?} for {what}")
}

//! The operator, installed by real Helm from the chart of this repository.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ListParams};
use tokio::process::Command;

use crate::node::Node;
use crate::room::SOON;
use crate::shell;
use crate::support::wait::wait_until;

/// Which Helm; a release may change hands between them.
#[derive(Clone, Copy, Debug)]
pub enum Helm {
    Three,
    Four,
}

/// A release of the chart, installed or not.
#[derive(Clone)]
pub struct Release {
    node: Arc<Node>,
    namespace: String,
    pub name: String,
}

impl Release {
    pub fn new(node: Arc<Node>, namespace: &str, name: &str) -> Self {
        Self { node, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// What the chart calls its objects.
    pub fn full_name(&self) -> String {
        let chart = "healthcheck-operator";
        let name = if self.name.contains(chart) { self.name.clone() } else { format!("{}-{chart}", self.name) };
        // Long names are cut so that there is room for what comes after them.
        name.chars().take(49).collect::<String>().trim_end_matches('-').to_owned()
    }

    /// `helm upgrade --install --wait`: returns when the pods of the release are ready.
    ///
    /// # Errors
    /// When Helm fails, or warns of anything.
    pub async fn upgrade(&self, values: &[&str]) -> anyhow::Result<()> {
        self.upgrade_by(Helm::Four, values).await
    }

    /// The same, by a certain Helm.
    ///
    /// # Errors
    /// As [`Release::upgrade`].
    pub async fn upgrade_by(&self, helm: Helm, values: &[&str]) -> anyhow::Result<()> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/healthcheck-operator");
        // Never pulled: the node has the images, and no way to a registry.
        let fixed = ["upgrade", "--install", &self.name, chart, "--wait", "--timeout", "2m"];
        let mut args: Vec<&str> = fixed.to_vec();
        args.extend(["--set", "image.pullPolicy=Never"]);
        args.extend(values);
        let said = self.run(helm, &args).await?;
        // What the API server warns of (a deprecated field, a violated Pod Security level) is said there.
        ensure!(!said.to_lowercase().contains("warning"), "helm {args:?}: {said}");
        Ok(())
    }

    /// `helm uninstall --wait`.
    ///
    /// # Errors
    /// When Helm fails.
    pub async fn uninstall_by(&self, helm: Helm) -> anyhow::Result<()> {
        self.run(helm, &["uninstall", &self.name, "--wait", "--timeout", "2m"]).await.map(|_| ())
    }

    /// `helm test`: the operator's own `doctor`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn test(&self) -> anyhow::Result<()> {
        self.run(Helm::Four, &["test", &self.name, "--timeout", "2m"]).await.map(|_| ())
    }

    /// Uninstalls it unless somebody did, without its hooks: they wait until nobody can undo what they did.
    ///
    /// # Errors
    /// When Helm fails.
    pub async fn uninstall_if_there(&self) -> anyhow::Result<()> {
        self.run(Helm::Four, &["uninstall", &self.name, "--ignore-not-found", "--no-hooks"]).await.map(|_| ())
    }

    /// What it said on stderr.
    async fn run(&self, helm: Helm, args: &[&str]) -> anyhow::Result<String> {
        let program = match helm {
            Helm::Three => self.node.fact("HELM3"),
            Helm::Four => self.node.fact("HELM4"),
        };
        let home = self.node.run_dir().join("helm");
        let mut command = Command::new(program);
        command
            .args(args)
            .arg("--namespace")
            .arg(&self.namespace)
            .arg("--kubeconfig")
            .arg(self.node.fact("KUBECONFIG"));
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &home);
        }
        Ok(shell::run_both(&mut command).await?.1)
    }

    /// Its pods that are not on their way out.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.node.client().await?, &self.namespace);
        let mine = format!("app.kubernetes.io/instance={},app.kubernetes.io/component=controller", self.name);
        let mine = ListParams::default().labels(&mine);
        let mut pods = api.list(&mine).await?.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Their names.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn pod_names(&self) -> anyhow::Result<Vec<String>> {
        let pods = self.pods().await?;
        pods.into_iter().map(|pod| pod.metadata.name.context("a pod without a name")).collect()
    }

    /// Their addresses, as a set of nft is written.
    ///
    /// # Errors
    /// When one has none.
    pub async fn addresses(&self) -> anyhow::Result<String> {
        let of = |pod: Pod| pod.status.and_then(|status| status.pod_ip).context("a pod without an address");
        let all: Vec<_> = self.pods().await?.into_iter().map(of).collect::<anyhow::Result<_>>()?;
        Ok(all.join(", "))
    }

    /// Waits until as many pods as are wanted are ready.
    ///
    /// # Errors
    /// When they do not come to be.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let deployment = format!("deployment/{}", self.full_name());
        let args = ["rollout", "status", "--timeout=60s", "--namespace", &self.namespace, &deployment];
        self.node.kubectl(&args).await.map(|_| ())
    }

    async fn lease(&self) -> anyhow::Result<LeaseSpec> {
        let leases: Api<Lease> = Api::namespaced(self.node.client().await?, &self.namespace);
        leases.get(&self.full_name()).await?.spec.context("a lease that says nothing")
    }

    /// The process that holds the lease: the pod's name, and something by chance.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn holder(&self) -> anyhow::Result<String> {
        self.lease().await?.holder_identity.filter(|holder| !holder.is_empty()).context("nobody holds the lease")
    }

    /// Waits until another than `before` holds the lease.
    ///
    /// # Errors
    /// After [`SOON`], with who does.
    pub async fn held_by_another(&self, before: &str) -> anyhow::Result<()> {
        wait_until("another holder of the lease", SOON, || async {
            let now = self.holder().await?;
            ensure!(now != before, "{now}");
            anyhow::Ok(())
        })
        .await
    }

    /// When the lease was renewed last, as the holder says.
    ///
    /// # Errors
    /// When it never was.
    pub async fn renewed(&self) -> anyhow::Result<MicroTime> {
        self.lease().await?.renew_time.context("a lease that was never renewed")
    }

    /// The pod that probes: who holds the lease.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn leader(&self) -> anyhow::Result<String> {
        // What follows is by chance: two processes of one pod are two holders.
        Ok(self.holder().await?.split('_').next().unwrap_or_default().to_owned())
    }

    /// Waits until one of its pods that is none of `before` holds the lease.
    ///
    /// # Errors
    /// After [`SOON`], with who holds it.
    pub async fn taken_over(&self, before: &[String]) -> anyhow::Result<()> {
        wait_until("another pod to hold the lease", SOON, || async {
            let now = self.leader().await?;
            ensure!(!before.contains(&now), "{now}");
            anyhow::Ok(())
        })
        .await
    }

    /// The process of each of its pods, with the pod's name.
    ///
    /// # Errors
    /// When one has none.
    pub async fn processes(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let mut processes = Vec::new();
        for pod in self.pods().await? {
            let name = pod.metadata.name.context("a pod without a name")?;
            let said = self.node.script("pid", &[&self.namespace, &name, "controller"]).await?;
            processes.push((name, said.trim().parse()?));
        }
        Ok(processes)
    }

    /// What its pods have logged.
    ///
    /// # Errors
    /// When that cannot be read.
    pub async fn logs(&self) -> anyhow::Result<String> {
        let mut all = String::new();
        for name in self.pod_names().await? {
            all += &self.node.kubectl(&["logs", "--namespace", &self.namespace, &name, "--all-containers"]).await?;
        }
        Ok(all)
    }

    /// Writes the logs of its pods, and of their containers before, into a directory.
    pub async fn keep_logs(&self, directory: &Path) {
        for pod in self.pods().await.unwrap_or_default() {
            let Some(name) = pod.metadata.name else { continue };
            for (args, file) in [(&[][..], "log"), (&["--previous"][..], "previous.log")] {
                let mut all = vec!["logs", "--namespace", &self.namespace, &name, "--all-containers"];
                all.extend(args);
                if let Ok(said) = self.node.kubectl(&all).await {
                    let _ = std::fs::write(directory.join(format!("{name}.{file}")), said);
                }
            }
        }
    }
}

//! The chart installed by real Helm, 3 and 4, on the real API server: Pod Security admits its pods,
//! its RBAC grants what it says, and uninstalling leaves the user's objects alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use libtest_mimic::Trial;

use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::operator;
use crate::support::programs::{script, skip};
use crate::support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);
const RELEASE: &str = "healthcheck-operator";

/// Where both Helms are, or why there are none.
static HELM: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Builds both Helms as far as they are missing; call it while there is a network.
pub fn prepare() {
    HELM.get_or_init(|| script("helm.sh").map_err(|error| format!("{error:#}")));
}

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial_alone("chart::installs_upgrades_and_goes_under_both_helms", true, lives),
        suite.trial_alone("chart::permissions_follow_the_values", true, permissions),
    ]
}

/// One Helm against one cluster.
pub struct Helm<'a> {
    program: PathBuf,
    config: PathBuf,
    namespace: String,
    cluster: &'a ControlPlane,
}

impl<'a> Helm<'a> {
    pub fn new(cluster: &'a ControlPlane, directory: &Path, major: &str, namespace: &str) -> anyhow::Result<Self> {
        let config = cluster.kubeconfig(cluster.admin(), None)?;
        Ok(Self { program: directory.join(major), config, namespace: namespace.to_owned(), cluster })
    }

    async fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        let home = self.cluster.directory().join("helm");
        let mut command = Command::new(&self.program);
        command.args(args).arg("--namespace").arg(&self.namespace).arg("--kubeconfig").arg(&self.config);
        for variable in ["HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, &home);
        }
        command.stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output()).await?.context("helm cannot be run")
    }

    async fn ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let out = self.run(args).await?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "{} {args:?}: {said}", self.program.display());
        // What the API server warns of (a deprecated field, a violated Pod Security level) is said there.
        ensure!(!said.to_lowercase().contains("warning"), "{} {args:?}: {said}", self.program.display());
        Ok(String::from_utf8(out.stdout)?)
    }

    pub async fn install(&self, more: &[&str]) -> anyhow::Result<String> {
        let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/healthcheck-operator");
        let mut args = vec!["upgrade", "--install", RELEASE, chart];
        args.extend(more);
        self.ok(&args).await
    }
}

/// The directory of both Helms; `None` after a skip was said.
pub fn helms() -> anyhow::Result<Option<&'static Path>> {
    match HELM.get().context("prepare() was not called")? {
        Ok(directory) => Ok(Some(directory)),
        Err(why) => {
            ensure!(skip(why) == 0, "skipped in CI: {why}");
            Ok(None)
        }
    }
}

/// A namespace in which the API server admits restricted pods only.
async fn restricted(cluster: &ControlPlane, test: &str) -> anyhow::Result<String> {
    let namespace = cluster.namespace(test).await?;
    for mode in ["enforce", "warn"] {
        let label = format!("pod-security.kubernetes.io/{mode}=restricted");
        cluster.kubectl_ok(&["label", "namespace", &namespace, &label]).await?;
    }
    Ok(namespace)
}

/// Waits for as many pods of the release as there should be, and returns the names of their containers.
async fn pods(cluster: &ControlPlane, namespace: &str, want: usize) -> anyhow::Result<Vec<String>> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let labels = format!("app.kubernetes.io/name=healthcheck-operator,app.kubernetes.io/instance={RELEASE}");
    let list = ListParams::default().labels(&labels);
    wait_until("the pods of the release", SOON, || async {
        let found = api.list(&list).await?.items;
        let mut living = found.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect::<Vec<_>>();
        ensure!(living.len() == want, "{} pods", living.len());
        let spec = living.pop().and_then(|pod| pod.spec);
        let names =
            spec.into_iter().flat_map(|spec| [spec.init_containers.unwrap_or_default(), spec.containers].concat());
        Ok(names.map(|container| container.name).collect())
    })
    .await
}

/// Uninstalls, and does what a kubelet would: runs the hook's pod, as the account that it names.
async fn uninstall(helm: &Helm<'_>, cluster: &ControlPlane, namespace: &str) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let list = ListParams::default().labels("app.kubernetes.io/component=uninstall");
    let hook = async {
        let pod = wait_until("the hook's pod", SOON, || async {
            let found = api.list(&list).await?.items.into_iter();
            let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
            let mut new = found.filter(|pod| phase(pod).as_deref() == Some("Pending"));
            new.next().context("no pod")
        })
        .await?;
        let spec = pod.spec.context("a spec")?;
        let args = spec.containers.into_iter().next().and_then(|container| container.args).context("arguments")?;
        let account = spec.service_account_name.context("an account")?;
        let config = cluster.kubeconfig(&cluster.token(namespace, &account).await?, None)?;
        let command = operator::command(&args[0]).args(&args[1..]).arg("--kubeconfig").arg(config);
        let out = command.env("POD_NAMESPACE", namespace).run(SOON).await?;
        let said = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success() && said.contains("[+]") && !said.contains("[-]"), "{said}");
        let name = pod.metadata.name.context("a name")?;
        cluster.pod_status(namespace, &name, serde_json::json!({"phase": "Succeeded"})).await
    };
    let args = ["uninstall", RELEASE];
    let (gone, hooked) = tokio::join!(helm.ok(&args), hook);
    hooked?;
    gone.map(|_| ())
}

async fn lives(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let Some(directory) = helms()? else { return Ok(()) };
    let namespace = restricted(&cluster, "chart").await?;
    let three = Helm::new(&cluster, directory, "helm3", &namespace)?;
    let four = Helm::new(&cluster, directory, "helm4", &namespace)?;

    let notes = three.install(&[]).await?;
    ensure!(notes.contains(&format!("helm test {RELEASE} --namespace {namespace}")), "{notes}");
    ensure!(pods(&cluster, &namespace, 2).await? == ["controller"], "no runner by default");
    cluster
        .kubectl_ok(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "crd/healthchecks.healthcheck-operator.dev",
        ])
        .await?;
    let check = "{apiVersion: healthcheck-operator.dev/v1alpha1, kind: HealthCheck, metadata: {name: kept}, spec: {targets: [{name: a, host: 192.0.2.1, port: 80}]}}";
    cluster.apply(&namespace, check).await?;

    // No kubelet makes a new pod ready here, so the old ones go first. The other major takes the release over, and the runner passes Pod Security too.
    four.install(&["--set", "scripts.enabled=true,replicaCount=1,updateStrategy.type=Recreate"]).await?;
    ensure!(pods(&cluster, &namespace, 1).await? == ["runner", "controller"], "a runner beside the controller");

    // Uninstalled and installed again: CRD and checks are the user's.
    uninstall(&four, &cluster, &namespace).await?;
    pods(&cluster, &namespace, 0).await?;
    let left = cluster.kubectl_ok(&["get", "healthchecks", "--namespace", &namespace, "--output=name"]).await?;
    ensure!(left == "healthcheck.healthcheck-operator.dev/kept\n", "{left:?}");
    four.install(&[]).await?;
    pods(&cluster, &namespace, 2).await?;
    uninstall(&three, &cluster, &namespace).await?;
    let left = cluster.kubectl_ok(&["get", "healthchecks", "--namespace", &namespace, "--output=name"]).await?;
    ensure!(left == "healthcheck.healthcheck-operator.dev/kept\n", "{left:?}");
    Ok(())
}

/// A question: verb, group, resource (with subresource), namespace, and whether it is granted.
type Grant<'a> = (&'a str, &'a str, &'a str, &'a str, bool);

/// Whether the token's owner may: the API server's own answer.
async fn may(client: &Client, (verb, group, resource, namespace, _): Grant<'_>) -> anyhow::Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        namespace: Some(namespace.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()),
        verb: Some(verb.to_owned()),
        ..Default::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("a review without an answer")?.allowed)
}

async fn expect(cluster: &ControlPlane, namespace: &str, want: &[Grant<'_>]) -> anyhow::Result<()> {
    let client = cluster.client_as(&cluster.token(namespace, RELEASE).await?).await?;
    wait_until("the permissions to be as granted", SOON, || async {
        for grant in want {
            let found = may(&client, *grant).await?;
            ensure!(found == grant.4, "{grant:?}: {found}");
        }
        anyhow::Ok(())
    })
    .await
}

/// What `helm test` runs, with the release's own credentials: its exit code and what it printed.
async fn doctor(cluster: &ControlPlane, namespace: &str, told: &[(&str, &str)]) -> anyhow::Result<(i32, String)> {
    let config = cluster.kubeconfig(&cluster.token(namespace, RELEASE).await?, None)?;
    let mut command = operator::command("doctor").arg("--kubeconfig").arg(config).env("POD_NAMESPACE", namespace);
    for (name, value) in told {
        command = command.env(&format!("HEALTHCHECK_OPERATOR_{name}"), value);
    }
    let out = command.run(SOON).await?;
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok((out.status.code().context("the doctor was killed")?, said))
}

async fn permissions(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let Some(directory) = helms()? else { return Ok(()) };
    let namespace = cluster.namespace("granted").await?;
    let shop = cluster.namespace("shop").await?;
    let other = cluster.namespace("other").await?;
    let helm = Helm::new(&cluster, directory, "helm4", &namespace)?;
    let (home, shop, other) = (namespace.as_str(), shop.as_str(), other.as_str());

    helm.install(&[]).await?;
    let default = [
        ("watch", "healthcheck-operator.dev", "healthchecks", other, true),
        ("patch", "healthcheck-operator.dev", "healthchecks/status", other, true),
        ("patch", "healthcheck-operator.dev", "healthchecks", other, false),
        ("patch", "discovery.k8s.io", "endpointslices", other, true),
        ("create", "events.k8s.io", "events", other, true),
        ("get", "", "configmaps", other, true),
        ("get", "", "secrets", other, false),
        ("list", "", "secrets", home, false),
        ("create", "coordination.k8s.io", "leases", home, true),
        ("create", "coordination.k8s.io", "leases", other, false),
        ("update", "coordination.k8s.io", "leases", home, true),
        ("list", "coordination.k8s.io", "leases", home, false),
        ("get", "", "pods", home, true),
        ("get", "", "pods", other, false),
        ("create", "", "pods", home, false),
        ("create", "authentication.k8s.io", "tokenreviews", home, true),
    ];
    expect(&cluster, home, &default).await?;
    let (code, said) = doctor(&cluster, home, &[]).await?;
    ensure!(code == 0 && !said.contains("[-]"), "the doctor finds nothing missing: {said}");

    // What NOTES.txt tells a namespace's owner to run lets the operator read there, and there alone.
    let binding = [
        "create",
        "rolebinding",
        "healthcheck-operator-secrets",
        "--namespace",
        shop,
        "--clusterrole=healthcheck-operator-secret-reader",
        &format!("--serviceaccount={home}:{RELEASE}"),
    ];
    cluster.kubectl_ok(&binding).await?;
    let read = [
        ("get", "", "secrets", shop, true),
        ("list", "", "secrets", shop, false),
        ("get", "", "secrets", other, false),
    ];
    expect(&cluster, home, &read).await?;
    cluster.kubectl_ok(&["delete", "rolebinding", "healthcheck-operator-secrets", "--namespace", shop]).await?;

    let off = "features.annotations=false,features.endpointSlices=false,features.events=false";
    helm.install(&["--set", &format!("watchNamespaces={{{shop}}},{off}")]).await?;
    let narrowed = [
        ("watch", "healthcheck-operator.dev", "healthchecks", shop, true),
        ("watch", "healthcheck-operator.dev", "healthchecks", other, false),
        ("list", "", "pods", shop, true),
        ("list", "", "pods", other, false),
        ("list", "", "pods", home, true),
        ("watch", "discovery.k8s.io", "endpointslices", shop, true),
        ("patch", "discovery.k8s.io", "endpointslices", shop, false),
        ("create", "events.k8s.io", "events", shop, false),
        ("get", "", "secrets", shop, false),
        ("list", "discovery.k8s.io", "endpointslices", "default", true),
        ("watch", "discovery.k8s.io", "endpointslices", "default", false),
        ("watch", "", "nodes", other, true),
    ];
    expect(&cluster, home, &narrowed).await?;
    let told = [
        ("WATCH_NAMESPACE", shop),
        ("DISABLE_ANNOTATIONS", "true"),
        ("DISABLE_ENDPOINT_SLICES", "true"),
        ("DISABLE_EVENTS", "true"),
    ];
    let (code, said) = doctor(&cluster, home, &told).await?;
    ensure!(code == 0 && !said.contains("[-]"), "the doctor finds nothing missing: {said}");
    // And it does find what is: events were switched off, and it is not told.
    let (code, said) = doctor(&cluster, home, &told[..3]).await?;
    ensure!(code != 0 && said.contains("[-]") && said.contains("events"), "the doctor finds what is missing: {said}");
    Ok(())
}

//! What the chart grants is what the operator uses: nothing is missing, and nothing is granted in vain.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::chart::{Helm, helms};
use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::audit::{Entry, Mark};
use crate::support::control_plane::ControlPlane;
use crate::support::identity::Credentials;
use crate::support::netns::fresh_address;
use crate::support::operator::{self, Operator};
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// The release, its account and its lease.
const NAME: &str = "healthcheck-operator";

/// What is granted though the scenario need not use it, and why.
const SPARE: [(&str, &str, &str); 1] =
    [("get", "healthcheck-operator.dev/healthchecks", "read anew only after a write that met another's")];

/// What everybody who has signed in may do without the chart (`system:basic-user`).
const EVERYBODY: [(&str, &str); 1] = [("create", "authentication.k8s.io/selfsubjectreviews")];

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial_alone("grants::what_the_chart_grants_is_used_and_enough", true, |cluster| {
            grants(cluster, Shape::default())
        }),
        suite.trial_alone("grants::watching_one_namespace_too", true, |cluster| {
            grants(cluster, Shape { narrow: true, ..Shape::default() })
        }),
        suite.trial_alone("grants::without_gates_and_annotations_and_with_all_secrets_too", true, |cluster| {
            grants(cluster, Shape { no_gates: true, no_annotations: true, all_secrets: true, ..Shape::default() })
        }),
        suite.trial_alone("grants::without_events_too", true, |cluster| {
            grants(cluster, Shape { no_events: true, ..Shape::default() })
        }),
    ]
}

/// How a release differs from the default one.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    /// It watches one namespace only.
    narrow: bool,
    /// Neither kind of gate that writes.
    no_gates: bool,
    no_annotations: bool,
    no_events: bool,
    /// `rbac.secrets` is Cluster.
    all_secrets: bool,
}

impl Shape {
    /// As Helm takes it.
    fn values(self, tenant: &str) -> String {
        let values = [
            (true, "replicaCount=1,crds.enabled=false".to_owned()),
            (self.narrow, format!("watchNamespaces={{{tenant}}}")),
            (self.no_gates, "features.endpointSlices=false,features.podReadiness=false".to_owned()),
            (self.no_annotations, "features.annotations=false".to_owned()),
            (self.no_events, "features.events=false".to_owned()),
            (self.all_secrets, "rbac.secrets=Cluster".to_owned()),
        ];
        let values: Vec<_> = values.into_iter().filter(|(set, _)| *set).map(|(_, value)| value).collect();
        values.join(",")
    }

    /// Verb and resource of what only some shapes are granted, and whether this one is.
    const fn optional(self) -> [(&'static str, &'static str, bool); 7] {
        [
            ("patch", "discovery.k8s.io/endpointslices", !self.no_annotations || !self.no_gates),
            ("create", "discovery.k8s.io/endpointslices", !self.no_gates),
            ("delete", "discovery.k8s.io/endpointslices", !self.no_gates),
            ("patch", "/pods/status", !self.no_gates),
            ("create", "events.k8s.io/events", !self.no_events),
            ("patch", "events.k8s.io/events", !self.no_events),
            ("get", "/secrets", self.all_secrets),
        ]
    }
}

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    verb: String,
    /// `GROUP/RESOURCE` or `GROUP/RESOURCE/SUBRESOURCE`.
    resource: String,
    /// `None`: everywhere.
    namespace: Option<String>,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.verb, self.resource, self.namespace.as_deref().unwrap_or("any namespace"))
    }
}

impl Grant {
    /// Whether a request needs it.
    fn covers(&self, entry: &Entry) -> bool {
        let here = self.namespace.as_ref().is_none_or(|namespace| *namespace == entry.namespace);
        here && self.verb == entry.verb && self.resource == resource(entry)
    }
}

fn resource(entry: &Entry) -> String {
    let part = if entry.subresource.is_empty() { "" } else { "/" };
    format!("{}/{}{part}{}", entry.group, entry.resource, entry.subresource)
}

/// The permissions of some rules; a wildcard would be one that nothing matches, and so show up as unused.
fn permissions(rules: Vec<PolicyRule>, namespace: Option<&str>) -> Vec<Grant> {
    let mut grants = Vec::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                grants.extend(rule.verbs.iter().map(|verb| Grant {
                    verb: verb.clone(),
                    resource: format!("{group}/{resource}"),
                    namespace: namespace.map(ToOwned::to_owned),
                }));
            }
        }
    }
    grants
}

/// A release whose operator runs here, and a tenant's namespace.
struct Release {
    shape: Shape,
    stage: Stage,
    namespace: String,
    mark: Mark,
    operator: Operator,
    /// Answers at the address of the tenant's only pod.
    web: HttpTarget,
}

impl Release {
    async fn new(cluster: Arc<ControlPlane>, directory: &std::path::Path, shape: Shape) -> anyhow::Result<Self> {
        let stage = Stage::new(cluster.clone(), "tenant").await?;
        let namespace = cluster.namespace("release").await?;
        let pod = fresh_address();
        let web = HttpTarget::start_on((pod, free_port()).into()).await?;
        cluster.service(&stage.namespace, "shop", json!({"port": 80, "targetPort": web.port()})).await?;
        cluster.pod(&stage.namespace, "a", "shop", pod.into(), true).await?;
        cluster.wait_endpoints(&stage.namespace, "shop", &[(pod.into(), true)]).await?;

        Helm::new(&cluster, directory, "helm4", &namespace)?
            .install(&["--set", &shape.values(&stage.namespace)])
            .await?;
        let account = cluster.token(&namespace, NAME).await?;
        let mark = cluster.audit().mark()?;
        // The Deployment's pod is there, and no kubelet runs it: the operator takes its place.
        let command = operator::command("controller")
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig(&account, None)?)
            .args(["--egress-allow", "127.0.0.0/8,198.18.0.0/15", "--lease-name", NAME])
            .env("POD_NAME", own_pod(&cluster, &namespace).await?)
            .env("POD_NAMESPACE", &namespace);
        let operator = command.args(switches(&cluster, &namespace).await?).serve()?;
        stage.ready(&operator).await?;
        Ok(Self { shape, stage, namespace, mark, operator, web })
    }

    /// Has the operator do everything it ever does.
    async fn live(&self) -> anyhow::Result<()> {
        let (stage, cluster) = (&self.stage, &self.stage.cluster);
        let selector = json!({"matchLabels": {"app": "shop"}});
        let targets = [
            target("host", self.web.address()),
            json!({"name": "service", "service": {"name": "shop"}}),
            json!({"name": "pods", "pods": {"selector": selector}, "port": self.web.port()}),
        ];
        stage.apply("shop", fast(&targets)).await?;
        stage.wait_health("shop", "Healthy").await?;
        // The second of each word is told by the event of the first.
        for _ in 0..2 {
            self.web.set_status(500);
            stage.wait_health("shop", "Unhealthy").await?;
            self.web.set_status(200);
            stage.wait_health("shop", "Healthy").await?;
        }

        if self.shape.no_gates {
            self.ask_for_gates().await?;
        } else {
            self.gate().await?;
        }

        let authority = format!("--from-literal=ca.pem={}", cluster.ca_pem());
        stage.kubectl(&["create", "configmap", "authority", &authority]).await?;
        stage.kubectl(&["create", "secret", "generic", "token", "--from-literal=bearer=x"]).await?;
        let mut spec = fast(&[target("a", self.web.address())]);
        spec["probe"]["http"]["scheme"] = json!("HTTPS");
        spec["probe"]["http"]["tls"] = json!({"caRef": {"configMap": {"name": "authority", "key": "ca.pem"}}});
        stage.apply("map", spec).await?;
        stage.wait("map", "the authority to be read", |check| condition(check, "Ready") == "True/Accepted").await?;

        let mut spec = fast(&[target("a", self.web.address())]);
        let secret = json!({"secretKeyRef": {"name": "token", "key": "bearer"}});
        spec["probe"]["http"]["headers"] = json!([{"name": "X-Told", "valueFrom": secret}]);
        stage.apply("secret", spec).await?;
        if !self.shape.all_secrets {
            let refused = |check: &_| condition(check, "Ready") == "False/Forbidden";
            let check = stage.wait("secret", "the refusal", refused).await?;
            let told = message(&check, "Ready");
            let line = told.split("kubectl ").nth(1).with_context(|| told.clone())?;
            cluster.kubectl_ok(&line.split_whitespace().collect::<Vec<_>>()).await?;
        }
        stage.wait_health("secret", "Healthy").await?;

        // Somebody asks on the admin port: the stage's own account, who may do anything.
        let Credentials::Token(token) = &stage.account else { anyhow::bail!("not a token") };
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let url = format!("{}/v1/healthchecks", self.operator.admin_url());
        let answer = http.get(url).bearer_auth(token).send().await?;
        ensure!(answer.status() == 200, "{answer:?}");
        Ok(())
    }

    /// Has a gate that is switched off say so.
    async fn ask_for_gates(&self) -> anyhow::Result<()> {
        let stage = &self.stage;
        let mut spec = fast(&[target("a", self.web.address())]);
        spec["gates"] = json!([{"name": "traffic", "endpointSlice": {"service": "gated"}}]);
        stage.apply("gated", spec).await?;
        let off = |check: &_| condition(check, "GatesApplied") == "False/Forbidden";
        let check = stage.wait("gated", "the gate to be refused", off).await?;
        let told = message(&check, "GatesApplied");
        ensure!(told.contains("features.endpointSlices"), "{told}");
        Ok(())
    }

    /// Has gates write everything that they ever write.
    async fn gate(&self) -> anyhow::Result<()> {
        let (stage, cluster) = (&self.stage, &self.stage.cluster);
        // A gate makes slices, changes them and takes them away.
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gated"}, "spec": {"ports": [{"port": 80}]}});
        cluster.apply(&stage.namespace, &service.to_string()).await?;
        // Of a host of its own: one that all checks ask would be a correlated loss, and change nothing.
        let host = HttpTarget::start_on((fresh_address(), free_port()).into()).await?;
        let mut spec = fast(&[target("a", host.address())]);
        spec["gates"] = json!([{"name": "traffic", "endpointSlice": {"service": "gated"}, "whenBelow": "FailClosed"}]);
        stage.apply("gated", spec).await?;
        let gate = async |wanted: &'static str| {
            stage.wait("gated", wanted, |check| condition(check, "GatesApplied") == wanted).await
        };
        gate("True/Enforced").await?;
        host.set_status(500);
        gate("True/FailClosed").await?;
        host.set_status(200);
        gate("True/Enforced").await?;
        stage.apply("gated", fast(&[target("a", host.address())])).await?;
        wait_until("the slices to go", SOON, || async {
            let slices = cluster.slices(&stage.namespace, "gated").await?;
            ensure!(slices.is_empty(), "{slices:?}");
            anyhow::Ok(())
        })
        .await?;

        // Another sets a condition on a pod.
        cluster
            .apply(
                &stage.namespace,
                &json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "gated", "labels": {"app": "gated"}},
                    "spec": {
                        "readinessGates": [{"conditionType": "healthcheck-operator.dev/gated"}],
                        "containers": [{"name": "app", "image": "none.invalid/app"}],
                    },
                })
                .to_string(),
            )
            .await?;
        let mut spec = fast(&[target("a", self.web.address())]);
        let selector = json!({"matchLabels": {"app": "gated"}});
        let readiness = json!({"conditionType": "healthcheck-operator.dev/gated", "selector": selector});
        spec["gates"] = json!([{"name": "pods", "podReadiness": readiness}]);
        stage.apply("pods", spec).await?;
        stage.wait("pods", "the pod to be gated", |check| condition(check, "GatesApplied") == "True/Enforced").await?;
        Ok(())
    }

    /// What the account was asked to do since the start, discovery and the like aside.
    fn used(&self) -> anyhow::Result<Vec<Entry>> {
        let user = format!("system:serviceaccount:{}:{NAME}", self.namespace);
        let mut entries = self.stage.cluster.audit().since(self.mark)?;
        entries.retain(|entry| entry.user == user && !entry.resource.is_empty());
        Ok(entries)
    }

    /// What the account is granted, by every binding there is.
    async fn granted(&self) -> anyhow::Result<BTreeSet<Grant>> {
        let client = self.stage.cluster.client();
        let all = ListParams::default();
        let mut grants = Vec::new();
        for binding in Api::<ClusterRoleBinding>::all(client.clone()).list(&all).await? {
            if self.is_ours(binding.subjects.as_deref()) {
                grants.extend(permissions(self.rules(&binding.role_ref, "").await?, None));
            }
        }
        for binding in Api::<RoleBinding>::all(client).list(&all).await? {
            if self.is_ours(binding.subjects.as_deref()) {
                let namespace = binding.namespace().unwrap_or_default();
                grants.extend(permissions(self.rules(&binding.role_ref, &namespace).await?, Some(&namespace)));
            }
        }
        Ok(grants.into_iter().collect())
    }

    fn is_ours(&self, subjects: Option<&[Subject]>) -> bool {
        subjects
            .into_iter()
            .flatten()
            .any(|subject| subject.name == NAME && subject.namespace.as_deref() == Some(&self.namespace))
    }

    async fn rules(&self, role: &RoleRef, namespace: &str) -> anyhow::Result<Vec<PolicyRule>> {
        let client = self.stage.cluster.client();
        let rules = match role.kind.as_str() {
            "ClusterRole" => Api::<ClusterRole>::all(client).get(&role.name).await?.rules,
            _ => Api::<Role>::namespaced(client, namespace).get(&role.name).await?.rules,
        };
        Ok(rules.unwrap_or_default())
    }
}

/// The pod that the Deployment has made.
async fn own_pod(cluster: &ControlPlane, namespace: &str) -> anyhow::Result<String> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    wait_until("the Deployment's pod", SOON, || async {
        let pods = api.list(&ListParams::default()).await?.items;
        Ok::<_, anyhow::Error>(pods.first().context("no pod")?.name_any())
    })
    .await
}

/// The arguments of the Deployment that follow from what it is to do and what not.
async fn switches(cluster: &ControlPlane, namespace: &str) -> anyhow::Result<Vec<String>> {
    let deployment = Api::<Deployment>::namespaced(cluster.client(), namespace).get(NAME).await?;
    let spec = deployment.spec.and_then(|spec| spec.template.spec).context("no pod template")?;
    let args: Vec<_> = spec.containers.into_iter().flat_map(|container| container.args.unwrap_or_default()).collect();
    let ours = |arg: &String| ["--disable-", "--watch-namespace"].iter().any(|start| arg.starts_with(start));
    Ok(args.into_iter().filter(ours).collect())
}

async fn grants(cluster: Arc<ControlPlane>, shape: Shape) -> anyhow::Result<()> {
    let Some(directory) = helms()? else { return Ok(()) };
    cluster.install_crds().await?;
    let release = Release::new(cluster, directory, shape).await?;
    release.live().await?;
    let granted = release.granted().await?;
    for (verb, resource, wanted) in shape.optional() {
        // A Secret's reader of one namespace was granted by the tenant, not by the chart.
        let theirs = |grant: &&Grant| grant.resource == "/secrets" && grant.namespace.is_some();
        let mut charts = granted.iter().filter(|grant| !theirs(grant));
        let found = charts.any(|grant| grant.verb == verb && grant.resource == resource);
        ensure!(found == wanted, "{verb} {resource}: granted is {found}, wanted {wanted}");
    }

    let unused = |used: &[Entry]| -> Vec<Grant> {
        let needs = |grant: &&Grant| used.iter().any(|entry| needed(&granted, grant, entry));
        granted.iter().filter(|grant| !needs(grant)).cloned().collect()
    };
    // Entries follow their answers, and a lease is renewed only after a while.
    wait_until("everything granted to be used", SOON, || async {
        let vain: Vec<String> =
            unused(&release.used()?).iter().filter(|grant| !is_spare(grant)).map(Grant::to_string).collect();
        ensure!(vain.is_empty(), "granted in vain: {vain:#?}");
        anyhow::Ok(())
    })
    .await?;
    for (verb, resource, why) in SPARE {
        let there = granted.iter().any(|grant| grant.verb == verb && grant.resource == resource);
        ensure!(there, "{verb} {resource} ({why}) is granted no longer: take it off the list");
    }

    let used = release.used()?;
    let beyond: BTreeSet<String> = used
        .iter()
        .filter(|entry| !granted.iter().any(|grant| grant.covers(entry)))
        .filter(|entry| !EVERYBODY.contains(&(&entry.verb, &resource(entry))))
        .map(|entry| format!("{} {} in '{}': {}", entry.verb, resource(entry), entry.namespace, entry.code))
        .collect();
    ensure!(beyond.is_empty(), "used and not granted: {beyond:#?}");
    // Refused is only the Secret that was not granted at first.
    let excused = |entry: &Entry| entry.resource == "secrets" && !shape.all_secrets;
    let refused: Vec<_> = used.iter().filter(|entry| entry.code == 403 && !excused(entry)).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let status = release.operator.process().stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Whether `entry` is a reason to have `grant`: what a namespace grants need not be granted everywhere.
fn needed(granted: &BTreeSet<Grant>, grant: &Grant, entry: &Entry) -> bool {
    let narrower = |other: &Grant| grant.namespace.is_none() && other.namespace.is_some() && other.covers(entry);
    grant.covers(entry) && !granted.iter().any(narrower)
}

fn is_spare(grant: &Grant) -> bool {
    SPARE.iter().any(|(verb, resource, _)| grant.verb == *verb && grant.resource == *resource)
}

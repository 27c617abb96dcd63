//! The `podReadiness` gate: what of the verdicts arrives in the conditions of pods.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::audit::{Entry, Mark};
use crate::support::control_plane::{ControlPlane, NODE};
use crate::support::netns::fresh_address;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

const CHECK: &str = "web";
/// The port of every pod: each has an address of its own.
const PORT: u16 = 8080;
pub const TYPE: &str = "healthcheck-operator.dev/web";

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("pod_gates::each_pod_follows_its_own_verdict", follow),
        suite.trial("pod_gates::a_pod_without_the_gate_is_left_alone_and_told", bare),
        suite.trial("pod_gates::what_somebody_changes_is_put_back", put_back),
        suite.trial("pod_gates::with_a_selector_all_pods_follow_the_check", selector),
        suite.trial("pod_gates::an_edit_and_a_removal_release", release),
        suite.trial("pod_gates::a_dry_run_lets_go_and_lets_new_pods_in", dry_run),
        suite.trial("pod_gates::a_suspended_check_keeps_what_is_held_and_lets_new_pods_in", suspended),
        suite.trial("pod_gates::what_lost_its_check_while_nobody_looked_is_released", orphans),
        suite.trial("pod_gates::the_older_of_two_checks_holds_a_pod", two),
    ]
}

/// Pods that answer, each with the gate in its spec.
pub struct Web {
    pub stage: Stage,
    pub pods: Vec<HttpTarget>,
}

impl Web {
    pub async fn new(cluster: Arc<ControlPlane>, test: &str, pods: usize) -> anyhow::Result<Self> {
        let mut web = Self { stage: Stage::new(cluster, test).await?, pods: vec![] };
        for _ in 0..pods {
            web.add(true).await?;
        }
        Ok(web)
    }

    /// One more pod, named after its number.
    async fn add(&mut self, gated: bool) -> anyhow::Result<()> {
        let address = fresh_address();
        self.pods.push(HttpTarget::start_on((address, PORT).into()).await?);
        let name = format!("web-{}", self.pods.len() - 1);
        self.pod(&name, address, gated).await
    }

    async fn pod(&self, name: &str, address: Ipv4Addr, gated: bool) -> anyhow::Result<()> {
        let gates = if gated { json!([{"conditionType": TYPE}]) } else { json!([]) };
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": NODE,
                "terminationGracePeriodSeconds": 0,
                "readinessGates": gates,
                "containers": [{"name": "app", "image": "none.invalid/app"}],
            },
        }))?;
        self.api().create(&PostParams::default(), &pod).await?;
        let conditions = json!([
            {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"},
            {"type": "ContainersReady", "status": "True"},
        ]);
        let status = json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
        });
        self.stage.cluster.pod_status(&self.stage.namespace, name, status).await.map(|_| ())
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.stage.cluster.client(), &self.stage.namespace)
    }

    /// A check of the pods, with one gate that says `more`.
    pub fn spec(&self, more: Value) -> Value {
        let selector = json!({"matchLabels": {"app": "web"}});
        let mut spec = fast(&[json!({"name": "pods", "pods": {"selector": selector}, "port": PORT})]);
        let mut gate = json!({"name": "traffic", "podReadiness": {"conditionType": TYPE}});
        gate.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec["gates"] = json!([gate]);
        spec
    }

    /// What the condition of each pod says: status and reason.
    async fn said(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pods = self.api().list(&ListParams::default()).await?.items;
        let of = |pod: &Pod| {
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let ours = conditions.filter(|condition| condition.type_ == TYPE);
            ours.map(|it| format!("{}/{}", it.status, it.reason.as_deref().unwrap_or_default())).collect()
        };
        Ok(pods.iter().map(|pod| (pod.name_any(), of(pod))).collect())
    }

    /// Waits until the conditions of the pods are these, in order.
    pub async fn wait_said(&self, wanted: &[&str]) -> anyhow::Result<()> {
        wait_until(&format!("the pods to say {wanted:?}"), SOON, || async {
            let said = self.said().await?;
            ensure!(said.values().eq(wanted), "{said:?}, wanted {wanted:?}");
            anyhow::Ok(())
        })
        .await
    }

    async fn wait_condition(&self, name: &str, wanted: &str) -> anyhow::Result<HealthCheck> {
        let what = format!("GatesApplied of {name} to be {wanted}");
        self.stage.wait(name, &what, |check| condition(check, "GatesApplied") == wanted).await
    }

    /// Lets every pod be asked a few times more.
    async fn live(&self) -> anyhow::Result<()> {
        for pod in &self.pods {
            pod.wait_hits(5, SOON).await?;
        }
        Ok(())
    }

    fn mark(&self) -> anyhow::Result<Mark> {
        self.stage.cluster.audit().mark()
    }

    /// The operator's writes to pods since then.
    fn writes(&self, since: Mark) -> anyhow::Result<Vec<Entry>> {
        let mut writes = self.stage.cluster.audit().writes_by(&self.stage.user(), since)?;
        writes.retain(|entry| entry.resource == "pods");
        Ok(writes)
    }
}

fn gate(check: &HealthCheck) -> Value {
    json!(check.status.as_ref().and_then(|status| status.gates.first()))
}

async fn follow(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let mut web = Web::new(cluster, "podfollow", 2).await?;
    let mark = web.mark()?;
    let operator = web.stage.operator("hco-0").await?;
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "True/Admitted"]).await?;
    web.wait_condition(CHECK, "True/Enforced").await?;
    web.pods[1].set_status(500);
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    web.stage.wait(CHECK, "the status to follow", |check| gate(check)["publishedReady"] == 1).await?;
    // A new pod joins by its own first verdict.
    web.add(true).await?;
    web.wait_said(&["True/Admitted", "False/Withheld", "True/Admitted"]).await?;
    web.pods[1].set_status(200);
    web.wait_said(&["True/Admitted", "True/Admitted", "True/Admitted"]).await?;
    // The last one stays by the floor, whatever it says.
    for pod in &web.pods {
        pod.set_status(500);
    }
    web.wait_condition(CHECK, "True/FailOpen").await?;
    web.wait_said(&["True/Admitted", "True/Admitted", "True/Admitted"]).await?;
    for pod in &web.pods {
        pod.set_status(200);
    }
    // They come back one by one, and those that have changed too often wait.
    web.stage.wait(CHECK, "all to be desired", |check| gate(check)["desiredReady"] == 3).await?;
    web.wait_condition(CHECK, "True/Enforced").await?;
    web.wait_said(&["True/Admitted", "True/Admitted", "True/Admitted"]).await?;
    // Whatever was written was our condition: never Ready, and with the version it was computed from.
    let written = web.writes(mark)?;
    ensure!(!written.is_empty());
    for entry in written {
        ensure!((entry.verb.as_str(), entry.subresource.as_str()) == ("patch", "status"), "{}", entry.raw);
        let body = &entry.raw["requestObject"];
        ensure!(body["metadata"]["resourceVersion"].is_string(), "{body}");
        let conditions = body["status"]["conditions"].as_array().context("conditions")?;
        ensure!(conditions.len() == 1 && conditions[0]["type"] == TYPE, "{body}");
    }
    // A restart changes nothing.
    let mark = web.mark()?;
    operator.process().kill()?;
    let _operator = web.stage.operator("hco-0").await?;
    web.live().await?;
    web.live().await?;
    ensure!(web.writes(mark)?.is_empty(), "{:?}", web.writes(mark)?);
    Ok(())
}

async fn bare(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let mut web = Web::new(cluster, "podbare", 0).await?;
    web.add(false).await?;
    let mark = web.mark()?;
    let _operator = web.stage.operator("hco-0").await?;
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    let check = web.wait_condition(CHECK, "False/NotFound").await?;
    let told = message(&check, "GatesApplied");
    ensure!(told.contains("web-0") && told.contains("readinessGates"), "{told}");
    web.stage.wait_health(CHECK, "Healthy").await?;
    ensure!(web.writes(mark)?.is_empty(), "{:?}", web.writes(mark)?);
    // Beside one that has it, it is told all the same.
    web.add(true).await?;
    web.wait_said(&["", "True/Admitted"]).await?;
    let check = web.wait_condition(CHECK, "True/Enforced").await?;
    let told = message(&check, "GatesApplied");
    ensure!(told.contains("web-0") && !told.contains("web-1"), "{told}");
    web.pods[1].set_status(500);
    web.wait_condition(CHECK, "True/FailOpen").await?;
    web.wait_said(&["", "True/Admitted"]).await
}

async fn put_back(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster.clone(), "podback", 2).await?;
    let _operator = web.stage.operator("hco-0").await?;
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.pods[1].set_status(500);
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    web.wait_condition(CHECK, "True/Enforced").await?;
    let mark = web.mark()?;
    web.live().await?;
    ensure!(web.writes(mark)?.is_empty(), "{:?}", web.writes(mark)?);
    for (pod, status) in [("web-0", "False"), ("web-1", "True")] {
        let status = json!({"conditions": [{"type": TYPE, "status": status, "reason": "ByHand"}]});
        cluster.pod_status(&web.stage.namespace, pod, status).await?;
    }
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    wait_until("one write to each", SOON, || async {
        let mut names: Vec<_> = web.writes(mark)?.into_iter().filter(|it| it.code == 200).map(|it| it.name).collect();
        names.sort();
        ensure!(names == ["web-0", "web-1"], "{names:?}");
        anyhow::Ok(())
    })
    .await
}

async fn selector(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster, "podselector", 2).await?;
    let _operator = web.stage.operator("hco-0").await?;
    // They all need something else.
    let database = HttpTarget::start_on((fresh_address(), PORT).into()).await?;
    let mut spec = fast(&[target("database", database.address())]);
    let selector = json!({"matchLabels": {"app": "web"}});
    spec["gates"] = json!([{"name": "traffic", "podReadiness": {"conditionType": TYPE, "selector": selector}}]);
    web.stage.apply(CHECK, spec).await?;
    web.wait_said(&["True/Admitted", "True/Admitted"]).await?;
    database.set_status(500);
    web.wait_said(&["False/Withheld", "False/Withheld"]).await?;
    web.wait_condition(CHECK, "True/Enforced").await?;
    web.stage.wait(CHECK, "none to be published", |check| gate(check)["publishedReady"] == 0).await?;
    database.set_status(200);
    web.wait_said(&["True/Admitted", "True/Admitted"]).await
}

async fn release(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster.clone(), "podrelease", 2).await?;
    let _operator = web.stage.operator("hco-0").await?;
    let held = ["True/Admitted", "False/Withheld"];
    let released = ["True/Released", "True/Released"];
    web.pods[1].set_status(500);
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&held).await?;
    // The gate goes.
    let mut without = web.spec(json!({}));
    without.as_object_mut().context("an object")?.remove("gates");
    web.stage.apply(CHECK, without).await?;
    web.wait_said(&released).await?;
    // A pod is a target no more.
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&held).await?;
    web.stage.kubectl(&["label", "--overwrite", "pod", "web-1", "app=other"]).await?;
    web.wait_said(&["True/Admitted", "True/Released"]).await?;
    web.stage.kubectl(&["label", "--overwrite", "pod", "web-1", "app=web"]).await?;
    web.wait_said(&held).await?;
    // The check goes.
    web.stage.checks().delete(CHECK, &DeleteParams::default()).await?;
    web.wait_said(&released).await
}

async fn dry_run(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let mut web = Web::new(cluster, "poddry", 2).await?;
    let _operator = web.stage.operator("hco-0").await?;
    web.pods[1].set_status(500);
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    web.stage.apply(CHECK, web.spec(json!({"mode": "DryRun"}))).await?;
    web.wait_said(&["True/Released", "True/Released"]).await?;
    web.wait_condition(CHECK, "True/DryRun").await?;
    // A new one waits for a condition, whoever only shows what it would be; and what it would be changes nothing.
    web.add(true).await?;
    web.wait_said(&["True/Released", "True/Released", "True/Released"]).await?;
    web.pods[2].set_status(500);
    let would = |check: &HealthCheck| gate(check)["desiredReady"] == 1;
    let check = web.stage.wait(CHECK, "two of three to be withheld in earnest", would).await?;
    ensure!(gate(&check)["effective"] == "DryRun", "{}", gate(&check));
    web.wait_said(&["True/Released", "True/Released", "True/Released"]).await?;
    // In earnest it takes them out.
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "False/Withheld", "False/Withheld"]).await
}

async fn suspended(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let mut web = Web::new(cluster, "podsuspended", 2).await?;
    let _operator = web.stage.operator("hco-0").await?;
    web.pods[1].set_status(500);
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    let mut spec = web.spec(json!({}));
    spec["suspend"] = json!(true);
    web.stage.apply(CHECK, spec).await?;
    web.stage.wait_health(CHECK, "Unknown").await?;
    // A maintenance is no outage: what was held is held, and a rolling update does not hang.
    web.add(true).await?;
    web.wait_said(&["True/Admitted", "False/Withheld", "True/Released"]).await?;
    web.pods[2].set_status(500);
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "False/Withheld", "False/Withheld"]).await
}

async fn orphans(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster.clone(), "podorphans", 2).await?;
    let operator = web.stage.operator("hco-0").await?;
    web.pods[1].set_status(500);
    web.stage.apply(CHECK, web.spec(json!({}))).await?;
    web.wait_said(&["True/Admitted", "False/Withheld"]).await?;
    operator.process().kill()?;
    web.stage.checks().delete(CHECK, &DeleteParams::default()).await?;
    // No check refers to pods of this namespace any more.
    let _operator = web.stage.operator("hco-0").await?;
    web.wait_said(&["True/Released", "True/Released"]).await
}

async fn two(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let web = Web::new(cluster.clone(), "podtwo", 1).await?;
    let _operator = web.stage.operator("hco-0").await?;
    web.stage.apply("older", web.spec(json!({}))).await?;
    web.wait_condition("older", "True/Enforced").await?;
    // Times of the API server have no fraction: within one second the lower UID would decide.
    let created = web.stage.get("older").await?.creation_timestamp().context("a time")?.0;
    wait_until("another second", SOON, || async {
        ensure!(jiff::Timestamp::now().as_second() > created.as_second());
        anyhow::Ok(())
    })
    .await?;
    web.stage.apply("younger", web.spec(json!({}))).await?;
    let check = web.wait_condition("younger", "False/Conflict").await?;
    ensure!(message(&check, "GatesApplied").contains("'older'"), "{}", message(&check, "GatesApplied"));
    web.stage.checks().delete("older", &DeleteParams::default()).await?;
    web.wait_condition("younger", "True/Enforced").await?;
    web.wait_said(&["True/Admitted"]).await
}

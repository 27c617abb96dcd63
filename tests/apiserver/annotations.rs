//! The annotation on the EndpointSlices of `service` targets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, fast};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

const PREFIX: &str = "healthcheck-operator.dev/";

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("annotations::follow_the_verdict_and_are_put_back", put_back),
        suite.trial("annotations::go_with_the_check_the_target_and_the_switch", taken_away),
        suite.trial("annotations::orphans_are_found_at_the_start", orphans),
        suite.trial("annotations::are_not_written_when_disabled", disabled),
    ]
}

/// A Service with one pod that answers, and a check of it.
struct Shop {
    stage: Stage,
    pod: Ipv4Addr,
    web: HttpTarget,
}

impl Shop {
    async fn new(cluster: Arc<ControlPlane>, test: &str) -> anyhow::Result<Self> {
        let stage = Stage::new(cluster.clone(), test).await?;
        let pod = fresh_address();
        let web = HttpTarget::start_on((pod, free_port()).into()).await?;
        let port = json!({"name": "http", "port": 80, "targetPort": web.port()});
        cluster.service(&stage.namespace, "shop", port).await?;
        cluster.pod(&stage.namespace, "a", "shop", pod.into(), true).await?;
        cluster.wait_endpoints(&stage.namespace, "shop", &[(pod.into(), true)]).await?;
        Ok(Self { stage, pod, web })
    }

    fn spec() -> Value {
        fast(&[json!({"name": "svc", "service": {"name": "shop"}})])
    }

    fn api(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.stage.cluster.client(), &self.stage.namespace)
    }

    /// What each slice of the Service says of the check.
    async fn values(&self, check: &str) -> anyhow::Result<Vec<Option<Value>>> {
        let slices = self.stage.cluster.slices(&self.stage.namespace, "shop").await?;
        let key = format!("{PREFIX}{check}");
        slices
            .iter()
            .map(|slice| slice.annotations().get(&key).map(|text| Ok(serde_json::from_str(text)?)).transpose())
            .collect()
    }

    /// Waits until every slice says `health` of the check.
    async fn wait(&self, check: &str, health: &str) -> anyhow::Result<Value> {
        wait_until(&format!("slices to say {health}"), SOON, || async {
            let values = self.values(check).await?;
            let good = |value: &Option<Value>| value.as_ref().is_some_and(|value| value["health"] == health);
            ensure!(!values.is_empty() && values.iter().all(good), "{values:?}");
            values.into_iter().flatten().next().context("none")
        })
        .await
    }

    async fn wait_none(&self, check: &str) -> anyhow::Result<()> {
        wait_until("slices to say nothing", SOON, || async {
            let values = self.values(check).await?;
            ensure!(values.iter().all(Option::is_none), "{values:?}");
            anyhow::Ok(())
        })
        .await
    }

    async fn annotate(&self, name: &str, value: Option<&str>) -> anyhow::Result<()> {
        for slice in self.stage.cluster.slices(&self.stage.namespace, "shop").await? {
            let patch = json!({"metadata": {"annotations": {format!("{PREFIX}{name}"): value}}});
            self.api().patch(&slice.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(())
    }
}

/// Prints how long an annotation was away.
fn told(what: &str, begun: Instant) {
    println!("annotation {what}: back after {:.2} s, bound 2 s", begun.elapsed().as_secs_f32());
}

async fn put_back(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "annotated").await?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply("shop", Shop::spec()).await?;
    let value = shop.wait("shop", "Healthy").await?;
    ensure!(value["summary"] == "1/1" && value.get("unhealthy").is_none(), "{value}");

    shop.web.set_status(503);
    let value = shop.wait("shop", "Unhealthy").await?;
    let failing = json!({format!("{}:{}", shop.pod, shop.web.port()): "UnexpectedStatus"});
    ensure!(value["summary"] == "0/1" && value["unhealthy"] == failing, "{value}");
    ensure!(value["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{value}");

    // Somebody drops it. It is back within 2 s (`api.md`); how long it took here is told, and asserted only widely.
    let begun = Instant::now();
    shop.annotate("shop", None).await?;
    shop.wait("shop", "Unhealthy").await?;
    told("dropped", begun);
    // Somebody writes something else over it.
    let begun = Instant::now();
    shop.annotate("shop", Some(r#"{"health":"Healthy","summary":"9/9"}"#)).await?;
    shop.wait("shop", "Unhealthy").await?;
    told("overwritten", begun);
    // The slice is deleted, and made anew by its own controller.
    let begun = Instant::now();
    for slice in cluster.slices(&shop.stage.namespace, "shop").await? {
        shop.api().delete(&slice.name_any(), &DeleteParams::default()).await?;
    }
    shop.wait("shop", "Unhealthy").await?;
    told("lost with its slice", begun);
    // The controller changes the slice.
    let more = fresh_address();
    let second = HttpTarget::start_on((more, shop.web.port()).into()).await?;
    cluster.pod(&shop.stage.namespace, "b", "shop", more.into(), true).await?;
    shop.web.set_status(200);
    second.wait_hits(1, SOON).await?;
    let value = shop.wait("shop", "Healthy").await?;
    wait_until("both endpoints", SOON, || async {
        let values = shop.values("shop").await?;
        ensure!(values.iter().flatten().all(|value| value["summary"] == "2/2"), "{value}");
        anyhow::Ok(())
    })
    .await?;

    // Written on transitions only: none while probes go on and nothing changes.
    let mark = cluster.audit().mark()?;
    shop.web.wait_hits(15, SOON).await?;
    let writes = cluster.audit().writes_by(&shop.stage.user(), mark)?;
    let writes: Vec<_> = writes.iter().filter(|entry| entry.resource == "endpointslices").collect();
    ensure!(writes.is_empty(), "{writes:?}");
    Ok(())
}

async fn taken_away(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "taken").await?;
    let _operator = shop.stage.operator("hco-0").await?;
    // Another check of the same Service, which must not lose its own.
    shop.stage.apply("other", Shop::spec()).await?;
    shop.wait("other", "Healthy").await?;

    shop.stage.apply("shop", Shop::spec()).await?;
    shop.wait("shop", "Healthy").await?;
    let mut off = Shop::spec();
    off["annotations"] = json!("Off");
    shop.stage.apply("shop", off).await?;
    shop.wait_none("shop").await?;

    shop.stage.apply("shop", Shop::spec()).await?;
    shop.wait("shop", "Healthy").await?;
    let elsewhere = json!({"name": "svc", "host": shop.pod.to_string(), "port": shop.web.port()});
    shop.stage.apply("shop", fast(&[elsewhere])).await?;
    shop.wait_none("shop").await?;

    shop.stage.apply("shop", Shop::spec()).await?;
    shop.wait("shop", "Healthy").await?;
    shop.stage.checks().delete("shop", &DeleteParams::default()).await?;
    shop.wait_none("shop").await?;
    shop.wait("other", "Healthy").await?;

    // The last one too, though nobody refers to the Service any more.
    shop.stage.checks().delete("other", &DeleteParams::default()).await?;
    shop.wait_none("other").await
}

async fn orphans(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "orphans").await?;
    let left = r#"{"health":"Unhealthy","summary":"0/1","since":"2026-01-01T00:00:00Z"}"#;
    shop.annotate("long-gone", Some(left)).await?;
    shop.annotate("not-ours", Some("yes")).await?;
    // No check refers to the Service at all.
    let _operator = shop.stage.operator("hco-0").await?;
    shop.wait_none("long-gone").await?;
    let kept = shop.stage.cluster.slices(&shop.stage.namespace, "shop").await?;
    let key = format!("{PREFIX}not-ours");
    ensure!(kept.iter().all(|slice| slice.annotations().contains_key(&key)), "what is not ours stays");
    Ok(())
}

async fn disabled(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "disabled").await?;
    let command = shop.stage.command("hco-0", None)?.args(["--disable-annotations", "--disable-events"]);
    let _operator = shop.stage.serve(command).await?;
    shop.stage.apply("shop", Shop::spec()).await?;
    shop.stage.wait_health("shop", "Healthy").await?;
    shop.web.set_status(500);
    shop.stage.wait_health("shop", "Unhealthy").await?;
    shop.web.wait_hits(10, SOON).await?;
    ensure!(shop.values("shop").await?.iter().all(Option::is_none), "annotated all the same");
    ensure!(shop.stage.events("shop").await?.is_empty(), "events all the same");
    Ok(())
}

//! What goes on when only a part of the API answers, and what is told of it.

use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::fault_proxy::{Fault, FaultProxy, Match};
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("mends::a_secret_that_cannot_be_asked_for_is_used_on", secret),
        suite.trial("mends::an_object_that_cannot_be_decided_yet_says_so", undecided),
        suite.trial("mends::an_annotation_is_asked_about_until_there_is_an_answer", annotation),
        suite.trial("mends::an_orphaned_annotation_is_taken_away_once_the_api_answers", orphan),
        suite.trial("mends::a_suspension_is_no_warning", suspended),
        suite.trial("mends::nothing_is_probed_before_the_nodes_are_known", nodes),
    ]
}

/// The API server answers nothing but this.
fn away() -> Fault {
    Fault::Answer { status: 503, retry_after: None }
}

async fn secret(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "secret-away").await?;
    let web = HttpTarget::start().await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    let mut spec = fast(&[target("a", web.address())]);
    let reference = json!({"secretKeyRef": {"name": "token", "key": "bearer"}});
    spec["probe"]["http"]["headers"] = json!([{"name": "Authorization", "valueFrom": reference}]);
    stage.apply("web", spec).await?;
    let told = stage.wait("web", "the field", |check| condition(check, "Ready") == "False/InvalidReference").await?;
    let told = message(&told, "Ready");
    ensure!(told.starts_with("spec.probe.http.headers[0].valueFrom.secretKeyRef: "), "{told}");
    stage.kubectl(&["create", "secret", "generic", "token", "--from-literal=bearer=x"]).await?;
    stage.wait_health("web", "Healthy").await?;
    let record = stage.record().await?;
    let rule = proxy.inject(Match::verb("get").resource("secrets").namespace(&stage.namespace), away());
    wait_until("the Secret to be asked for three times in vain", SOON, || async {
        ensure!(rule.hits() >= 3, "{} times", rule.hits());
        anyhow::Ok(())
    })
    .await?;
    web.wait_hits(10, SOON).await?;
    ensure!(record.history("web", health)? == ["Healthy"], "{:?}", record.history("web", health)?);
    let ready = record.history("web", |check| condition(check, "Ready"))?;
    ensure!(ready.last().is_some_and(|ready| ready == "True/Accepted"), "{ready:?}");
    Ok(())
}

async fn undecided(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "undecided").await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    let rules: Vec<_> = ["list", "watch"]
        .map(|verb| proxy.inject(Match::verb(verb).resource("services").namespace(&stage.namespace), away()))
        .into();
    let pod = fresh_address();
    let web = HttpTarget::start_on((pod, free_port()).into()).await?;
    let port = json!({"name": "http", "port": 80, "targetPort": web.port()});
    cluster.service(&stage.namespace, "shop", port).await?;
    cluster.pod(&stage.namespace, "a", "shop", pod.into(), true).await?;
    stage.apply("shop", fast(&[json!({"name": "svc", "service": {"name": "shop"}})])).await?;
    let check = stage.wait("shop", "nothing decided", |check| condition(check, "Ready") == "Unknown/Pending").await?;
    ensure!(condition(&check, "Healthy") == "Unknown/Pending", "{:?}", check.status);
    ensure!(check.status.is_some_and(|status| status.observed_at.is_none()), "observed though nothing was");
    // Nobody takes its absence for health, for it is there.
    let spec = fast(&[json!({"name": "svc", "service": {"name": "shop"}})]);
    stage.apply("brief", spec).await?;
    for name in ["shop", "brief"] {
        let path = format!("/healthz/{}/{name}?verbose", stage.namespace);
        let answer = operator.wait_get(&path, SOON, |answer| answer.status == 503).await?;
        ensure!(answer.body.contains("cannot be listed"), "{}", answer.body);
    }
    let all = operator.get("/healthz").await?;
    ensure!(all.status == 503, "{all:?}");
    // It goes with its object, though it was never decided.
    stage.checks().delete("brief", &DeleteParams::default()).await?;
    let path = format!("/healthz/{}/brief", stage.namespace);
    operator.wait_get(&path, SOON, |answer| answer.status == 404).await?;
    drop(rules);
    let check = stage.wait_health("shop", "Healthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    Ok(())
}

async fn annotation(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "annotation").await?;
    let pod = fresh_address();
    let web = HttpTarget::start_on((pod, free_port()).into()).await?;
    let port = json!({"name": "http", "port": 80, "targetPort": web.port()});
    cluster.service(&stage.namespace, "shop", port).await?;
    cluster.pod(&stage.namespace, "a", "shop", pod.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(pod.into(), true)]).await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    let spec = fast(&[json!({"name": "svc", "service": {"name": "shop"}})]);
    // The other one keeps the slices watched.
    stage.apply("other", spec.clone()).await?;
    stage.apply("shop", spec).await?;
    let annotated = async |wanted: bool| {
        wait_until(&format!("annotated: {wanted}"), SOON, || async {
            let slices = cluster.slices(&stage.namespace, "shop").await?;
            let key = "healthcheck-operator.dev/shop";
            let has = |slice: &k8s_openapi::api::discovery::v1::EndpointSlice| slice.annotations().contains_key(key);
            ensure!(!slices.is_empty() && slices.iter().all(|slice| has(slice) == wanted), "{slices:?}");
            anyhow::Ok(())
        })
        .await
    };
    annotated(true).await?;
    // The first two answers to the question whether the check is really gone are lost.
    let asked = Match::verb("get").resource("healthchecks").namespace(&stage.namespace).name("shop");
    let rule = proxy.inject_times(2, asked, away());
    stage.checks().delete("shop", &DeleteParams::default()).await?;
    annotated(false).await?;
    ensure!(rule.hits() == 2, "the question was lost {} times", rule.hits());
    Ok(())
}

async fn orphan(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "orphan").await?;
    let value = r#"{"health":"Unhealthy","summary":"0/1","since":"2026-01-01T00:00:00Z"}"#;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": [],
        "metadata": {
            "name": "shop", "labels": {"kubernetes.io/service-name": "shop"},
            "annotations": {"healthcheck-operator.dev/long-gone": value},
        },
    });
    cluster.apply(&stage.namespace, &slice.to_string()).await?;
    let proxy = FaultProxy::start(&cluster).await?;
    // Each of the three questions that lead there comes to nothing once.
    let lost = [
        Match::verb("list").resource("endpointslices").namespace(&stage.namespace),
        Match::verb("get").resource("healthchecks").namespace(&stage.namespace).name("long-gone"),
        Match::verb("patch").resource("endpointslices").namespace(&stage.namespace),
    ]
    .map(|which| proxy.inject_times(1, which, away()));
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    wait_until("the annotation to go", SOON, || async {
        let slices = cluster.slices(&stage.namespace, "shop").await?;
        ensure!(!slices.is_empty() && slices.iter().all(|slice| slice.annotations().len() < 2), "{slices:?}");
        anyhow::Ok(())
    })
    .await?;
    let hits: Vec<_> = lost.iter().map(|rule| rule.hits()).collect();
    ensure!(hits == [1, 1, 1], "{hits:?}");
    Ok(())
}

async fn suspended(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "suspended").await?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[target("a", web.address())]);
    stage.apply("web", spec.clone()).await?;
    stage.wait_health("web", "Healthy").await?;
    spec["suspend"] = json!(true);
    stage.apply("web", spec).await?;
    let api: Api<Event> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let event = wait_until("the event", SOON, || async {
        let events = api.list(&ListParams::default()).await?.items;
        let found = events.into_iter().find(|event| event.reason.as_deref() == Some("UnknownSuspended"));
        found.context("no event of a suspension")
    })
    .await?;
    ensure!(event.type_.as_deref() == Some("Normal"), "{event:?}");
    Ok(())
}

async fn nodes(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "nodes").await?;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let hold = proxy.inject(Match::verb("list").resource("nodes"), Fault::Delay(SOON));
    let operator = stage.command("hco-0", Some(&proxy.url()))?.serve()?;
    operator.wait_alive(SOON).await?;
    wait_until("the guard to be awaited", SOON, || async {
        let answer = operator.admin_get("/readyz?verbose").await?;
        ensure!(hold.hits() > 0 && answer.status != 200 && answer.body.contains("egress"), "{}", answer.body);
        ensure!(web.hits() == 0, "probed before the nodes were known");
        anyhow::Ok(())
    })
    .await?;
    // Its patience is bounded: then it goes on, and says so.
    stage.ready(&operator).await?;
    stage.wait_health("web", "Healthy").await?;
    let log = operator.process().log_tail();
    ensure!(log.contains("not all addresses that must not be probed are known"), "{log}");
    Ok(())
}

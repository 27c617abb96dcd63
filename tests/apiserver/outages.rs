//! The API server gone, frozen, or forgetful: probing and `/healthz` go on, and the status catches up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::json;

use crate::stage::{SOON, Stage, condition, fast, health, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::fault_proxy::{Fault, FaultProxy, Match, Rule};
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// How long the API server is away: longer than the lease lasts.
const AWAY: Duration = Duration::from_secs(20);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial_alone("outages::the_api_server_is_frozen", false, frozen),
        suite.trial_alone("outages::the_api_server_is_killed", false, killed),
        suite.trial("outages::watches_expire", expired),
        suite.trial("outages::watches_of_services_slices_and_pods_expire", sources_expired),
        suite.trial("outages::events_are_repeated_and_held", repeated),
    ]
}

async fn frozen(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    away(&cluster.clone(), async || cluster.freeze_api_server(), async || cluster.thaw_api_server()).await
}

async fn killed(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    away(&cluster.clone(), async || cluster.kill_api_server(), async || cluster.restart_api_server().await).await
}

async fn away(
    cluster: &Arc<ControlPlane>,
    goes: impl AsyncFn() -> anyhow::Result<()>,
    returns: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "away").await?;
    let (web, well) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let operator = stage.operator("hco-0").await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.apply("well", fast(&[target("a", well.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    stage.wait_health("well", "Healthy").await?;
    goes().await?;
    let begun = Instant::now();
    web.set_status(500);
    let verdict = format!("/healthz/{}/web", stage.namespace);
    operator.wait_get(&verdict, SOON, |answer| answer.status == 503).await?;
    while begun.elapsed() < AWAY {
        well.wait_hits(5, SOON).await?;
        let answer = operator.get(&format!("/healthz/{}/well", stage.namespace)).await?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    returns().await?;
    // For its first moments after a start it lists nothing.
    let record = wait_until("it to list again", SOON, async || stage.record().await).await?;
    let check = stage.wait_health("web", "Unhealthy").await?;
    ensure!(check.status.is_some_and(|status| status.epoch == Some(1)), "nobody else took over");
    ensure!(record.history("well", health)? == ["Healthy"], "{:?}", record.history("well", health)?);
    // Watches go on too.
    web.set_status(200);
    stage.apply("late", fast(&[target("a", web.address())])).await?;
    stage.wait_health("late", "Healthy").await?;
    stage.wait_health("web", "Healthy").await?;
    operator.process().check_alive()
}

async fn expired(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "expired").await?;
    let web = HttpTarget::start().await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let record = stage.record().await?;
    let watch = || Match::verb("watch").resource("healthchecks");
    for (name, fault) in [("event", Fault::GoneEvent), ("answer", Fault::Gone)] {
        let rule = proxy.inject_times(1, watch(), fault);
        // The second kind is met only by a watch that is opened anew.
        proxy.cut();
        stage.apply(name, fast(&[target("a", web.address())])).await?;
        stage.wait_health(name, "Healthy").await?;
        ensure!(rule.hits() == 1, "{name} did not strike");
    }
    ensure!(record.history("web", health)? == ["Healthy"], "{:?}", record.history("web", health)?);
    Ok(())
}

async fn sources_expired(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "sources").await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let first = fresh_address();
    let web = HttpTarget::start_on((first, free_port()).into()).await?;
    let port = json!({"name": "http", "port": 80, "targetPort": web.port()});
    cluster.service(&stage.namespace, "shop", port.clone()).await?;
    cluster.pod(&stage.namespace, "p0", "shop", first.into(), true).await?;
    cluster.wait_endpoints(&stage.namespace, "shop", &[(first.into(), true)]).await?;
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    let selector = json!({"matchLabels": {"app": "shop"}});
    stage.apply("service", fast(&[json!({"name": "s", "service": {"name": "shop"}})])).await?;
    stage.apply("pods", fast(&[json!({"name": "p", "pods": {"selector": selector}, "port": web.port()})])).await?;
    for name in ["service", "pods"] {
        stage.wait_health(name, "Healthy").await?;
    }
    let record = stage.record().await?;
    let has = |name: &'static str, summary: String| {
        let stage = &stage;
        async move {
            let what = format!("{name} to have {summary}");
            let good =
                |check: &HealthCheck| check.status.iter().any(|status| status.summary.as_ref() == Some(&summary));
            stage.wait(name, &what, good).await
        }
    };

    // After each of the two ways to be told, each of the three still brings news.
    let mut others = vec![];
    for (way, fault) in [("event", Fault::GoneEvent), ("answer", Fault::Gone)] {
        let rules = ["services", "endpointslices", "pods"].map(|resource| {
            let which = Match::verb("watch").resource(resource).namespace(&stage.namespace);
            proxy.inject_times(1, which, fault.clone())
        });
        // The second kind is met only by a watch that is opened anew.
        proxy.cut();
        wait_until("all three to be told", SOON, || async {
            let hits: Vec<_> = rules.iter().map(Rule::hits).collect();
            ensure!(hits == [1, 1, 1], "{hits:?}");
            anyhow::Ok(())
        })
        .await?;
        let more = fresh_address();
        others.push(HttpTarget::start_on((more, web.port()).into()).await?);
        let count = others.len() + 1;
        cluster.pod(&stage.namespace, &format!("p{count}"), "shop", more.into(), true).await?;
        has("pods", format!("{count}/{count}")).await?;
        has("service", format!("{count}/{count}")).await?;
        // A Service that comes: nothing but its own watch tells of it.
        let name = format!("{way}-service");
        stage.apply(&name, fast(&[json!({"name": "s", "service": {"name": name}})])).await?;
        let missing = |check: &HealthCheck| condition(check, "Ready") == "False/InvalidReference";
        stage.wait(&name, "its Service missing", missing).await?;
        cluster.service(&stage.namespace, &name, port.clone()).await?;
        stage.wait(&name, "its Service found", |check| condition(check, "Ready") == "True/Accepted").await?;
    }
    for name in ["service", "pods"] {
        let history = record.history(name, health)?;
        ensure!(history == ["Healthy"], "{name}: {history:?}");
    }
    Ok(())
}

async fn repeated(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "repeated").await?;
    let web = HttpTarget::start().await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let twice = proxy.inject(Match::verb("watch").resource("healthchecks"), Fault::RepeatEvents);
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    let record = stage.record().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    drop(twice);
    // An edit that is told late is late, and nothing else.
    let hold = proxy.inject(Match::verb("watch").resource("healthchecks"), Fault::Hold);
    let mut spec = fast(&[target("a", web.address())]);
    spec["interval"] = json!("300ms");
    stage.apply("web", spec).await?;
    web.wait_hits(10, SOON).await?;
    hold.lift();
    let what = "the edit to be seen";
    stage
        .wait("web", what, |check| check.status.as_ref().is_some_and(|status| status.observed_generation == Some(2)))
        .await?;
    let history = record.history("web", health)?;
    ensure!(history.last().is_some_and(|health| health == "Healthy") && history.len() <= 3, "{history:?}");
    Ok(())
}

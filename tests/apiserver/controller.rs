//! What a user sees of a check in the API, from its first second to its end.

use std::sync::Arc;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use kube::api::DeleteParams;
use libtest_mimic::Trial;
use serde_json::json;

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::targets::{HttpTarget, TcpTarget};
use crate::support::wait::{wait_for, wait_until};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("controller::a_target_dies_and_recovers", dies_and_recovers),
        suite.trial("controller::kubectl_shows_it", kubectl_shows_it),
        suite.trial("controller::pods_of_a_service_come_and_go", service),
        suite.trial("controller::pods_that_match_come_and_go", pods),
        suite.trial("controller::a_suspended_check_is_not_probed", suspend),
        suite.trial("controller::a_composite_follows_its_members", composite),
        suite.trial("controller::a_circle_is_stalled_until_it_is_broken", circle),
        suite.trial("controller::a_missing_secret_is_told_and_found_when_made", secret),
        suite.trial("controller::a_deleted_check_is_gone_everywhere", delete),
        suite.trial("controller::an_edit_keeps_the_verdict", edit),
        suite.trial("controller::loopback_is_denied_without_egress_allow", denied),
        suite.trial_alone("controller::a_missing_crd_is_waited_for", false, crd),
        suite.trial_without("controller::a_kubeconfig_that_is_absent_or_refused_gives_one_line", kubeconfig),
    ]
}

async fn dies_and_recovers(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "dies").await?;
    let web = HttpTarget::start().await?;
    let operator = stage.operator("hco-0").await?;
    let record = stage.record().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.kubectl(&["wait", "--for=condition=Healthy", "--timeout=60s", "hck/web"]).await?;
    web.set_status(503);
    let sick = stage.wait_health("web", "Unhealthy").await?;
    ensure!(condition(&sick, "Healthy") == "False/TargetsUnhealthy", "{:?}", sick.status);
    ensure!(condition(&sick, "Ready") == "True/Accepted", "a sick target never makes Ready False");
    ensure!(message(&sick, "Healthy") == "a: unexpected status code; got '503', want '200-399'", "{:?}", sick.status);
    operator.wait_get("/healthz", SOON, |answer| answer.status == 503).await?;
    web.set_status(200);
    stage.wait_health("web", "Healthy").await?;
    operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    let history = record.history("web", health)?;
    ensure!(
        history == ["", "Unknown", "Healthy", "Unhealthy", "Healthy"]
            || history == ["", "Healthy", "Unhealthy", "Healthy"],
        "{history:?}"
    );
    wait_until("an event for each transition", SOON, || async {
        let events = stage.events("web").await?;
        let wanted =
            [("Healthy", 2), ("UnhealthyUnexpectedStatus", 1)].map(|(reason, count)| (reason.to_owned(), count));
        ensure!(events == wanted, "{events:?}");
        anyhow::Ok(())
    })
    .await?;
    let outages = stage.get("web").await?.status.map(|status| status.outages).unwrap_or_default();
    ensure!(outages.len() == 1 && outages[0].end.is_some() && outages[0].targets == ["a"], "{outages:?}");
    Ok(())
}

async fn kubectl_shows_it(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "kubectl").await?;
    let (web, db) = (HttpTarget::start().await?, TcpTarget::start().await?);
    let _operator = stage.operator("hco-0").await?;
    stage
        .apply(
            "orders",
            json!({
                "interval": "1s", "minHealthy": 1,
                "targets": [
                    {"name": "web", "host": "127.0.0.1", "port": web.port(), "probe": {"http": {}}},
                    {"name": "db", "host": "127.0.0.1", "port": db.port()},
                ],
            }),
        )
        .await?;
    stage.wait_health("orders", "Healthy").await?;
    db.close().await;
    stage.wait_health("orders", "Degraded").await?;
    let rows = |text: &str| -> Vec<Vec<String>> {
        // Columns are parted by three spaces; messages hold single ones. Ages differ from run to run.
        let cells = |line: &str| {
            line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).map(ToOwned::to_owned).collect()
        };
        text.lines().map(cells).collect()
    };
    for name in ["healthchecks", "healthcheck", "hck", "hc"] {
        let shown = rows(&stage.kubectl(&["get", name]).await?);
        ensure!(shown[0] == ["NAME", "HEALTH", "TARGETS", "REASON", "SINCE", "AGE"], "{shown:?}");
        ensure!(shown[1][..4] == ["orders", "Degraded", "1/2", "MinimumMet"], "{shown:?}");
    }
    let wide = rows(&stage.kubectl(&["get", "hck", "-o", "wide"]).await?);
    let header =
        ["NAME", "HEALTH", "TARGETS", "REASON", "SINCE", "PROBES", "INTERVAL", "GATE", "PROBER", "MESSAGE", "AGE"];
    ensure!(wide[0] == header, "{wide:?}");
    let row = &wide[1];
    ensure!(row[5..9] == ["http,tcp", "1s", "hco-0", "db: connection refused"], "{wide:?}");
    let all = stage.kubectl(&["get", "health"]).await?;
    ensure!(all.contains("orders"), "the category: {all}");
    let selected = stage.kubectl(&["get", "hck", "--field-selector", "status.health=Degraded", "-o", "name"]).await?;
    ensure!(selected.trim() == "healthcheck.healthcheck-operator.dev/orders", "{selected}");
    let none = stage.kubectl(&["get", "hck", "--field-selector", "status.health=Healthy", "-o", "name"]).await?;
    ensure!(none.trim().is_empty(), "{none}");
    let explained = stage.kubectl(&["explain", "healthcheck.spec.interval"]).await?;
    ensure!(explained.contains("Default 10s"), "{explained}");
    Ok(())
}

async fn service(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "service").await?;
    let namespace = &stage.namespace;
    let (a, b) = (fresh_address(), fresh_address());
    let first = HttpTarget::start_on((a, free_port()).into()).await?;
    let second = HttpTarget::start_on((b, first.port()).into()).await?;
    cluster.service(namespace, "shop", json!({"name": "http", "port": 80, "targetPort": first.port()})).await?;
    cluster.pod(namespace, "a", "shop", a.into(), true).await?;
    cluster.pod(namespace, "b", "shop", b.into(), true).await?;
    cluster.wait_endpoints(namespace, "shop", &[(a.into(), true), (b.into(), true)]).await?;
    let _operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[json!({"name": "svc", "service": {"name": "shop"}, "port": "http"})]);
    spec["minHealthy"] = json!("50%");
    stage.apply("shop", spec).await?;
    let check = stage.wait_health("shop", "Healthy").await?;
    ensure!(summary(&check) == "2/2", "{:?}", check.status);

    // A pod that its kubelet calls not ready is probed all the same.
    cluster.set_pod_ready(namespace, "b", false).await?;
    cluster.wait_endpoints(namespace, "shop", &[(a.into(), true), (b.into(), false)]).await?;
    second.wait_hits(3, SOON).await?;
    ensure!(summary(&stage.get("shop").await?) == "2/2", "still a member");

    second.set_status(500);
    let check = stage.wait_health("shop", "Degraded").await?;
    ensure!(summary(&check) == "1/2", "{:?}", check.status);
    cluster.delete_pod(namespace, "b").await?;
    let check = stage.wait_health("shop", "Healthy").await?;
    ensure!(summary(&check) == "1/1", "{:?}", check.status);

    let c = fresh_address();
    let third = HttpTarget::start_on((c, first.port()).into()).await?;
    cluster.pod(namespace, "c", "shop", c.into(), false).await?;
    stage.wait("shop", "the new pod to be a member", |check| summary(check) == "2/2").await?;
    third.wait_hits(1, SOON).await?;

    // Probes come from watch events: lists do not go on while probes do.
    let mark = cluster.audit().mark()?;
    first.wait_hits(10, SOON).await?;
    let lists = cluster.audit().since(mark)?;
    let lists = lists.iter().filter(|entry| entry.user == stage.user() && entry.verb == "list").count();
    ensure!(lists == 0, "{lists} lists");
    Ok(())
}

async fn pods(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "pods").await?;
    let a = fresh_address();
    let web = HttpTarget::start_on((a, free_port()).into()).await?;
    let _operator = stage.operator("hco-0").await?;
    let selector = json!({"matchLabels": {"app": "web"}});
    stage.apply("web", fast(&[json!({"name": "p", "pods": {"selector": selector}, "port": web.port()})])).await?;
    let check = stage.wait("web", "no targets", |check| condition(check, "Healthy") == "Unknown/NoTargets").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    cluster.pod(&stage.namespace, "a", "web", a.into(), true).await?;
    cluster.pod(&stage.namespace, "other", "db", fresh_address().into(), true).await?;
    let check = stage.wait_health("web", "Healthy").await?;
    ensure!(summary(&check) == "1/1", "{:?}", check.status);
    cluster.delete_pod(&stage.namespace, "a").await?;
    stage.wait("web", "no targets again", |check| condition(check, "Healthy") == "Unknown/NoTargets").await?;
    Ok(())
}

async fn suspend(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "suspend").await?;
    let (web, other) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let _operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[target("a", web.address())]);
    stage.apply("web", spec.clone()).await?;
    stage.apply("other", fast(&[target("a", other.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    spec["suspend"] = json!(true);
    stage.apply("web", spec.clone()).await?;
    let check = stage.wait("web", "suspended", |check| condition(check, "Healthy") == "Unknown/Suspended").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    let hits = web.hits();
    other.wait_hits(10, SOON).await?;
    ensure!(web.hits() == hits, "probed while suspended");
    spec["suspend"] = json!(false);
    stage.apply("web", spec).await?;
    stage.wait_health("web", "Healthy").await?;
    web.wait_hits(1, SOON).await?;
    Ok(())
}

async fn composite(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "composite").await?;
    let (web, db) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let _operator = stage.operator("hco-0").await?;
    let members = json!({"targets": [
        {"name": "web", "healthCheck": {"name": "web"}}, {"name": "db", "healthCheck": {"name": "db"}},
    ]});
    stage.apply("shop", members).await?;
    let check = stage
        .wait("shop", "its members missing", |check| condition(check, "Ready") == "False/InvalidReference")
        .await?;
    let told = message(&check, "Ready");
    for part in ["spec.targets[0].healthCheck.name: HealthCheck 'web' not found", "spec.targets[1].healthCheck.name"] {
        ensure!(told.contains(part), "all problems at once: {told}");
    }
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.apply("db", fast(&[target("a", db.address())])).await?;
    stage.wait_health("shop", "Healthy").await?;
    // The verdict and what the declaration is worth come from two hands, in either order.
    let accepted = |check: &HealthCheck| condition(check, "Ready") == "True/Accepted";
    stage.wait("shop", "accepted", accepted).await?;
    db.set_status(500);
    let check = stage.wait_health("shop", "Unhealthy").await?;
    ensure!(message(&check, "Healthy").contains("HealthCheck db is Unhealthy"), "{:?}", check.status);
    db.set_status(200);
    stage.wait_health("shop", "Healthy").await?;
    // A member that vanishes is neither up nor down, and all is well when it is back.
    stage.kubectl(&["delete", "healthcheck", "db"]).await?;
    let check = stage.wait_health("shop", "Unknown").await?;
    ensure!(message(&check, "Healthy").contains("db: no such HealthCheck"), "{:?}", check.status);
    let gone = "spec.targets[1].healthCheck.name: HealthCheck 'db' not found";
    stage.wait("shop", "its member missing", |check| message(check, "Ready").contains(gone)).await?;
    stage.apply("db", fast(&[target("a", db.address())])).await?;
    stage.wait_health("shop", "Healthy").await?;
    stage.wait("shop", "accepted", accepted).await?;
    Ok(())
}

async fn circle(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "circle").await?;
    let web = HttpTarget::start().await?;
    let operator = stage.operator("hco-0").await?;
    let of = |member: &str| json!({"targets": [{"name": "m", "healthCheck": {"name": member}}]});
    stage.apply("a", of("b")).await?;
    stage.apply("b", of("a")).await?;
    for name in ["a", "b"] {
        let check = stage.wait(name, "stalled", |check| condition(check, "Stalled") == "True/Cycle").await?;
        ensure!(condition(&check, "Ready") == "False/Cycle", "{:?}", check.status);
        ensure!(condition(&check, "Healthy") == "Unknown/ProbeError", "{:?}", check.status);
        ensure!(message(&check, "Stalled").contains("is a circle"), "{:?}", check.status);
    }
    // What cannot be judged is not passed over.
    operator.wait_get("/healthz", SOON, |answer| answer.status == 503).await?;
    stage.apply("b", fast(&[target("t", web.address())])).await?;
    for name in ["b", "a"] {
        let check = stage.wait_health(name, "Healthy").await?;
        ensure!(condition(&check, "Stalled").is_empty(), "{:?}", check.status);
    }
    Ok(())
}

async fn secret(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "secret").await?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[target("a", web.address())]);
    let reference = json!({"secretKeyRef": {"name": "token", "key": "bearer"}});
    spec["probe"]["http"]["headers"] = json!([{"name": "X-Token", "valueFrom": reference}]);
    stage.apply("web", spec).await?;
    let check =
        stage.wait("web", "the Secret missing", |check| condition(check, "Ready") == "False/InvalidReference").await?;
    ensure!(message(&check, "Ready").contains("Secret 'token' not found"), "{:?}", check.status);
    let check = stage.wait("web", "a probe error", |check| condition(check, "Healthy") == "Unknown/ProbeError").await?;
    ensure!(condition(&check, "Stalled").is_empty(), "{:?}", check.status);
    ensure!(web.hits() == 0, "probed without what it should carry");
    stage.kubectl(&["create", "secret", "generic", "token", "--from-literal=other=x"]).await?;
    stage.wait("web", "the key missing", |check| message(check, "Ready").contains("has no key 'bearer'")).await?;
    stage.kubectl(&["delete", "secret", "token"]).await?;
    stage.kubectl(&["create", "secret", "generic", "token", "--from-literal=bearer=hunter2"]).await?;
    let check = stage.wait_health("web", "Healthy").await?;
    stage.wait("web", "accepted", |check| condition(check, "Ready") == "True/Accepted").await?;
    let sent = web.last_request().and_then(|request| request.headers.get("x-token").cloned());
    ensure!(sent.is_some_and(|value| value == "hunter2"), "the header is on the wire");
    ensure!(!json!(check).to_string().contains("hunter2"), "and nowhere else");
    // Another value is followed without an edit of the check.
    stage.kubectl(&["patch", "secret", "token", "--patch", r#"{"stringData": {"bearer": "hunter3"}}"#]).await?;
    let sent = || web.last_request().and_then(|request| request.headers.get("x-token").cloned());
    wait_for("the new value on the wire", SOON, sent, |value| value.as_ref().is_some_and(|v| v == "hunter3")).await?;
    Ok(())
}

async fn delete(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "delete").await?;
    let (web, other) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let operator = stage.operator("hco-0").await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.apply("other", fast(&[target("a", other.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let path = format!("/healthz/{}/web", stage.namespace);
    operator.wait_get(&path, SOON, |answer| answer.status == 200).await?;
    stage.checks().delete("web", &DeleteParams::default()).await?;
    operator.wait_get(&path, SOON, |answer| answer.status == 404).await?;
    let hits = web.hits();
    other.wait_hits(10, SOON).await?;
    ensure!(web.hits() == hits, "probed after it was gone");
    let metrics = operator.admin_get("/metrics").await?.body;
    ensure!(!metrics.contains("name=\"web\"") && metrics.contains("name=\"other\""), "series of the deleted check");
    // Made again it is another object, judged anew.
    web.set_status(500);
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Unhealthy").await?;
    Ok(())
}

async fn edit(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "edit").await?;
    let (web, more) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let _operator = stage.operator("hco-0").await?;
    let record = stage.record().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let mut spec = fast(&[target("a", web.address())]);
    spec["interval"] = json!("150ms");
    spec["failureThreshold"] = json!(4);
    stage.apply("web", spec.clone()).await?;
    stage.wait("web", "the edit to be seen", |check| observed(check) == Some(2)).await?;
    web.wait_hits(5, SOON).await?;
    let history = record.history("web", health)?;
    ensure!(history.iter().filter(|health| *health == "Healthy").count() == 1, "one way to Healthy: {history:?}");
    ensure!(history.last().is_some_and(|health| health == "Healthy"), "{history:?}");
    spec["targets"] = json!([target("a", web.address()), target("b", more.address())]);
    stage.apply("web", spec).await?;
    stage.wait("web", "the new target", |check| summary(check) == "2/2").await?;
    Ok(())
}

async fn denied(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "denied").await?;
    let web = HttpTarget::start().await?;
    let config = stage.kubeconfig(None)?;
    let command = crate::support::operator::command("controller")
        .arg("--kubeconfig")
        .arg(config)
        .args(["--watch-namespace", &stage.namespace])
        .env("POD_NAME", "hco-0")
        .env("POD_NAMESPACE", &stage.namespace);
    let _operator = stage.serve(command).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    let check = stage.wait("web", "a probe error", |check| condition(check, "Healthy") == "Unknown/ProbeError").await?;
    ensure!(message(&check, "Healthy").contains("--egress-allow"), "{:?}", check.status);
    ensure!(web.hits() == 0, "dialed all the same");
    Ok(())
}

async fn crd(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let namespace = cluster.namespace("crd").await?;
    let account = cluster.service_account(&namespace, "operator").await?;
    cluster.bind(&namespace, "operator", "cluster-admin").await?;
    let stage = Stage { cluster: cluster.clone(), namespace, account };
    let operator = stage.command("hco-0", None)?.serve()?;
    operator.wait_alive(SOON).await?;
    wait_until("it to say what is missing", SOON, || async {
        let answer = operator.admin_get("/readyz?verbose").await?;
        ensure!(answer.status != 200 && answer.body.contains("is not installed; waiting for it"), "{}", answer.body);
        anyhow::Ok(())
    })
    .await?;
    cluster.install_crds().await?;
    let web = HttpTarget::start().await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    stage.ready(&operator).await
}

async fn kubeconfig() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let absent = directory.path().join("absent");
    let refused = directory.path().join("refused");
    let port = crate::support::ports::free_port();
    std::fs::write(
        &refused,
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string(),
    )?;
    let cases = [
        (&absent, None, 2, ["cannot read the kubeconfig", "absent"]),
        (&refused, None, 3, ["cannot talk to the API server", "onnection refused"]),
        (&refused, Some("other"), 2, ["--context", "other"]),
    ];
    for (file, context, code, parts) in cases {
        let mut command = crate::support::operator::command("controller").arg("--kubeconfig").arg(file).args([
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        if let Some(context) = context {
            command = command.args(["--context", context]);
        }
        let output = command.run(SOON).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        ensure!(output.status.code() == Some(code) && errors.len() == 1, "{:?}: {said}", output.status);
        for part in parts {
            ensure!(errors[0].contains(part), "{said}");
        }
    }
    Ok(())
}

fn summary(check: &HealthCheck) -> String {
    check.status.as_ref().and_then(|status| status.summary.clone()).unwrap_or_default()
}

fn observed(check: &HealthCheck) -> Option<i64> {
    check.status.as_ref().and_then(|status| status.observed_generation)
}

//! Passive reports in a cluster: who may, what the status says, and what a restart and a standby make of it.

use std::sync::Arc;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::identity::Credentials;
use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial("reports::who_may_report_ejects_and_a_restart_keeps_it", reports)]
}

async fn post(operator: &Operator, token: &str, batch: &Value) -> anyhow::Result<(u16, Value)> {
    let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    let url = format!("{}/v1/observations", operator.admin_url());
    let response = http.post(url).bearer_auth(token).body(batch.to_string()).send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

async fn reports(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "reports").await?;
    let home = stage.namespace.clone();
    let operator = stage.operator("hco-0").await?;
    let (a, b) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let mut spec = fast(&[target("a", a.address()), target("b", b.address())]);
    // Its probe goes well whenever it is asked, and it is not asked for an hour.
    spec["interval"] = json!("1h");
    spec["passive"] = json!({});
    stage.apply("web", spec.clone()).await?;
    stage.wait_health("web", "Healthy").await?;

    let Credentials::Token(token) = cluster.service_account(&home, "gateway").await? else {
        anyhow::bail!("an account without a token");
    };
    let check = format!("{home}/web");
    let seen = |outcome: Value, count: u32| json!([{"healthCheck": check, "endpoint": b.address().to_string(), "outcome": outcome, "count": count}]);
    let failing = seen(json!({"status": 502}), 5);
    let (status, said) = post(&operator, &token, &failing).await?;
    ensure!(status == 403 && said["error"].as_str().is_some_and(|why| why.contains("healthchecks/report")), "{said}");
    ensure!(post(&operator, "made-up", &failing).await?.0 == 401);
    let rules =
        json!([{"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks/report"], "verbs": ["create"]}]);
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "report-traffic"}, "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "report-traffic"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "report-traffic"},
            "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": home}],
        },
    ]});
    cluster.apply(&home, &role.to_string()).await?;
    // A refusal is remembered for a while.
    wait_until("a report that is allowed", SOON, || async {
        let (status, said) = post(&operator, &token, &seen(json!({"status": 200}), 1)).await?;
        ensure!(status == 200 && said["accepted"] == 1, "{status}: {said}");
        anyhow::Ok(())
    })
    .await?;
    let elsewhere = json!([{"healthCheck": "kube-system/web", "endpoint": "b", "outcome": "timeout"}]);
    ensure!(post(&operator, &token, &elsewhere).await?.0 == 403, "another namespace");

    spec["unhealthyInterval"] = json!("1h");
    stage.apply("web", spec.clone()).await?;
    let (status, said) = post(&operator, &token, &failing).await?;
    ensure!(status == 200 && said["accepted"] == 5, "{status}: {said}");
    let told = stage.wait_health("web", "Unhealthy").await?;
    ensure!(condition(&told, "Healthy").contains("TargetsUnhealthy"), "{}", condition(&told, "Healthy"));
    let why = "5 failures in a row seen in traffic, the last one status '502'";
    ensure!(message(&told, "Healthy").contains(why), "{}", message(&told, "Healthy"));
    let row = serde_json::to_value(&told.status)?["targets"][0].clone();
    ensure!(row["name"] == "b" && row["reason"] == "PassiveUnexpectedStatus" && row["state"] == "Unhealthy", "{row}");

    // Another replica takes over, by what the status says.
    let standby = stage.operator("hco-1").await?;
    wait_until("the standby to refuse", SOON, || async {
        let (status, said) = post(&standby, &token, &failing).await?;
        let why = said["error"].as_str().unwrap_or_default();
        ensure!(status == 503 && why.contains("does not judge"), "{status}: {said}");
        anyhow::Ok(())
    })
    .await?;
    let before = stage.get("web").await?;
    operator.process().stop()?;
    wait_until("the standby to judge", SOON, || async {
        let (status, said) = post(&standby, &token, &seen(json!({"status": 404}), 1)).await?;
        ensure!(status == 200 && said["accepted"] == 1, "{status}: {said}");
        anyhow::Ok(())
    })
    .await?;
    let since =
        |check: &healthcheck_operator::api::HealthCheck| check.status.as_ref().map(|status| status.since.clone());
    let kept = stage.wait_health("web", "Unhealthy").await?;
    ensure!(since(&kept) == since(&before), "a takeover is no transition");

    // Asked again, it is well: twice is enough.
    spec["unhealthyInterval"] = json!("200ms");
    stage.apply("web", spec).await?;
    stage.wait_health("web", "Healthy").await?;
    Ok(())
}

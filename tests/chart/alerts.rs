//! Alerts and dashboard, by Prometheus' own promtool: every query parses, and alerts fire when they should.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::operator;
use crate::support::ports::free_port;
use crate::support::wait::wait_until;
use crate::tools::{self, Values, only};

fn promtool(args: &[&str], dir: &Path) -> Option<Output> {
    match Command::new("promtool").args(args).current_dir(dir).output() {
        Ok(out) => Some(out),
        Err(_) => {
            tools::skip("no promtool (Debian's package prometheus)");
            None
        }
    }
}

/// The rule groups of the rendered PrometheusRule.
fn groups() -> Option<Value> {
    let objects = tools::objects(&Values::ci("everything"))?;
    Some(only(&objects, "PrometheusRule")["spec"].clone())
}

/// The dashboard, as it comes out of the rendered ConfigMap.
fn dashboard() -> Option<Value> {
    let objects = tools::objects(&Values::ci("everything"))?;
    let map = objects.iter().find(|o| o["metadata"]["name"] == "checks-dashboards").expect("a ConfigMap of dashboards");
    assert_eq!(map["metadata"]["labels"]["dashboard"], "1");
    let text = map["data"]["healthcheck-operator.json"].as_str().expect("a dashboard");
    Some(serde_json::from_str(text).expect("the dashboard is JSON"))
}

/// A file in JSON, which is YAML too.
fn write(dir: &Path, name: &str, content: &Value) {
    std::fs::write(dir.join(name), content.to_string()).expect("written");
}

fn accepted(out: &Output) {
    let said = [&out.stdout, &out.stderr].map(|o| String::from_utf8_lossy(o)).join("\n");
    assert!(out.status.success(), "{said}");
}

#[test]
fn every_alert_is_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(groups) = groups() else { return };
    write(dir.path(), "rules.yaml", &groups);
    let Some(out) = promtool(&["check", "rules", "rules.yaml"], dir.path()) else { return };
    accepted(&out);
    assert!(String::from_utf8_lossy(&out.stdout).contains("SUCCESS: 5 rules found"), "{out:?}");
}

#[test]
fn every_query_of_the_dashboard_parses() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(dashboard) = dashboard() else { return };
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|p| p["targets"].as_array().expect("targets"));
    let rules: Vec<_> = queries
        .enumerate()
        .map(|(number, target)| {
            // What Grafana fills in before it asks.
            let query = target["expr"].as_str().expect("a query").replace("$__rate_interval", "5m");
            json!({"record": format!("dashboard:query:{number}"), "expr": query})
        })
        .collect();
    assert!(rules.len() >= panels.len() && panels.len() > 10, "{} panels", panels.len());
    write(dir.path(), "rules.yaml", &json!({"groups": [{"name": "dashboard", "rules": rules}]}));
    let Some(out) = promtool(&["check", "rules", "rules.yaml"], dir.path()) else { return };
    accepted(&out);
}

#[test]
fn alerts_fire_for_what_is_down_and_for_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(groups) = groups() else { return };
    write(dir.path(), "rules.yaml", &groups);
    let health = |name: &str, word: &str, values: &str| {
        json!({
            "series": format!(r#"healthcheck_health{{namespace="shop",name="{name}",health="{word}",pod="p"}}"#),
            "values": values,
        })
    };
    let own = |series: &str, values: &str| json!({"series": series, "values": values});
    let alert = |time: &str, name: &str, labels: &[Value]| {
        let alerts: Vec<_> =
            labels.iter().map(|l| json!({"exp_labels": l, "exp_annotations": annotations(&groups, name, l)})).collect();
        json!({"eval_time": time, "alertname": name, "exp_alerts": alerts})
    };
    let down = json!({"namespace": "shop", "name": "down", "severity": "critical"});
    let dark = json!({"namespace": "shop", "name": "dark", "severity": "warning"});
    let critical = json!({"severity": "critical"});
    let warning = json!({"severity": "warning"});
    let whole = json!({
        "interval": "1m",
        "input_series": [
            health("up", "Healthy", "1x40"), health("up", "Unhealthy", "0x40"),
            health("down", "Unhealthy", "0x9 1x30"), health("dark", "Unknown", "1x40"),
            health("blip", "Unhealthy", "0x9 1 0x30"), health("paused", "Unknown", "1x5 0x35"),
            own("healthcheck_operator_build_info{pod=\"p\"}", "1x40"),
            own("healthcheck_operator_leader{pod=\"p\"}", "1x40"), own("healthcheck_operator_leader{pod=\"q\"}", "0x40"),
            own("healthcheck_operator_skipped_rounds_total{pod=\"p\"}", "0x40"),
        ],
        "alert_rule_test": [
            alert("9m", "HealthCheckUnhealthy", &[]), alert("12m", "HealthCheckUnhealthy", std::slice::from_ref(&down)),
            alert("9m", "HealthCheckUnknown", &[]), alert("11m", "HealthCheckUnknown", std::slice::from_ref(&dark)),
            alert("30m", "HealthCheckOperatorDown", &[]), alert("30m", "HealthCheckOperatorNoLeader", &[]),
            alert("30m", "HealthCheckOperatorSkipsRounds", &[]),
        ],
    });
    let broken = json!({
        "interval": "1m",
        "input_series": [
            own("healthcheck_operator_leader{pod=\"p\"}", "0x40"),
            own("healthcheck_operator_skipped_rounds_total{pod=\"p\"}", "0+60x40"),
        ],
        "alert_rule_test": [
            alert("30m", "HealthCheckOperatorDown", std::slice::from_ref(&critical)),
            alert("30m", "HealthCheckOperatorNoLeader", std::slice::from_ref(&critical)),
            alert("30m", "HealthCheckOperatorSkipsRounds", std::slice::from_ref(&warning)),
        ],
    });
    write(dir.path(), "test.yaml", &json!({"rule_files": ["rules.yaml"], "tests": [whole, broken]}));
    let Some(out) = promtool(&["test", "rules", "test.yaml"], dir.path()) else { return };
    accepted(&out);
}

/// The annotations of an alert with its labels filled in, as Prometheus does.
fn annotations(groups: &Value, alert: &str, labels: &Value) -> Value {
    let rules = groups["groups"][0]["rules"].as_array().expect("rules");
    let mut text = rules.iter().find(|r| r["alert"] == alert).expect(alert)["annotations"].to_string();
    for key in ["namespace", "name"] {
        text = text.replace(&format!("{{{{ $labels.{key} }}}}"), labels[key].as_str().unwrap_or_default());
    }
    assert!(!text.contains("{{"), "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// A query for a metric that nobody exposes is always empty, and looks like all is well.
#[tokio::test]
async fn every_metric_asked_for_is_one_the_operator_exposes() {
    // Kept by the `cluster` part alone, so a run without a cluster has no sample of it.
    const WITH_A_CLUSTER: [&str; 1] = ["healthcheck_operator_api_requests_total"];
    let (Some(groups), Some(dashboard)) = (groups(), dashboard()) else { return };
    let asked = metric_names(&format!("{groups} {dashboard}"));
    assert!(asked.len() >= 10, "{asked:?}");

    let dir = tempfile::tempdir().expect("a directory");
    // Nobody listens there, so there is a verdict, a transition and a duration soon.
    let check = json!({
        "apiVersion": "healthcheck-operator.dev/v1alpha1",
        "kind": "HealthCheck",
        "metadata": {"name": "seen", "namespace": "shop"},
        "spec": {"interval": "100ms", "targets": [{"name": "a", "host": "127.0.0.1", "port": free_port()}]},
    });
    write(dir.path(), "check.yaml", &check);
    let operator = operator::command("standalone").arg("--filename").arg(dir.path()).serve().expect("it starts");
    let verdict = |body: &str| body.contains(r#"healthcheck_endpoint_healthy{namespace="shop",name="seen""#);
    let seen = wait_until("a verdict in the metrics", Duration::from_secs(60), || async {
        operator.process().check_alive()?;
        let body = operator.admin_get("/metrics").await?.body;
        anyhow::ensure!(verdict(&body), "{body}");
        anyhow::Ok(body)
    })
    .await
    .expect("metrics");
    let samples = seen.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let exposed = metric_names(&samples);
    let missing: Vec<_> =
        asked.iter().filter(|n| !exposed.contains(*n) && !WITH_A_CLUSTER.contains(&n.as_str())).collect();
    assert!(missing.is_empty(), "asked for, but not exposed: {missing:?}; exposed: {exposed:?}");
}

/// Names of our metrics in a text; `_operator` alone is the name of the chart in a label or a title.
fn metric_names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("healthcheck_") && *word != "healthcheck_operator")
        .map(str::to_owned)
        .collect()
}

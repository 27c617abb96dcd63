//! Alerts and dashboard, by Prometheus' own promtool: every query parses, and alerts fire when they should.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

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
            health("blip", "Unhealthy", "0x9 1 0x30"),
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

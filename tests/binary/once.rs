//! `standalone --once`.

use std::process::Output;

use serde_json::Value;

use crate::checks::{Files, SOON, check, standalone};
use crate::support::operator::command;
use crate::support::targets::HttpTarget;

fn script(name: &str, command: &str) -> String {
    check(
        name,
        &format!(
            "  interval: 200ms\n  failureThreshold: 2\n  targets: [{{name: s, probe: {{script: {{command: {command}}}}}}}]"
        ),
    )
}

fn half(name: &str) -> String {
    check(
        name,
        "  interval: 200ms\n  failureThreshold: 1\n  minHealthy: 1\n  targets:\n  - {name: a, probe: {script: {command: ['true']}}}\n  - {name: b, probe: {script: {command: ['false']}}}",
    )
}

const CANNOT: &str = "['/nonexistent/program']";

async fn once(documents: &[String], args: &[&str]) -> anyhow::Result<(i32, String, Output)> {
    let files = Files::with(documents);
    let ended = standalone(files.path()).arg("--once").args(args).run(SOON).await?;
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(!told.contains("panicked"), "{told}");
    let code = ended.status.code().unwrap_or(-1);
    Ok((code, String::from_utf8(ended.stdout.clone())?, ended))
}

#[tokio::test]
async fn the_table_has_every_check_and_the_code_is_the_worst() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    target.set_status(500);
    let down = check(
        "down",
        &format!(
            "  interval: 200ms\n  targets: [{{name: web, host: 127.0.0.1, port: {}, probe: {{http: {{}}}}}}]",
            target.port()
        ),
    );
    let paused = check("paused", "  suspend: true\n  targets: [{name: s, probe: {script: {command: ['false']}}}]");
    let over = check("over", "  targets: [{name: up, healthCheck: {name: up}}]");
    let documents = [script("up", "['true']"), half("half"), down, script("cannot", CANNOT), paused, over];
    let (code, table, _) = once(&documents, &[]).await?;
    let expected = "\
NAME          HEALTH      TARGETS   REASON              MESSAGE
shop/cannot   Unknown     0/1       ProbeError          s: '/nonexistent/program' could not be started: No such file or directory (os error 2)
shop/down     Unhealthy   0/1       TargetsUnhealthy    web: unexpected status code; got '500', want '200-399'
shop/half     Degraded    1/2       MinimumMet          b: exit code 1
shop/over     Healthy     1/1       AllTargetsHealthy
shop/paused   Unknown     0/1       Suspended           suspended
shop/up       Healthy     1/1       AllTargetsHealthy
";
    assert_eq!(table, expected);
    assert_eq!(code, 1);
    assert!(target.hits() >= 3, "decided by the thresholds, not by one look: {}", target.hits());
    Ok(())
}

#[tokio::test]
async fn the_exit_code_is_the_verdict() -> anyhow::Result<()> {
    let cases = [
        (vec![script("up", "['true']")], 0),
        (vec![script("up", "['true']"), half("half")], 0),
        (vec![script("up", "['true']"), script("down", "['false']")], 1),
        (vec![script("up", "['true']"), script("cannot", CANNOT)], 3),
        (vec![script("down", "['false']"), script("cannot", CANNOT)], 1),
    ];
    for (documents, expected) in cases {
        let (code, table, _) = once(&documents, &[]).await?;
        assert_eq!(code, expected, "{table}");
    }
    Ok(())
}

/// Nothing more will come of an endpoint that cannot be looked at: the patience of minutes that its timeout asks for is
/// for those that may still answer.
#[tokio::test]
async fn what_cannot_be_looked_at_is_not_waited_for() -> anyhow::Result<()> {
    let spec = |threshold: u8| {
        format!(
            "  interval: 1h\n  timeout: 50m\n  failureThreshold: {threshold}\n  targets: [{{name: s, probe: {{script: {{command: {CANNOT}}}}}}}]"
        )
    };
    let over = check("over", "  targets: [{name: m, healthCheck: {name: cannot}}]");
    let paused = check("paused", "  suspend: true\n  targets: [{name: s, probe: {script: {command: ['false']}}}]");
    let beside = check("beside", "  targets: [{name: m, healthCheck: {name: paused}}]");
    let documents = [check("cannot", &spec(1)), over, paused, beside, script("up", "['true']")];
    let (code, table, _) = once(&documents, &[]).await?;
    assert_eq!(code, 3, "{table}");
    assert!(table.contains("shop/up       Healthy") && table.contains("shop/cannot   Unknown"), "{table}");
    assert!(table.contains("could not be started"), "{table}");
    Ok(())
}

#[tokio::test]
async fn nothing_to_check_is_an_error() -> anyhow::Result<()> {
    let (code, table, ended) = once(&[String::from("# nothing\n")], &[]).await?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((code, table.as_str()), (2, ""), "{told}");
    assert!(
        told.starts_with("error: ") && told.contains("holds no HealthCheck") && told.lines().count() == 1,
        "{told}"
    );
    Ok(())
}

#[tokio::test]
async fn json_and_yaml_are_the_document_of_the_api() -> anyhow::Result<()> {
    let documents = [script("up", "['true']"), half("half")];
    let (code, json, _) = once(&documents, &["-o", "json"]).await?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(code, 0);
    let (code, yaml, _) = once(&documents, &["-o", "yaml"]).await?;
    let yaml: Value = serde_saphyr::from_str(&yaml)?;
    assert_eq!(code, 0);
    for document in [json, yaml] {
        let items = document["items"].as_array().expect("a list");
        let told: Vec<_> = items.iter().map(|item| (item["name"].as_str(), item["health"].as_str())).collect();
        assert_eq!(told, [(Some("half"), Some("Degraded")), (Some("up"), Some("Healthy"))], "{document}");
        assert_eq!(items[0]["endpoints"][1]["message"], "exit code 1", "{document}");
        assert_eq!(document["current"], true);
    }
    Ok(())
}

#[tokio::test]
async fn standard_input_is_a_file_too() -> anyhow::Result<()> {
    let files = Files::with(&[script("up", "['true']")]);
    let line = format!("\"$0\" standalone --once -f - < {}", files.file("checks.yaml").display());
    let ended = tokio::process::Command::new("sh")
        .args(["-c", &line, crate::support::operator::BINARY])
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(SOON, ended).await??;
    let table = String::from_utf8(ended.stdout)?;
    assert!(ended.status.success() && table.contains("shop/up   Healthy"), "{table}");
    Ok(())
}

#[tokio::test]
async fn what_nobody_looked_at_is_neither_well_nor_ill() -> anyhow::Result<()> {
    let paused = check("paused", "  suspend: true\n  targets: [{name: s, probe: {script: {command: ['false']}}}]");
    let (code, table, _) = once(&[paused], &[]).await?;
    assert_eq!(code, 3, "{table}");
    // Without a file there is only the example, which asks listeners that are not there.
    let ended = command("standalone").arg("--once").run(SOON).await?;
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.code() == Some(2) && told.contains("--filename"), "{told}");
    Ok(())
}

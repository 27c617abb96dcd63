//! Manifests, and what the tests read of the operator.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::operator::{BINARY, Command, Operator, command};
use crate::support::wait::wait_until;

/// Generous: only a test that fails waits this long.
pub const SOON: Duration = Duration::from_secs(30);

/// A HealthCheck in namespace `shop`; `spec` in YAML, indented by two.
pub fn check(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{}\n",
        spec.trim_end()
    )
}

/// A HealthCheck of one HTTP target at `port`, asked ten times a second, down at the second failure.
pub fn quick_http(name: &str, port: u16) -> String {
    check(
        name,
        &format!(
            "  interval: 100ms\n  failureThreshold: 2\n  successThreshold: 2\n  targets:\n  - name: web\n    host: 127.0.0.1\n    port: {port}\n    probe: {{http: {{path: /, expectedStatuses: [200]}}}}\n"
        ),
    )
}

/// How the operator ends whose reader has gone before the first byte: its code, and what it complains of.
pub async fn without_reader(args: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let ended = tokio::process::Command::new(BINARY)
        .args(args)
        .stdin(std::process::Stdio::null())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?
        .wait_with_output();
    let ended = tokio::time::timeout(SOON, ended).await??;
    Ok((ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned()))
}

/// A directory for one test's files.
pub struct Files {
    directory: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    /// With one file, `checks.yaml`.
    pub fn with(documents: &[String]) -> Self {
        let files = Self::new();
        files.write("checks.yaml", documents);
        files
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes documents in place.
    pub fn write(&self, name: &str, documents: &[String]) {
        std::fs::write(self.file(name), documents.join("---\n")).expect("a temporary file can be written");
    }
}

/// `standalone` on `path`.
pub fn standalone(path: &Path) -> Command {
    command("standalone").arg("-f").arg(path)
}

/// Starts `standalone` on `path` and waits until all its checks are Healthy.
pub async fn healthy(path: &Path) -> anyhow::Result<Operator> {
    let operator = standalone(path).serve()?;
    operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    Ok(operator)
}

/// One check of `GET /v1/healthchecks`.
pub async fn v1(operator: &Operator, name: &str) -> anyhow::Result<Value> {
    let answer = operator.admin_get(&format!("/v1/healthchecks/shop/{name}")).await?;
    ensure!(answer.status == 200, "{answer:?}");
    serde_json::from_str(&answer.body).context("the API answers JSON")
}

/// The value of a metric's only line that begins with `line`, as in `name{label="x"}`.
pub async fn metric(operator: &Operator, line: &str) -> anyhow::Result<Option<String>> {
    let answer = operator.admin_get("/metrics").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let mut values = answer.body.lines().filter_map(|text| text.strip_prefix(line)?.strip_prefix(' '));
    let value = values.next().map(str::to_owned);
    ensure!(values.next().is_none(), "{line} is there twice:\n{}", answer.body);
    Ok(value)
}

/// Waits until a metric has a value.
pub async fn wait_metric(operator: &Operator, line: &str, value: &str) -> anyhow::Result<()> {
    wait_until(line, SOON, || async {
        operator.process().check_alive()?;
        let seen = metric(operator, line).await?;
        ensure!(seen.as_deref() == Some(value), "{seen:?}");
        Ok(())
    })
    .await
}

/// Waits until the operator has printed `text`.
pub async fn wait_printed(operator: &Operator, text: &str) -> anyhow::Result<()> {
    wait_until(text, SOON, || async {
        let output = operator.process().output();
        ensure!(output.contains(text), "{output}");
        Ok(())
    })
    .await
}

/// Fails when the operator has panicked anywhere.
pub fn no_panic(operator: &Operator) {
    let output = operator.process().output();
    assert!(!output.contains("panicked"), "{output}");
}

//! `kubectl healthcheck`: the program as a plugin of the real kubectl, for people with a kubeconfig.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::stage::{SOON, Stage, fast, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::identity::Credentials;
use crate::support::targets::HttpTarget;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("plugin::kubectl_tells_what_is_down_first", reads),
        suite.trial("plugin::kubectl_has_the_operator_probe", probes),
    ]
}

/// Somebody at a terminal.
struct Person {
    kubectl: PathBuf,
    /// Where they keep their plugins.
    directory: PathBuf,
    kubeconfig: String,
    namespace: String,
}

impl Person {
    fn new(stage: &Stage, directory: &Path, who: &Credentials) -> anyhow::Result<Self> {
        let plugin = directory.join("kubectl-healthcheck");
        if !plugin.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_healthcheck-operator"), plugin)?;
        }
        Ok(Self {
            kubectl: stage.cluster.program("kubectl"),
            directory: directory.to_owned(),
            kubeconfig: stage.cluster.kubeconfig(who, None)?.display().to_string(),
            namespace: stage.namespace.clone(),
        })
    }

    async fn ask(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command.env("PATH", &self.directory).env("HOME", &self.directory);
        command.arg("healthcheck").args(words).args(["--kubeconfig", &self.kubeconfig, "-n", &self.namespace]);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        Ok(tokio::time::timeout(SOON, output).await.context("kubectl took too long")??)
    }

    /// What was printed, where the exit code is `code`.
    async fn expect(&self, code: i32, words: &[&str]) -> anyhow::Result<String> {
        let output = self.ask(words).await?;
        let (out, said) = (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
        ensure!(output.status.code() == Some(code), "{words:?}: {:?}: {out}{said}", output.status);
        Ok(out + &said)
    }
}

async fn reads(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "plugin").await?;
    let _operator = stage.operator("hco-0").await?;
    let (web, shop) = (HttpTarget::start().await?, HttpTarget::start().await?);
    stage.apply("a-web", fast(&[target("a", web.address())])).await?;
    stage.apply("shop", fast(&[target("till", shop.address())])).await?;
    stage.wait_health("a-web", "Healthy").await?;
    stage.wait_health("shop", "Healthy").await?;
    let directory = tempfile::tempdir()?;
    let person = Person::new(&stage, directory.path(), cluster.admin())?;

    ensure!(person.expect(0, &["status"]).await?.starts_with("NAME"), "a table");
    let waited = person.expect(0, &["wait", "a-web", "shop"]).await?;
    ensure!(waited.lines().count() == 2 && waited.contains("/shop: Healthy"), "{waited}");
    ensure!(person.expect(0, &["history"]).await? == "no outage is remembered\n");

    // One that dies is told first, with its reason, though its name comes last.
    shop.set_status(503);
    let waited = person.expect(0, &["wait", "shop", "--for", "unhealthy", "--timeout", "20s"]).await?;
    ensure!(waited.contains("/shop: Unhealthy"), "{waited}");
    let told = "unexpected status code; got '503', want '200-399'";
    let table = person.expect(1, &["status"]).await?;
    let lines: Vec<_> = table.lines().collect();
    ensure!(lines.len() == 3 && lines[1].starts_with("shop "), "{table}");
    ensure!(lines[1].contains("Unhealthy") && lines[1].contains("0/1") && lines[1].contains(told), "{table}");
    ensure!(lines[2].starts_with("a-web "), "{table}");
    let whole = person.expect(1, &["status", "shop"]).await?;
    ensure!(whole.starts_with(&format!("{}/shop: Unhealthy (0/1) for ", stage.namespace)), "{whole}");
    ensure!(whole.contains("UnexpectedStatus: ") && whole.contains(&shop.address().to_string()), "{whole}");
    ensure!(whole.contains("by hco-0"), "{whole}");
    let list: Value = serde_json::from_str(&person.expect(1, &["status", "-o", "json"]).await?)?;
    ensure!(list["items"][0]["name"] == "shop" && list["items"][0]["status"]["summary"] == "0/1", "{list}");
    let history = person.expect(0, &["history", "shop"]).await?;
    ensure!(history.contains("so far") && history.contains("till"), "{history}");
    let late = person.expect(1, &["wait", "shop", "--timeout", "1s"]).await?;
    ensure!(late.contains("not Healthy within 1s: shop is Unhealthy: ") && late.contains(told), "{late}");

    // What nobody has is told at once.
    let missing = person.expect(2, &["wait", "shopp"]).await?;
    ensure!(missing.contains("no HealthCheck 'shopp' in namespace"), "{missing}");
    let nobody = cluster.service_account(&stage.namespace, "nobody").await?;
    let refused = Person::new(&stage, directory.path(), &nobody)?.expect(3, &["status"]).await?;
    ensure!(refused.contains("cannot list resource \"healthchecks\""), "{refused}");
    Ok(())
}

async fn probes(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "pluginprobe").await?;
    let operator = stage.operator("hco-0").await?;
    let (web, other) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let mut spec = fast(&[target("a", web.address()), target("b", other.address())]);
    spec["interval"] = json!("1h");
    stage.apply("web", spec).await?;
    stage.wait_health("web", "Healthy").await?;
    let who = cluster.service_account(&stage.namespace, "prober").await?;
    let rules = json!([
        {"apiGroups": ["healthcheck-operator.dev"], "resources": ["healthchecks/probe"], "verbs": ["create"]},
    ]);
    cluster.grant(&stage.namespace, "prober", serde_json::from_value(rules)?).await?;
    let directory = tempfile::tempdir()?;
    let person = Person::new(&stage, directory.path(), &who)?;
    let url = operator.admin_url();
    let probe = ["probe", "web", "--admin-url", &url];

    let said = person.expect(0, &probe).await?;
    let expected = format!("a {}: healthy\nb {}: healthy\n", web.address(), other.address());
    ensure!(said == expected, "{said}");
    // Between two rounds an hour apart: this is found out now, and by nobody else.
    web.set_status(503);
    let said = person.expect(1, &probe).await?;
    let told = "unexpected status code; got '503', want '200-399'";
    let expected = format!("a {}: unhealthy; {told}\nb {}: healthy\n", web.address(), other.address());
    ensure!(said == expected, "{said}");
    ensure!(person.expect(0, &[&probe[..], &["--target", "b"]].concat()).await?.starts_with("b "));
    let answer: Value = serde_json::from_str(&person.expect(1, &[&probe[..], &["-o", "json"]].concat()).await?)?;
    ensure!(answer["healthy"] == false && answer["endpoints"][1]["healthy"] == true, "{answer}");

    let unknown = person.expect(2, &[&probe[..], &["--target", "c"]].concat()).await?;
    ensure!(unknown.contains("has no target \"c\""), "{unknown}");
    let nowhere = person.expect(3, &["probe", "web", "--admin-url", "http://127.0.0.1:1"]).await?;
    ensure!(nowhere.contains("cannot ask the operator at http://127.0.0.1:1"), "{nowhere}");

    // A certificate is no token; a token may be given beside it.
    let Credentials::Token(token) = &who else { anyhow::bail!("an account has a token") };
    let file = directory.path().join("token");
    std::fs::write(&file, token)?;
    let admin = Person::new(&stage, directory.path(), cluster.admin())?;
    if matches!(cluster.admin(), Credentials::Certificate(_)) {
        let refused = admin.expect(2, &probe).await?;
        ensure!(refused.contains("--token-file"), "{refused}");
    }
    let file = file.display().to_string();
    let said = admin.expect(1, &[&probe[..], &["--token-file", &file]].concat()).await?;
    ensure!(said.starts_with("a ") && said.contains(told), "{said}");
    Ok(())
}

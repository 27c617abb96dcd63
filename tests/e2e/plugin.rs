//! `kubectl healthcheck probe` from outside the cluster: through the API server and the kubelet to the operator's pod.

use std::sync::Arc;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;
use tokio::process::Command;

use crate::hosts::{HTTP_PORT, PROBED};
use crate::room::Room;
use crate::shell;
use crate::suite::Suite;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("plugin::kubectl_has_the_operator_probe_from_where_it_is", probe)]
}

async fn probe(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a"]).await?;
    let target = json!({"name": "a", "host": hosts[0].ip, "port": HTTP_PORT, "probe": {"http": {"path": PROBED}}});
    room.check("outside", json!({"interval": "1h", "targets": [target]})).await?;
    room.health("outside", "Healthy").await?;

    let rule = "--resource=healthchecks.healthcheck-operator.dev/probe";
    let namespace = room.namespace.as_str();
    for words in [
        &["create", "serviceaccount", "person"][..],
        &["create", "role", "person", "--verb=create", rule],
        &["create", "rolebinding", "person", "--role=person", &format!("--serviceaccount={namespace}:person")],
    ] {
        room.node.kubectl(&[words, &["--namespace", namespace]].concat()).await?;
    }
    let token = room.node.kubectl(&["create", "token", "person", "--namespace", namespace]).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("token");
    std::fs::write(&file, token)?;
    std::os::unix::fs::symlink(
        env!("CARGO_BIN_EXE_healthcheck-operator"),
        directory.path().join("kubectl-healthcheck"),
    )?;
    std::os::unix::fs::symlink(room.node.fact("KUBECTL"), directory.path().join("kubectl"))?;

    let mut command = Command::new(directory.path().join("kubectl"));
    command.args(["healthcheck", "probe", "outside", "--namespace", namespace, "--operator-namespace", namespace]);
    command.arg("--token-file").arg(&file).arg("--kubeconfig").arg(room.node.fact("KUBECONFIG"));
    command.env("PATH", directory.path()).env("HOME", directory.path());
    let said = shell::run(&mut command).await?;
    ensure!(said == format!("a {}: healthy\n", hosts[0].at(HTTP_PORT)), "{said}");
    Ok(())
}

//! The cluster's console sessions of the README, played as they are written there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use crate::stage::{SOON, Stage, condition};
use crate::suite::Suite;
use crate::support::console::{Step, blocks};
use crate::support::control_plane::ControlPlane;
use crate::support::identity::kubeconfig;
use crate::support::netns::fresh_address;
use crate::support::ports::free_port;
use crate::support::programs::Programs;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("readme::the_cluster_sessions_print_what_they_say", sessions),
        suite.trial("readme::the_session_of_a_database_outside_moves_traffic", outside),
    ]
}

/// A shell whose kubectl is the real one and whose namespace is the stage's.
struct Shell {
    programs: PathBuf,
    home: PathBuf,
    config: PathBuf,
}

impl Shell {
    fn new(stage: &Stage) -> anyhow::Result<Self> {
        let cluster = &stage.cluster;
        let home = cluster.directory().join(format!("home-{}", stage.namespace));
        std::fs::create_dir_all(&home)?;
        let config = home.join("config");
        let user = kubeconfig(&cluster.url(), Some(cluster.ca_pem()), cluster.admin(), &stage.namespace)?;
        std::fs::write(&config, serde_json::to_vec_pretty(&user)?)?;
        let kubectl = Programs::locate()?.path("kubectl");
        let programs = kubectl.parent().context("kubectl is nowhere")?.to_owned();
        Ok(Self { programs, home, config })
    }

    /// Plays a session of the README: every command succeeds and prints what is written there.
    async fn play(&self, name: &str) -> anyhow::Result<()> {
        let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
        let found = blocks(&readme)?.into_iter().find(|block| block.name == name);
        let block = found.with_context(|| format!("README.md has no session {name:?}"))?;
        for step in block.steps {
            let output = self.run(&step.command).await?;
            aligned(&step).check(&squeezed(&output)).with_context(|| format!("README.md, session {name:?}"))?;
        }
        Ok(())
    }

    /// What a command prints, both streams in their order.
    async fn run(&self, command: &str) -> anyhow::Result<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(self.programs.clone()).chain(std::env::split_paths(&path)))?;
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &format!("exec 2>&1\n{command}")]).current_dir(env!("CARGO_MANIFEST_DIR"));
        shell.env("PATH", path).env("HOME", &self.home).env("KUBECONFIG", &self.config);
        let ran = tokio::time::timeout(SOON, shell.stdin(Stdio::null()).kill_on_drop(true).output());
        let ran = ran.await.with_context(|| format!("{command} did not end"))??;
        let output = String::from_utf8(ran.stdout)?;
        ensure!(ran.status.success(), "$ {command}\n{output}{}", ran.status);
        Ok(output)
    }
}

/// A step whose columns may be as wide as they like.
fn aligned(step: &Step) -> Step {
    let expected = step.expected.iter().map(|line| squeezed(line).trim_end().to_owned()).collect();
    Step { command: step.command.clone(), expected }
}

/// Runs of spaces as one: the widths of kubectl's columns follow what stands in them.
fn squeezed(text: &str) -> String {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

async fn sessions(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "readme").await?;
    // The reader's Service `web`, with three pods.
    let port = free_port();
    let mut pods = Vec::new();
    let mut endpoints = Vec::new();
    for name in ["web-a", "web-b", "web-c"] {
        let address = fresh_address();
        pods.push(HttpTarget::start_on((address, port).into()).await?);
        cluster.pod(&stage.namespace, name, "web", address.into(), true).await?;
        endpoints.push((address.into(), true));
    }
    cluster.service(&stage.namespace, "web", json!({"port": 80, "targetPort": port})).await?;
    cluster.wait_endpoints(&stage.namespace, "web", &endpoints).await?;
    let _operator = stage.operator("hco-0").await?;
    let shell = Shell::new(&stage)?;
    shell.play("cluster").await?;
    for pod in &pods {
        let asked = pod.last_request().context("a pod that was not asked")?;
        ensure!(asked.uri.path() == "/healthz", "{asked:?}");
    }

    pods[1].set_status(500);
    stage.wait_health("web", "Degraded").await?;
    wait_until("the annotation to follow", SOON, || async {
        let slices = cluster.slices(&stage.namespace, "web").await?;
        let text = slices.iter().filter_map(|slice| slice.metadata.annotations.as_ref());
        let degraded = text.flatten().any(|(_, value)| value.contains("Degraded"));
        ensure!(degraded, "{slices:?}");
        anyhow::Ok(())
    })
    .await?;
    shell.play("cluster-degraded").await
}

/// The hosts of `examples/outside-database.yaml`, as Patroni would have them answer; the third one has no address here.
async fn outside(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "readmegate").await?;
    let mut hosts = Vec::new();
    for last in [11, 12] {
        hosts.push(HttpTarget::start_on(([10, 20, 0, last], 8008).into()).await?);
    }
    hosts[1].set_status(503);
    let _operator = stage.operator("hco-0").await?;
    let shell = Shell::new(&stage)?;
    shell.play("cluster-gate").await?;
    let published = async |wanted: [bool; 2]| {
        wait_until("the slice to follow", SOON, || async {
            let slices = cluster.slices(&stage.namespace, "orders-db").await?;
            let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
            let ready: Vec<_> = endpoints.filter_map(|endpoint| endpoint.conditions.as_ref()?.ready).collect();
            ensure!(ready == wanted, "{ready:?}");
            anyhow::Ok(())
        })
        .await
    };
    published([true, false]).await?;
    let enforced = |check: &_| condition(check, "GatesApplied") == "True/Enforced";
    stage.wait("orders-db", "the gate to enforce the verdicts", enforced).await?;
    shell.play("cluster-gate-published").await?;
    let asked = hosts[0].last_request().context("it was not asked")?;
    ensure!(asked.uri.path() == "/primary", "{asked:?}");
    hosts[0].set_status(503);
    hosts[1].set_status(200);
    published([false, true]).await?;
    shell.play("cluster-gate-moved").await
}

//! Scripts in a cluster: off unless allowed, and then run by the runner, never by the controller.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, health, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::operator::BINARY;
use crate::support::process::Process;
use crate::support::targets::HttpTarget;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("scripts::are_off_unless_allowed", off),
        suite.trial("scripts::are_run_by_the_runner_and_its_absence_is_no_failure", runner),
    ]
}

/// A folder of a trial's own, and what its script leaves there.
struct Folder(PathBuf);

impl Folder {
    fn new(stage: &Stage) -> anyhow::Result<Self> {
        let path = stage.cluster.directory().join(format!("scripts-{}", stage.namespace));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// How often the script was run.
    fn runs(&self) -> usize {
        std::fs::read(self.file("runs")).map_or(0, |bytes| bytes.len())
    }

    /// Says that it ran, then fails while there is a file `broken`.
    fn spec(&self) -> Value {
        let (runs, broken) = (self.file("runs"), self.file("broken"));
        let source = format!(
            "printf x >> {}\nif [ -e {} ]; then echo disk is full; exit 1; fi\n",
            runs.display(),
            broken.display()
        );
        json!({
            "interval": "300ms", "timeout": "300ms", "failureThreshold": 2, "successThreshold": 2, "staleAfter": "6s",
            "targets": [{"name": "disk", "probe": {"script": {"source": source}}}],
        })
    }
}

async fn off(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "scriptsoff").await?;
    let folder = Folder::new(&stage)?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    stage.apply("disk", folder.spec()).await?;
    let check = stage.wait("disk", "the refusal", |check| condition(check, "Ready") == "False/ScriptsDisabled").await?;
    ensure!(message(&check, "Ready").contains("scripts.enabled"), "{}", message(&check, "Ready"));
    ensure!(health(&check) == "Unknown", "{:?}", check.status);
    // Life goes on for others, and the script is not run.
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    web.wait_hits(10, SOON).await?;
    ensure!(folder.runs() == 0, "run all the same");
    Ok(())
}

async fn runner(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "scripts").await?;
    let folder = Folder::new(&stage)?;
    // The path of a socket is short, and the run's directory may not be.
    let short = tempfile::tempdir()?;
    let socket = short.path().join("runner.sock");
    let running = start_runner(&socket, &folder)?;
    let command = stage.command("hco-0", None)?.arg("--allow-scripts").arg("--runner-socket").arg(&socket);
    let _operator = stage.serve(command).await?;

    stage.apply("disk", folder.spec()).await?;
    let check = stage.wait_health("disk", "Healthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    // The first success decides: a second run need not have been.
    ensure!(folder.runs() > 0, "Healthy without a run");

    std::fs::write(folder.file("broken"), "")?;
    let check = stage.wait_health("disk", "Unhealthy").await?;
    let told = row(&check);
    ensure!(told["reason"] == "ExitCode" && told["message"] == "exit code 1: disk is full", "{told}");
    std::fs::remove_file(folder.file("broken"))?;
    stage.wait_health("disk", "Healthy").await?;

    // Without its runner nothing can be seen: that is no failure of the disk's.
    let record = stage.record().await?;
    running.kill()?;
    let missing = |check: &HealthCheck| row(check)["reason"] == "RunnerUnreachable";
    let check = stage.wait("disk", "the runner to be missed", missing).await?;
    let (told, counters) = (row(&check), row(&check)["counters"].clone());
    ensure!(health(&check) == "Healthy" || condition(&check, "Healthy") == "Unknown/Stale", "{:?}", check.status);
    let failures = ["connect", "http", "timeout"].map(|class| counters[class].as_u64());
    ensure!(failures == [Some(0); 3], "counted as a failure: {told}");
    stage.wait("disk", "the verdict to go stale", |check| condition(check, "Healthy") == "Unknown/Stale").await?;

    let before = folder.runs();
    let _again = start_runner(&socket, &folder)?;
    stage.wait_health("disk", "Healthy").await?;
    ensure!(folder.runs() > before, "Healthy without a run");
    let seen = record.history("disk", health)?;
    ensure!(seen.iter().all(|word| word != "Unhealthy"), "{seen:?}");
    Ok(())
}

/// The real runner.
fn start_runner(socket: &Path, folder: &Folder) -> anyhow::Result<Process> {
    let args = ["runner".to_owned(), "--socket".to_owned(), socket.display().to_string()];
    Process::start(Path::new(BINARY), &args, &[], &folder.file("runner.log"))
}

/// What the status says of the only target.
fn row(check: &HealthCheck) -> Value {
    json!(check.status)["targets"][0].clone()
}

//! The node that all shows share, made by `tests/node`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::OnceCell;

use crate::shell;
use crate::support::run_dir::sub_dir;
use crate::support::wait::wait_until;

/// A definition is usable within moments.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// Cargo's profile for the operator's images: what ships would be compiled for most of the suite's time.
const PROFILE: &str = "e2e";

/// A node that is up. It goes with this process, however that ends.
pub struct Node {
    run: PathBuf,
    facts: BTreeMap<String, String>,
    holder: Mutex<Option<(Child, ChildStdin)>>,
    traces: String,
    client: OnceCell<Client>,
    crds: OnceCell<()>,
}

/// One of the scripts that make up a node; `None`: as `tests/node/SCRIPT` is, without a run.
fn script(name: &str, run: Option<&Path>) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node").join(name));
    command.envs(run.map(|run| ("NODE_RUN", run)));
    command
}

/// Whether this machine can have a node.
///
/// # Errors
/// Why not.
pub fn possible() -> anyhow::Result<()> {
    ensure!(cfg!(target_os = "linux"), "a node needs Linux");
    ensure!(rustix::process::geteuid().is_root(), "a node needs root");
    let tried = Command::new("unshare").args(["--net", "--mount", "--", "true"]).stdin(Stdio::null()).output();
    let tried = tried.context("cannot run `unshare` (Debian: util-linux)")?;
    let said = String::from_utf8_lossy(&tried.stderr);
    ensure!(tried.status.success(), "cannot make a network namespace: {}", said.trim_end());
    if let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS") {
        let kubelet = Path::new(&assets).join("kubelet");
        ensure!(kubelet.exists(), "KUBEBUILDER_ASSETS has no kubelet; unset it to have all programs built");
    }
    let packages = script("packages.sh", None).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&packages.stderr);
    ensure!(packages.status.success(), "{}", said.trim_end());
    Ok(())
}

impl Node {
    /// Brings a node up; builds first what is not built yet.
    ///
    /// # Errors
    /// When it does not come up; what it said is on our stderr.
    pub fn up() -> anyhow::Result<Self> {
        let run = sub_dir("node");
        let traces = traces(&run)?;
        let mut holder = script("hold", Some(&run))
            .env("PROFILE", PROFILE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt at the terminal ends us, and our end ends the node in good order.
            .process_group(0)
            .spawn()
            .context("cannot run tests/node/hold")?;
        let input = holder.stdin.take().context("a child without stdin")?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().context("a child without stdout")?).read_line(&mut said)?;
        ensure!(said == "ready\n", "tests/node/up failed; what it said is above");
        let facts = read_facts(&run)?;
        println!("node ready after {} s", facts.get("READY_SECONDS").map_or("?", String::as_str));
        let holder = Mutex::new(Some((holder, input)));
        Ok(Self { run, facts, holder, traces, client: OnceCell::new(), crds: OnceCell::new() })
    }

    /// Takes it down, and looks whether it left anything on this machine.
    ///
    /// # Errors
    /// When it could not be taken down, or what is left.
    pub fn down(&self) -> anyhow::Result<()> {
        let held = self.holder.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some((mut holder, input)) = held else { return Ok(()) };
        drop(input);
        let status = holder.wait()?;
        ensure!(status.success(), "tests/node/down ended with {status}");
        let (before, after) = (&self.traces, traces(&self.run)?);
        // Somebody else's node comes and goes as it likes.
        let own = format!("network namespace {}", self.fact("NAME"));
        let foreign = |line: &str| line.starts_with("network namespace ") && !line.starts_with(&own);
        if before.lines().chain(after.lines()).any(foreign) {
            return Ok(());
        }
        let kept: Vec<_> = after.lines().filter(|line| !before.lines().any(|was| was == *line)).collect();
        let lost: Vec<_> = before.lines().filter(|line| !after.lines().any(|is| is == *line)).collect();
        ensure!(kept.is_empty() && lost.is_empty(), "left behind: {kept:#?}; taken away: {lost:#?}");
        Ok(())
    }

    /// A fact of the run; see `tests/node/README.md`.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn fact(&self, name: &str) -> &str {
        self.facts.get(name).unwrap_or_else(|| panic!("the node's facts have no {name}"))
    }

    /// The run's directory.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// One of the scripts of `tests/node`, for this node, to its end.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn script(&self, name: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.script_command(name);
        command.args(args);
        shell::run(&mut command.into()).await
    }

    /// The same, still to be run.
    pub fn script_command(&self, name: &str) -> Command {
        script(name, Some(&self.run))
    }

    /// `kubectl` as the administrator.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = tokio::process::Command::new(self.fact("KUBECTL"));
        command.arg("--kubeconfig").arg(self.fact("KUBECONFIG"));
        command.arg("--cache-dir").arg(self.run.join("kubectl-cache"));
        shell::run(command.args(args)).await
    }

    /// The administrator's client.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let connect = || async {
            let file = Kubeconfig::read_from(self.fact("KUBECONFIG"))?;
            let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            // A test is to see each answer, not the last one of several tries.
            config.default_retry = false;
            anyhow::Ok(Client::try_from(config)?)
        };
        self.client.get_or_try_init(connect).await.cloned()
    }

    /// Sees to it that the CRDs are there: those that a chart left, or else ours.
    ///
    /// # Errors
    /// When the API server does not take them.
    pub async fn need_crds(&self) -> anyhow::Result<()> {
        let install = || async {
            let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
            self.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", crds]).await?;
            let established = ["wait", "--for=condition=Established", "--timeout=20s", "--filename", crds];
            // kubectl gives up at once on a definition that has no conditions at all yet.
            wait_until("the definitions to be established", ESTABLISHED, || async {
                self.kubectl(&established).await.map(|_| ())
            })
            .await
        };
        self.crds.get_or_try_init(install).await.copied()
    }
}

fn traces(run: &Path) -> anyhow::Result<String> {
    let output = script("traces", Some(run)).stdin(Stdio::null()).output()?;
    ensure!(output.status.success(), "tests/node/traces: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn read_facts(run: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(run.join("env"))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

//! How long it takes from the last failed probe to the slice, and from there to kube-proxy's rules. Figures only:
//! nothing is asserted of them.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::hosts::{Host, PROBED};
use crate::node::Node;

/// A watch of the node's firewall, as the kernel tells of changes.
pub struct Pace {
    changes: Arc<Mutex<Vec<Instant>>>,
    _monitor: Child,
}

impl Pace {
    /// Watches what kube-proxy changes for one Service. It names its chains and sets after it.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub async fn watch(node: &Node, namespace: &str, service: &str) -> anyhow::Result<Self> {
        let mut command: tokio::process::Command = node.script_command("enter").into();
        let mut monitor = command
            .args(["stdbuf", "-oL", "nft", "monitor"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run nft")?;
        let mut lines = BufReader::new(monitor.stdout.take().context("a child without stdout")?).lines();
        let changes: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let (into, part) = (Arc::clone(&changes), format!("{namespace}/{service}/"));
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(&part) {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                }
            }
        });
        Ok(Self { changes, _monitor: monitor })
    }

    /// Prints how long it took until `host` was taken out of the slice, which was heard at `written`, and out of the
    /// rules. `begun`: nothing was written for a while before.
    ///
    /// # Errors
    /// When the host's log cannot be read.
    pub fn tell(&self, fault: &str, host: &Host, begun: Instant, written: Instant) -> anyhow::Result<()> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // kube-proxy may hear of the slice, and act, before we do.
        let rules =
            changes.iter().find(|at| **at > begun).map(|at| milliseconds(at.saturating_duration_since(written)));
        let rules = rules.unwrap_or_else(|| String::from("not seen"));
        // What answers tells when its last answer was; what does not answer cannot.
        let probe = last_failure(host, begun, written)?.map(|at| milliseconds(written - at));
        let probe = probe.map(|took| format!("last failed probe to slice {took}, ")).unwrap_or_default();
        println!("  {fault}: {probe}slice to kube-proxy's rules {rules} (its own pace: at most once a second)");
        Ok(())
    }
}

fn milliseconds(took: Duration) -> String {
    format!("{} ms", took.as_millis())
}

/// When the last probe between the two was answered by something else than 200; `None` where none was answered.
fn last_failure(host: &Host, begun: Instant, written: Instant) -> anyhow::Result<Option<Instant>> {
    let (now, clock) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?);
    let log = std::fs::read_to_string(host.log("http"))?;
    let failed = log.lines().filter(|line| line.contains(PROBED) && !line.contains("\" 200 "));
    let times = failed.filter_map(|line| line.split(' ').next()?.parse::<f64>().ok());
    let instants = times.filter_map(|at| now.checked_sub(clock.checked_sub(Duration::try_from_secs_f64(at).ok()?)?));
    Ok(instants.filter(|at| (begun..written).contains(at)).max())
}

//! Programs that are run to their end.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

/// No command may take longer; Helm's own bounds are shorter.
const WITHIN: Duration = Duration::from_secs(200);

/// Runs a command without input and returns what it printed.
///
/// # Errors
/// When it cannot be run, takes too long (it is killed then) or fails, with what it said.
pub async fn run(command: &mut Command) -> anyhow::Result<String> {
    let (said, _) = run_both(command).await?;
    Ok(said)
}

/// The same, with what it said on stderr beside.
///
/// # Errors
/// As [`run`].
pub async fn run_both(command: &mut Command) -> anyhow::Result<(String, String)> {
    let what = describe(command);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(WITHIN, running).await.with_context(|| format!("{what}: took too long"))?;
    let output = output.with_context(|| format!("{what} cannot be run"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{what}: {}", said.trim_end());
    Ok((String::from_utf8(output.stdout)?, said))
}

/// Signals a process of the node.
///
/// # Errors
/// When there is none of that number.
pub fn signal(process: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(process.try_into()?).context("no process has the number 0")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal the process {process}"))
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

//! `healthcheck-operator install`: this program, for a container whose image has none of it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::Exit;

/// Copy this program to a file, so that a container of another image can run it
#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 copied, 2 the file cannot be written.")]
pub struct InstallArgs {
    /// The file to write; one that is there is replaced at once, never seen half-written
    file: PathBuf,
}

/// Copies, and names what it wrote only where that failed.
///
/// # Errors
/// The file cannot be written.
pub fn run(args: &InstallArgs) -> anyhow::Result<Exit> {
    let mut part = args.file.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let copied = fs::copy("/proc/self/exe", &part)
        .and_then(|_| fs::set_permissions(&part, PermissionsExt::from_mode(0o755)))
        .and_then(|()| fs::rename(&part, &args.file));
    if copied.is_err() {
        let _ = fs::remove_file(&part);
    }
    copied.with_context(|| format!("cannot write {}", args.file.display()))?;
    Ok(Exit::Ok)
}

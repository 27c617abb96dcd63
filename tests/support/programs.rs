//! Where the cluster's programs are, and what to do on a machine that cannot have them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// A directory with kube-apiserver, kube-controller-manager, etcd and kubectl.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// `$KUBEBUILDER_ASSETS`, or what `tests/cluster/build.sh` built: at once when cached, after
    /// some minutes when not.
    ///
    /// # Errors
    /// The build script's last line, when it failed.
    pub fn locate() -> anyhow::Result<Self> {
        ensure!(cfg!(target_os = "linux"), "kube-apiserver and etcd run on Linux only");
        script("build.sh").map(Self)
    }

    /// The path of one program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether the directory has the program: setup-envtest's has no kube-controller-manager.
    pub fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }
}

/// Runs a script of `tests/cluster` that prints a directory and returns that directory. Its
/// progress goes to our stderr.
///
/// # Errors
/// When it cannot be run, fails (with the last line it said) or prints no directory.
pub fn script(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster").join(name);
    let mut child = Command::new(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", path.display()))?;
    // It prints its one line at the end, so its stdout cannot fill up while stderr is read.
    let progress = BufReader::new(child.stderr.take().context("a child without stderr")?);
    let mut last = String::new();
    for line in progress.lines() {
        last = line?;
        eprintln!("{last}");
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{last}");
    let directory = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
    ensure!(directory.is_dir(), "{} printed no directory but {directory:?}", path.display());
    Ok(directory)
}

/// Says that a tier is skipped and returns the exit code to end with: 0 for a developer, 1 under
/// `CI=true`, where a skip would hide that nothing was tested.
pub fn skip(why: &impl std::fmt::Display) -> i32 {
    println!("SKIP {why}");
    i32::from(std::env::var("CI").is_ok_and(|ci| ci == "true"))
}

//! `healthcheck-operator runner`: runs scripts for the controller, without its credentials.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, value_parser};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, script_args::ScriptLimitArgs};
use crate::probe::{
    runner::Server,
    script::{DEFAULT_CONCURRENCY, Scripts, Setup, adopt_orphans, can_seal, end_orphans, sweep_rooms},
};

/// Where Kubernetes mounts a pod's credentials.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where runners listen.
#[derive(Args, Clone, Debug)]
pub(super) struct SocketArg {
    /// The runner's Unix socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/healthcheck-operator/runner.sock",
        env = "HEALTHCHECK_OPERATOR_RUNNER_SOCKET"
    )]
    pub socket: PathBuf,
}

/// Run scripts for the controller, which never runs them beside its own credentials
#[derive(Args, Clone, Debug)]
pub struct RunnerArgs {
    #[command(flatten)]
    place: SocketArg,
    /// Scripts that run at once, 1-1024
    #[arg(
        long, value_name = "N", default_value_t = DEFAULT_CONCURRENCY as u32, value_parser = value_parser!(u32).range(1..=1024),
        env = "HEALTHCHECK_OPERATOR_MAX_SCRIPTS"
    )]
    max_scripts: u32,
    /// Scripts of one namespace that run at once [default: half of --max-scripts]
    #[arg(
        long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024),
        env = "HEALTHCHECK_OPERATOR_MAX_SCRIPTS_PER_NAMESPACE"
    )]
    max_scripts_per_namespace: Option<u32>,
    #[command(flatten)]
    limits: ScriptLimitArgs,
    /// Start even where a service account token is mounted, which every script can then read
    #[arg(long, env = "HEALTHCHECK_OPERATOR_ALLOW_SERVICE_ACCOUNT_TOKEN")]
    allow_service_account_token: bool,
}

impl RunnerArgs {
    /// Where the socket is.
    fn folder(&self) -> &Path {
        self.place.socket.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn setup(&self) -> Setup {
        let half = self.max_scripts.div_ceil(2);
        Setup {
            at_once: self.max_scripts as usize,
            per_namespace: self.max_scripts_per_namespace.unwrap_or(half) as usize,
            limits: self.limits.limits(),
            sealed: Some(self.folder().to_owned()),
            ..Setup::default()
        }
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// A token is mounted, the socket cannot be had, or is lost.
pub fn run(args: &RunnerArgs) -> anyhow::Result<Exit> {
    if !args.allow_service_account_token {
        refuse_token(Path::new(TOKEN))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))?;
    Ok(Exit::Ok)
}

fn refuse_token(token: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        !token.exists(),
        "a service account token is mounted at {}: every script could read it; set automountServiceAccountToken: false \
         for this pod, or give --allow-service-account-token",
        token.display()
    );
    Ok(())
}

async fn serve(args: &RunnerArgs) -> anyhow::Result<()> {
    // Scripts run as the same user: they may neither read this process's environment nor take it over.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("cannot keep scripts from looking into this process")?;
    // What a script leaves behind becomes our child, also where we are not the container's first process.
    adopt_orphans().context("cannot become the parent of what scripts leave behind")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut child = signal(SignalKind::child()).context("cannot wait for SIGCHLD")?;
    sweep_rooms();
    let scripts = Scripts::new(&args.setup());
    let path = &args.place.socket;
    let socket = || format!("socket {}", path.display());
    let server = Server::bind(path, scripts).with_context(socket)?;
    tracing::info!(socket = %path.display(), sealed = can_seal(), "scripts are run");
    server
        .serve(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = child.recv() => end_orphans(),
                }
            }
        })
        .await
        .with_context(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_token_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = folder.path().join("token");
        assert!(refuse_token(&token).is_ok());
        std::fs::write(&token, "x").expect("a file");
        let error = refuse_token(&token).expect_err("refused").to_string();
        assert!(error.contains("automountServiceAccountToken: false"), "{error}");
    }
}

//! `kubectl healthcheck`: what people ask of HealthChecks, as a plugin of kubectl.

mod forward;
mod found;
mod history;
mod probe;
mod status;
mod wait;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::{Args, Parser, Subcommand};

use super::{Exit, controller::ConnectionArgs};
use crate::telemetry::LogArgs;

/// The name of the command, and of a file that kubectl takes for its plugin `healthcheck`.
pub const NAME: &str = "kubectl-healthcheck";

/// What the help calls it where the file has that name, for that is what people type.
const TYPED: &str = "kubectl healthcheck";

/// Ask a cluster for its HealthChecks; linked as kubectl-healthcheck, this program is `kubectl healthcheck`
#[derive(Args, Debug)]
#[command(display_name = TYPED, arg_required_else_help = true, after_help = "\
Exit codes: 0 healthy, or what was waited for; 1 unhealthy, or not in time; 2 a flag or a name is wrong; 3 could not tell.")]
pub struct KubectlArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Subcommand, Debug)]
enum Question {
    /// What is down first, since when and why; with names, every endpoint and gate of them
    Status(status::StatusArgs),
    /// Wait until HealthChecks have a verdict
    Wait(wait::WaitArgs),
    /// Ask the operator to probe now, and print what it found
    Probe(probe::ProbeArgs),
    /// The latest outages, newest first
    History(history::HistoryArgs),
}

/// The program where it is nothing but the plugin.
#[derive(Parser, Debug)]
#[command(name = NAME, bin_name = TYPED, version, propagate_version = true, about = "Ask a cluster for its HealthChecks")]
pub struct Alone {
    #[command(flatten)]
    pub args: KubectlArgs,
    #[command(flatten)]
    pub logs: LogArgs,
}

/// Which cluster, as whom, and in which namespace.
#[derive(Args, Debug)]
struct ClusterArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Namespace of the HealthChecks [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Whether kubectl, or somebody else, started the program as the plugin.
pub fn is_called(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name()).and_then(OsStr::to_str);
    name.is_some_and(|name| name.strip_suffix(".exe").unwrap_or(name) == NAME)
}

/// Asks, prints, and says by the exit code what was found.
///
/// # Errors
/// When the kubeconfig or a name is wrong (exit code 2), or the API server does not answer (3).
pub async fn run(args: KubectlArgs) -> anyhow::Result<Exit> {
    match args.question {
        Question::Status(args) => status::run(args).await,
        Question::Wait(args) => wait::run(args).await,
        Question::Probe(args) => probe::run(args).await,
        Question::History(args) => history::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_plugin_by_the_name_that_kubectl_looks_for() {
        let called = |program: &str| is_called(Some(&OsString::from(program)));
        assert!(called("/usr/local/bin/kubectl-healthcheck") && called("kubectl-healthcheck.exe"));
        assert!(!called("healthcheck-operator") && !called("/kubectl-healthcheck/operator") && !is_called(None));
    }
}

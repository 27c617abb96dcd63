//! The command line: arguments, wiring and exit codes; no logic.

#[cfg(feature = "cluster")]
mod controller;
mod crds;
#[cfg(feature = "cluster")]
mod doctor;
mod engine_args;
mod exit;
mod health_checker;
mod install;
#[cfg(feature = "cluster")]
mod kubectl;
mod output;
mod print;
mod probe;
mod runner;
mod runner_door;
mod script_args;
mod signals;
mod standalone;
mod table;
#[cfg(feature = "cluster")]
mod uninstall;
mod validate;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

pub use engine_args::EngineArgs;
pub use exit::Exit;

use crate::{probe::script, telemetry::LogArgs};
use health_checker::Alone;
use print::print;

/// Declares health checks once, probes them cheaply and punctually, and puts the verdict where traffic can use it.
#[derive(Debug, Parser)]
#[command(name = "healthcheck-operator", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: LogArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator: watch HealthChecks in a cluster, probe, and write what was found
    #[cfg(feature = "cluster")]
    Controller(Box<controller::ControllerArgs>),
    /// Print the CustomResourceDefinitions as YAML
    Crds(crds::CrdsArgs),
    /// Probe something once, from here
    Probe(Box<probe::ProbeArgs>),
    /// Copy this program to a file, so that a container of another image can run it
    Install(install::InstallArgs),
    /// Run scripts for the controller, without its credentials
    Runner(runner::RunnerArgs),
    /// Let a controller in another pod ask a runner, by mutual TLS
    RunnerDoor(runner_door::RunnerDoorArgs),
    Standalone(Box<standalone::StandaloneArgs>),
    HealthChecker(health_checker::HealthCheckerArgs),
    /// Check whether the operator can do its work in this cluster
    #[cfg(feature = "cluster")]
    Doctor(doctor::DoctorArgs),
    /// Print a completion script for SHELL
    Completions {
        shell: clap_complete::Shell,
    },
    #[cfg(feature = "cluster")]
    #[command(name = kubectl::NAME)]
    Kubectl(kubectl::KubectlArgs),
    #[cfg(feature = "cluster")]
    Uninstall(uninstall::UninstallArgs),
    /// Check HealthCheck manifests offline: schema, rules, and what they say of each other
    Validate(validate::ValidateArgs),
    /// Print the version
    Version,
}

/// Parses the arguments, runs the command, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    // First and without a word of clap's: a worker is started for scripts, and nobody types this.
    if let Some(worked) = script::work_if_asked(std::env::args_os().skip(1)) {
        return match worked {
            Ok(()) => Exit::Ok.into(),
            Err(error) => {
                print::complain(&error.to_string());
                Exit::Usage.into()
            }
        };
    }
    // One crypto provider, whoever asks for the default. It is refused only where one was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (command, logs) = match parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are not errors; everything else is a usage error, exit code 2.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            let _ = error.print();
            return code.into();
        }
    };
    match logs.init().map_err(Into::into).and_then(|()| run(command)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            print::complain(&print::told(&error));
            Exit::from(&error).into()
        }
    }
}

/// Every command with its flags, for the reference.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// What is asked of the program, by `words` and by the name it is called by, which is the first of them.
fn parse(words: Vec<OsString>) -> clap::error::Result<(Command, LogArgs)> {
    let alone = health_checker::is_called(words.first());
    let mut words = health_checker::spell(words);
    if alone {
        // However the file is called further, that is how the help calls it.
        if let Some(name) = words.first_mut() {
            *name = health_checker::NAME.into();
        }
        return Alone::try_parse_from(words).map(|alone| (Command::HealthChecker(alone.args), alone.logs));
    }
    #[cfg(feature = "cluster")]
    if kubectl::is_called(words.first()) {
        return kubectl::Alone::try_parse_from(words).map(|alone| (Command::Kubectl(alone.args), alone.logs));
    }
    Cli::try_parse_from(words).map(|cli| (cli.command, cli.logs))
}

fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        #[cfg(feature = "cluster")]
        Command::Controller(args) => block_on(controller::run(*args))?,
        Command::Crds(args) => crds::run(&args),
        #[cfg(feature = "cluster")]
        Command::Kubectl(args) => block_on(kubectl::run(args))?,
        #[cfg(feature = "cluster")]
        Command::Doctor(args) => block_on(doctor::run(args))?,
        Command::HealthChecker(args) => block_on(health_checker::run(args))?,
        Command::Probe(args) => probe::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Runner(args) => runner::run(&args),
        Command::RunnerDoor(args) => block_on(runner_door::run(args))?,
        Command::Standalone(args) => block_on(standalone::run(*args))?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), env!("CARGO_PKG_NAME"), &mut script);
            print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Ok)
        }
        #[cfg(feature = "cluster")]
        Command::Uninstall(args) => block_on(uninstall::run(args))?,
        Command::Validate(args) => validate::run(&args),
        Command::Version => {
            print(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), "\n"))?;
            Ok(Exit::Ok)
        }
    }
}

/// Runs `command` on a runtime with a worker per core.
fn block_on<T>(command: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime").map_err(exit::Failed::wrap)?;
    let done = runtime.block_on(command);
    // Something may sit in a blocking call, a read of standard input say; nobody waits for it.
    runtime.shutdown_background();
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags that ask for one thing now, and are no configuration of a server.
    const WITHOUT: [&str; 4] = ["help", "version", "once", "output"];
    /// What one side calls by another name than the other, and is the same.
    const SHARED: [(&str, &str, &str); 2] = [
        ("runner", "socket", "HEALTHCHECK_OPERATOR_RUNNER_SOCKET"),
        ("runner-door", "socket", "HEALTHCHECK_OPERATOR_RUNNER_SOCKET"),
    ];

    #[test]
    fn every_flag_of_what_serves_has_an_environment_variable_of_its_name() {
        let mut cli = Cli::command();
        cli.build();
        let mut seen = 0;
        for name in ["controller", "standalone", "runner", "runner-door"] {
            let Some(command) = cli.find_subcommand(name) else {
                assert!(name == "controller" && !cfg!(feature = "cluster"), "no {name}");
                continue;
            };
            for argument in command.get_arguments() {
                let flag = argument.get_long().unwrap_or_else(|| panic!("{name}: {} is no flag", argument.get_id()));
                if WITHOUT.contains(&flag) {
                    continue;
                }
                let shared = SHARED.iter().find(|(command, known, _)| (*command, *known) == (name, flag));
                let usual = format!("HEALTHCHECK_OPERATOR_{}", flag.replace('-', "_").to_uppercase());
                let wanted = shared.map_or(usual, |(_, _, variable)| (*variable).to_owned());
                let found = argument.get_env().and_then(|name| name.to_str());
                assert_eq!(found, Some(wanted.as_str()), "{name} --{flag}");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen} flags are too few to be all");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        Alone::command().debug_assert();
    }
}

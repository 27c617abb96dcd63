//! `health-checker`: the command that gruntwork's program of this name had.

mod listener;
mod spelling;

use std::time::Duration;

use clap::{ArgAction, Args, Parser, value_parser};
use tokio_util::sync::CancellationToken;

use super::{Exit, signals};
use crate::{
    health_checker::{Asked, HealthChecker, Words},
    server::{Limits, OneListener},
    telemetry::LogArgs,
};
use listener::Listener;

pub use spelling::{NAME, is_called, spell};

/// An answer that is begun at the end gets this long beyond its checks.
const GOODBYE: Duration = Duration::from_secs(1);
/// Whoever ends us kills us after 30 s, if it is a kubelet; others wait longer.
const LONGEST_GOODBYE: Duration = Duration::from_secs(25);

const ABOUT: &str = "Probe ports and run scripts at each HTTP request: a drop-in for gruntwork's health-checker";
const LONG_ABOUT: &str = "\
Probe ports and run scripts at each HTTP request: a drop-in for gruntwork's health-checker

Whatever URL is asked for, by whatever method, all ports and scripts are probed at once, and the answer is 200 `OK` when \
all pass, else 504 `At least one health check failed`, with the names of those that failed in the header \
X-Healthcheck-Failed.";

/// What is probed at each request, and where requests come in.
#[derive(Args, Clone, Debug)]
#[command(
    about = ABOUT, long_about = LONG_ABOUT, display_name = NAME, version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true, arg_required_else_help = true, args_override_self = true,
    after_help = "At least one --port or --script is needed. Linked or renamed to `health-checker`, this program is this command alone."
)]
pub struct HealthCheckerArgs {
    /// A TCP port of this machine that must take a connection, within 5 s or --script-timeout (may be given many times)
    #[arg(long = "port", value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// A program, with arguments after blanks, that must end with exit code 0; '…' and "…" hold an argument with blanks
    /// together (may be given many times)
    #[arg(long = "script", value_name = "CMD")]
    scripts: Vec<Words>,
    /// How long a script may take, in seconds, 1-86400; then all it started is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(1..=86_400))]
    script_timeout: u32,
    /// Let requests that come while others are being answered share their run
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true, action = ArgAction::Set,
        value_name = "BOOL", value_parser = spelling::boolean
    )]
    singleflight: bool,
    /// Where requests are answered, ADDRESS:PORT; [::] means IPv4 too, port 0 any free port
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:5500")]
    listener: Listener,
    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// This command alone, for a program that is called as it is.
#[derive(Debug, Parser)]
#[command(name = NAME, about = ABOUT, long_about = LONG_ABOUT)]
pub struct Alone {
    #[command(flatten)]
    pub args: HealthCheckerArgs,
    #[command(flatten)]
    pub logs: LogArgs,
}

/// Answers requests until SIGTERM or SIGINT, and then finishes those that were begun.
///
/// # Errors
/// A flag is missing or wrong, or the address cannot be listened on.
pub async fn run(args: HealthCheckerArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        !args.ports.is_empty() || !args.scripts.is_empty(),
        "nothing to probe: give at least one --port or --script, such as --port 5432"
    );
    let address = args.listener.address().await?;
    let checker = HealthChecker::new(&Asked {
        ports: args.ports.clone(),
        scripts: args.scripts,
        script_timeout: Duration::from_secs(args.script_timeout.into()),
        single_flight: args.singleflight,
    });
    checker.warn_of_missing();
    let checks = checker.names().collect::<Vec<_>>().join(", ");
    let limits = Limits {
        drain: LONGEST_GOODBYE.min(checker.longest() + GOODBYE),
        // A body is never looked at, whatever its length.
        body: u64::MAX,
        ..Limits::default()
    };
    let asked_to_stop = signals::stop()?;
    let listener = OneListener::bind(NAME, "--listener", address, limits, checker.router())?;
    tracing::info!(address = %listener.address(), checks, singleflight = args.singleflight, "listening");
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        asked_to_stop.await;
        tracing::info!("stopping");
        stopping.cancel();
    });
    listener.serve(stop).await;
    Ok(Exit::Ok)
}

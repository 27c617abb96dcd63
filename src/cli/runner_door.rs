//! `healthcheck-operator runner-door`: the way to a runner from other pods.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use rustls::pki_types::ServerName;

use super::{Exit, signals};
use crate::{
    probe::runner::{Door, PemFiles},
    server::listen,
};

/// Let a controller in another pod ask a runner, by mutual TLS. Runs beside the runner, in a container of its own:
/// scripts run as the runner's user, and could read a key that the runner can
#[derive(Args, Clone, Debug)]
pub struct RunnerDoorArgs {
    /// Where controllers come in, ADDRESS:PORT; [::] means IPv4 too
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8443", env = "HEALTHCHECK_OPERATOR_LISTEN")]
    listen: SocketAddr,
    /// Certificate to show, in PEM; read again when it changes, as are the other files
    #[arg(long, value_name = "FILE", env = "HEALTHCHECK_OPERATOR_TLS_CERT")]
    tls_cert: PathBuf,
    /// Private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", env = "HEALTHCHECK_OPERATOR_TLS_KEY")]
    tls_key: PathBuf,
    /// Certificate authorities of those who may come in, in PEM
    #[arg(long, value_name = "FILE", env = "HEALTHCHECK_OPERATOR_CLIENT_CA")]
    client_ca: PathBuf,
    /// The DNS name that their certificates must bear [default: any]
    #[arg(long, value_name = "NAME", value_parser = parse_name, env = "HEALTHCHECK_OPERATOR_CLIENT_NAME")]
    client_name: Option<ServerName<'static>>,
    /// The runner's Unix socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/healthcheck-operator/runner.sock",
        env = "HEALTHCHECK_OPERATOR_RUNNER_SOCKET"
    )]
    socket: PathBuf,
}

fn parse_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("'{text}' is no DNS name"))
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The address cannot be had, or a file does not hold what it should.
pub async fn run(args: RunnerDoorArgs) -> anyhow::Result<Exit> {
    let stop = signals::stop().context("cannot wait for signals")?;
    let files = PemFiles { authorities: args.client_ca, certificate: args.tls_cert, key: args.tls_key };
    let door = Door::new(files, args.client_name, args.socket)?;
    let listener = listen("--listen", args.listen)?;
    let address = listener.local_addr().context("cannot tell the address")?;
    tracing::info!(%address, "controllers are let in");
    door.serve(listener, stop).await.context("cannot listen")?;
    Ok(Exit::Ok)
}

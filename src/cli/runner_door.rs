//! `healthcheck-operator runner-door`: the way to a runner from other pods.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use axum::{Router, routing::get};
use clap::Args;
use http::StatusCode;
use rustls::pki_types::ServerName;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Exit, runner::SocketArg, signals};
use crate::{
    probe::runner::{Door, PemFiles, is_alive},
    server::{Limits, OneListener, listen},
};

/// How often the runner is asked whether it is there.
const LOOK: Duration = Duration::from_secs(1);
/// Where it is told.
const READY: &str = "/readyz";

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
    #[command(flatten)]
    place: SocketArg,
    /// Where /readyz tells whether the runner answers, ADDRESS:PORT [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "HEALTHCHECK_OPERATOR_HEALTH_LISTEN")]
    health_listen: Option<SocketAddr>,
}

fn parse_name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("'{text}' is no DNS name"))
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// An address cannot be had, or a file does not hold what it should.
pub async fn run(args: RunnerDoorArgs) -> anyhow::Result<Exit> {
    let stop = signals::stop().context("cannot wait for signals")?;
    let files = PemFiles { authorities: args.client_ca, certificate: args.tls_cert, key: args.tls_key };
    let socket = args.place.socket;
    let door = Door::new(files, args.client_name, socket.clone())?;
    let listener = listen("--listen", args.listen)?;
    let address = listener.local_addr().context("cannot tell the address")?;
    let Some(health) = args.health_listen else {
        tracing::info!(%address, "controllers are let in");
        door.serve(listener, stop).await.context("cannot listen")?;
        return Ok(Exit::Ok);
    };
    let (tell, told) = watch::channel(Err("it was not asked yet".to_owned()));
    let router = Router::new().route(READY, get(move || std::future::ready(readyz(&told.borrow()))));
    let health = OneListener::bind("health", "--health-listen", health, Limits::default(), router)?.silent_on(READY);
    tracing::info!(%address, health = %health.address(), "controllers are let in");
    tokio::select! {
        ended = door.serve(listener, stop) => ended.context("cannot listen")?,
        () = watch_over(&socket, &tell) => {}
        () = health.serve(CancellationToken::new()) => {}
    }
    Ok(Exit::Ok)
}

/// Asks the runner again and again, however often somebody wants to know.
async fn watch_over(socket: &Path, tell: &watch::Sender<Result<(), String>>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let found = is_alive(socket).await.map_err(|error| error.to_string());
        let before = tell.send_replace(found.clone());
        match &found {
            Ok(()) if before.is_err() => tracing::info!("the runner answers"),
            Err(error) if before.is_ok() => tracing::warn!(error, "the runner does not answer"),
            _ => {}
        }
    }
}

fn readyz(runner: &Result<(), String>) -> (StatusCode, String) {
    match runner {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("the runner does not answer: {error}\n")),
    }
}

//! `standalone`: the engine and the servers on files, no cluster.

mod blind;
mod once;
mod reload;

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{EngineArgs, Exit, output::Output, print::complain, signals};
use crate::{
    check::Check,
    engine::{self, Board, Engine, Parts, Surroundings},
    on_demand::{self, OnDemand},
    passive::Intake,
    probe::{KeptConnections, Lane, Prober, Settings},
    server::{Access, AdminDefault, Readiness, ServerArgs, ServerConfig, Servers, State, TokenFile},
    source::{Watch, desired},
    telemetry::{Beats, Metrics},
};
use blind::{Blind, Counting};
use reload::Files;

/// Run HealthCheck YAML without a cluster: the engine, /healthz, metrics and the API
#[derive(Args, Debug)]
#[command(after_help = "\
Files that declare nothing are fine while it serves, for more may come: no check at all is Healthy. With --once they are an
error. A bad edit, or one after which nothing is declared any more, is refused and told, and the last good version keeps
running.
Exit codes: 0 stopped by SIGTERM or SIGINT; 2 a flag, a file or a listener is wrong; with --once: 0 healthy or degraded,
1 unhealthy, 3 unknown.")]
pub struct StandaloneArgs {
    /// File or directory with HealthChecks (may be given many times); read again when it changes. Without it, example
    /// checks of this machine and of the program's own listeners are run
    #[arg(
        short,
        long = "filename",
        value_name = "FILE|DIR",
        value_delimiter = ',',
        env = "HEALTHCHECK_OPERATOR_FILENAME"
    )]
    filename: Vec<PathBuf>,
    /// Probe until every endpoint is decided, print a table, and exit: 0 healthy or degraded, 1 unhealthy, 3 unknown.
    /// No listener is opened
    #[arg(long)]
    once: bool,
    /// How --once prints
    #[arg(short, long, value_enum, default_value_t = Output::Text, requires = "once")]
    output: Output,
    /// File with the bearer token that /v1 asks for; without it, /v1 is open
    #[arg(long, value_name = "FILE", env = "HEALTHCHECK_OPERATOR_API_TOKEN_FILE")]
    api_token_file: Option<PathBuf>,
    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What runs without a listener.
struct Running {
    engine: Engine,
    board: Arc<Board>,
    metrics: Metrics,
    beats: Beats,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn prober(args: &EngineArgs, connections: KeptConnections) -> Prober {
    Prober::new(Settings {
        connections,
        spare: args.limits().spare(),
        fast_lane: args.fast_lane(),
        ..Settings::standalone()
    })
}

impl Running {
    fn start(args: &EngineArgs, lane: Arc<impl Lane>, metrics: Metrics) -> Self {
        let (board, stop) = (Arc::new(Board::new()), CancellationToken::new());
        let beats = Beats::default();
        let parts = Parts {
            lane,
            board: board.clone(),
            limits: args.limits(),
            surroundings: Surroundings::default(),
            metrics: metrics.clone(),
            beats: beats.clone(),
        };
        let (engine, ended) = engine::start(parts, stop.clone());
        Self { engine, board, metrics, beats, stop, ended }
    }

    async fn stop(self) {
        self.stop.cancel();
        // A panic in the engine has been printed already.
        let _ = self.ended.await;
    }
}

/// What is wrong where anybody could report, and eject whatever there is.
fn open_to_all(config: &ServerConfig, guarded: bool) -> Option<String> {
    let envoy = config.envoy_listen.filter(|envoy| !guarded && !envoy.ip().to_canonical().is_loopback())?;
    Some(format!(
        "--envoy-listen {envoy} lets whoever reaches it report: give --api-token-file a file with a token, or listen on \
         127.0.0.1:{}",
        envoy.port()
    ))
}

/// Runs `standalone` until it is told to stop, or with `--once` until every endpoint is decided.
///
/// # Errors
/// What is wrong with a flag, a file or a listener's address, in one line each.
pub async fn run(args: StandaloneArgs) -> anyhow::Result<Exit> {
    let config = args.servers.config(AdminDefault::Loopback).map_err(anyhow::Error::msg)?;
    if !args.once
        && let Some(refused) = open_to_all(&config, args.api_token_file.is_some())
    {
        complain(&refused);
        return Ok(Exit::Usage);
    }
    if args.once && args.filename.is_empty() {
        // The example asks the program's own listeners, and --once opens none.
        complain(&"--once: name with --filename what is to be probed");
        return Ok(Exit::Usage);
    }
    if args.filename.is_empty() {
        tracing::warn!("no --filename: running the example checks of this machine and of the program's own listeners");
    }
    let mut files = Files::new(args.filename.clone());
    let checks = match files.read() {
        Ok(checks) => checks,
        Err(faults) => {
            for fault in &faults {
                complain(fault);
            }
            return Ok(Exit::Usage);
        }
    };
    if args.once {
        if checks.is_empty() {
            // A pipeline whose path is wrong must not go on as if all were well.
            complain(&nothing_in(&args.filename));
            return Ok(Exit::Usage);
        }
        let blind = Blind::default();
        let lane = Arc::new(Counting { lane: prober(&args.engine, KeptConnections::default()), blind: blind.clone() });
        let running = Running::start(&args.engine, lane, Metrics::default());
        let exit = once::run(&running, &blind, checks, args.output).await;
        running.stop().await;
        return exit;
    }
    let access = match &args.api_token_file {
        Some(file) => Access::Token(
            TokenFile::open(file)
                .with_context(|| format!("cannot use {}", file.display()))
                .context("--api-token-file")?,
        ),
        None => Access::Open,
    };
    let mut watch = Watch::new(&args.filename).context("cannot watch the files of --filename")?;
    let metrics = Metrics::default();
    let connections = KeptConnections {
        limit: EngineArgs::kept_connections(),
        idle: metrics.kept_connections.clone(),
        lost: metrics.lost_connections.clone(),
    };
    let lane = Arc::new(prober(&args.engine, connections));
    let running = Running::start(&args.engine, lane.clone(), metrics);
    let on_demand = OnDemand::with(on_demand::Settings {
        attempts: args.engine.limits().on_demand(),
        board: Some(running.board.clone()),
        ..on_demand::Settings::default()
    });
    on_demand.begin(lane, running.engine.clone());
    let passive = Intake::new(running.metrics.observations.clone());
    let servers = Servers::bind(
        &config,
        State {
            passive: passive.clone(),
            board: running.board.clone(),
            beats: running.beats.clone(),
            readiness: Readiness::default(),
            metrics: running.metrics.clone(),
            access,
            on_demand: Some(on_demand),
        },
    )?;
    if checks.is_empty() {
        // Fine here, for files may come: an empty set is Healthy, as it is in a cluster.
        tracing::warn!("{}", nothing_in(&args.filename));
    }
    files.apply(checks, &running.engine).await;
    running.engine.settle().await;
    running.board.set_synced();
    // Not before: what is said of a check that is not there yet would be lost.
    passive.begin(running.engine.clone());
    running.metrics.config_reload_success.set(1);
    let serving = tokio::spawn(servers.serve(running.stop.clone()));
    let stop = signals::stop()?;
    let mut hangup = signals::hangup()?;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = watch.changed() => reload(&mut files, &running).await,
            _ = hangup.recv() => {
                tracing::info!("SIGHUP: reading the files again");
                reload(&mut files, &running).await;
            }
        }
    }
    running.stop.cancel();
    let _ = serving.await;
    running.stop().await;
    Ok(Exit::Ok)
}

/// What to say when there is nothing to check.
fn nothing_in(filenames: &[PathBuf]) -> String {
    let names: Vec<_> = filenames.iter().map(|path| path.display().to_string()).collect();
    format!("{}: holds no HealthCheck: give a file or directory that does", names.join(", "))
}

/// Applies the files as they are now; a set with a fault changes nothing.
async fn reload(files: &mut Files, running: &Running) {
    let Some(reading) = files.read_again() else {
        tracing::debug!("the files say what they said before");
        return;
    };
    match reading {
        // Half-written and truncated files read as empty, and an empty board would answer Healthy.
        Ok(checks) if checks.is_empty() && files.any() => {
            running.metrics.config_reload_success.set(0);
            tracing::error!(
                "no HealthCheck is declared any more: the last good version keeps running; to check nothing, start anew"
            );
        }
        Ok(checks) => {
            let change = files.apply(checks, &running.engine).await;
            let mended = running.metrics.config_reload_success.set(1) == 0;
            if mended || change.any() {
                tracing::info!(applied = change.applied, removed = change.removed, "files applied");
            }
        }
        Err(faults) => {
            running.metrics.config_reload_success.set(0);
            for fault in &faults {
                tracing::error!("{fault}");
            }
            tracing::error!("files refused: the last good version keeps running");
        }
    }
}

/// Sends `check` to `engine`.
async fn send(engine: &Engine, check: Arc<Check>) {
    engine.upsert(desired(check)).await;
}

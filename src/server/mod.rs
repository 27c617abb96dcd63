//! The two listeners: what load balancers and people see, and what operators of the operator see; and `one`, which is
//! bare of both, for commands with an answer of their own.
//!
//! Every answer is read off the board: no probe is run and no API is called for it, unless one is asked for (`probe_now`). A board that is not current reads
//! as Unknown everywhere. Both listeners have a thread of their own, so that no answer waits for a probe.

mod accept;
mod admin;
mod auth;
mod bind;
mod blackbox;
mod config;
mod connections;
mod envoy;
mod exposition;
mod fresh;
mod lane;
mod observations;
mod one;
mod probe_now;
mod public;
mod query;
mod readiness;
mod render;
mod reporters;
mod respond;
mod serve;
mod stall;
mod tls;
mod verdict;
mod verdict_metrics;

use std::{fmt, io, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use prometheus_client::{metrics::info::Info, registry::Registry};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use auth::{Access, AccessRequest, Authorizer, Decision, TokenFile};
pub use bind::{BindError, listen};
pub use config::{AdminDefault, Answers, Details, Limits, ServerArgs, ServerConfig, TlsFiles};
pub use one::OneListener;
pub use readiness::Readiness;
pub use tls::TlsError;

use accept::Accepting;
use reporters::Reporters;

use crate::{
    engine::Board,
    on_demand::OnDemand,
    passive::Intake,
    telemetry::{Beats, Metrics, process},
};

/// What the listeners tell of.
#[derive(Clone, Debug)]
pub struct State {
    pub board: Arc<Board>,
    pub beats: Beats,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// Who may use `/v1`.
    pub access: Access,
    /// Probes when somebody asks; `None`: nobody can.
    pub on_demand: Option<OnDemand>,
    /// Takes in what data planes report.
    pub passive: Intake,
}

/// Why the listeners cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Holds its cause, which therefore is no `source` to be printed again.
    #[error("cannot start the thread of the listeners: {0}; raise the limits on processes and open files")]
    Thread(io::Error),
}

/// Both listeners, bound and not yet served.
pub struct Servers {
    public: serve::Listener,
    admin: serve::Listener,
    envoy: Option<envoy::EnvoyListener>,
    lane: lane::Lane,
    public_address: SocketAddr,
    admin_address: SocketAddr,
    envoy_address: Option<SocketAddr>,
    /// Ends when the listeners do.
    certificate: Option<BoxFuture<'static, ()>>,
    stop_certificate: CancellationToken,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("public", &self.public_address).field("admin", &self.admin_address).finish()
    }
}

impl Servers {
    /// Takes hold of both addresses. From then on the kernel accepts connections; they are answered by [`Self::serve`].
    ///
    /// The current runtime stays the one on which an [`Authorizer`] is asked: a client's connections live on the runtime
    /// that opened them, and those of the rest of the process must not end with the listeners.
    ///
    /// # Errors
    /// Names the flag and the mend when an address cannot be listened on or the certificate cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(config: &ServerConfig, state: State) -> Result<Self, ServerError> {
        let stop_certificate = CancellationToken::new();
        let tls = config.tls.as_ref().map(|files| tls::prepare(files, stop_certificate.clone())).transpose()?;
        let (tls, certificate) = tls.unzip();
        let tls_for_grpc = tls.as_deref().map(tls::for_grpc);
        let tls = tls.map(TlsAcceptor::from);
        let public_socket = bind::listen("--listen", config.listen)?;
        let admin_socket = bind::listen("--admin-listen", config.admin_listen)?;
        let envoy_socket = config.envoy_listen.map(|address| bind::listen("--envoy-listen", address)).transpose()?;
        let envoy_address = envoy_socket.as_ref().and_then(|socket| socket.local_addr().ok()).or(config.envoy_listen);
        // A bound socket has an address; should the kernel not tell it, the one asked for is the best answer.
        let public_address = public_socket.local_addr().unwrap_or(config.listen);
        let admin_address = admin_socket.local_addr().unwrap_or(config.admin_listen);
        let home = Handle::current();
        let lane = lane::Lane::start().map_err(ServerError::Thread)?;
        let on_lane = |socket| {
            // A socket belongs to the runtime it is registered with.
            let _entered = lane.runtime().enter();
            TcpListener::from_std(socket).map_err(ServerError::Thread)
        };
        let (public_socket, admin_socket) = (on_lane(public_socket)?, on_lane(admin_socket)?);
        let reporters = Arc::new(Reporters::default());
        let envoy = envoy::Envoy {
            intake: state.passive.clone(),
            // Anybody may connect to it; a gateway is a stranger with its first message alone.
            access: state.access.for_strangers(),
            home: home.clone(),
            reporters: reporters.clone(),
            opening: tokio::sync::Semaphore::new(envoy::OPENING),
        };
        let envoy = envoy_socket
            .map(|socket| {
                let (socket, envoy) = (on_lane(socket)?, Arc::new(envoy));
                let accepting = Accepting { name: "envoy", socket, tls: tls_for_grpc, limits: config.limits };
                Ok::<_, ServerError>(envoy::EnvoyListener { accepting, envoy })
            })
            .transpose()?;

        let skip: Arc<[String]> = config.access_log_skip.as_slice().into();
        let listener = |name, socket, router| serve::Listener {
            accepting: Accepting { name, socket, tls: tls.clone(), limits: config.limits },
            app: serve::App {
                listener: name,
                router,
                access_log_skip: skip.clone(),
                max_body: config.limits.body,
                large_bodies: (name == "admin").then_some((observations::PREFIX, observations::MAX_LOG as u64)),
            },
        };
        let public = public::Public {
            board: state.board.clone(),
            beats: state.beats.clone(),
            answers: config.answers.clone(),
            details: config.details,
            access: state.access.for_strangers(),
            on_demand: state.on_demand.clone(),
            home: home.clone(),
        };
        let public = public::router(public, config.health_path.as_deref());
        let admin = admin::router(admin::Admin {
            registry: registry(&state),
            probes: probes(&state),
            board: state.board,
            beats: state.beats,
            readiness: state.readiness,
            access: state.access,
            on_demand: state.on_demand,
            intake: state.passive,
            reporters,
            home,
        });
        tracing::info!(
            public = %public_address, admin = %admin_address, envoy = envoy_address.map(tracing::field::display),
            tls = tls.is_some(), "listening"
        );
        Ok(Self {
            public: listener("public", public_socket, public),
            admin: listener("admin", admin_socket, admin),
            envoy,
            lane,
            public_address,
            admin_address,
            envoy_address,
            certificate: certificate.map(|watch| Box::pin(watch) as BoxFuture<'static, ()>),
            stop_certificate,
        })
    }

    /// Where the public listener is, with the port that was found where 0 was asked for.
    #[must_use]
    pub const fn public_address(&self) -> SocketAddr {
        self.public_address
    }

    /// Where the admin listener is.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Where Envoy's access logs are taken in, if they are.
    #[must_use]
    pub const fn envoy_address(&self) -> Option<SocketAddr> {
        self.envoy_address
    }

    /// Serves until `stop`; returns within [`Limits::drain`] after it. Dropping the future stops serving too.
    pub async fn serve(self, stop: CancellationToken) {
        let stop = stop.child_token();
        let _stopped = stop.clone().drop_guard();
        let Self { public, admin, envoy, lane, certificate, stop_certificate, .. } = self;
        let work = async move {
            let certificate = certificate.map(tokio::spawn);
            // Each on a task of its own, so that one listener's clients take no turn of the other's.
            let public = tokio::spawn(public.serve(stop.clone()));
            let admin = tokio::spawn(admin.serve(stop.clone()));
            let envoy = tokio::spawn(async move {
                if let Some(envoy) = envoy {
                    envoy.serve(stop).await;
                }
            });
            for ended in [public.await, admin.await, envoy.await] {
                if let Err(error) = ended {
                    tracing::error!(%error, "a listener broke down");
                }
            }
            stop_certificate.cancel();
            if let Some(watch) = certificate {
                let _ = watch.await;
            }
        };
        if !lane.run(work).await {
            tracing::error!("the thread of the listeners broke down");
        }
    }
}

/// All checks on `board`, as `GET /v1/healthchecks` gives them.
#[must_use]
pub fn document(board: &Board) -> String {
    // Everything is never not found.
    verdict::judge(board, verdict::Subject::All, &verdict::Filter::default(), true)
        .map(|verdict| render::api::list(&verdict))
        .unwrap_or_default()
}

/// The JSON Schema of what `GET /v1/healthchecks` and those below it answer; docs/healthchecks.schema.json holds it.
#[must_use]
pub fn document_schema() -> serde_json::Value {
    render::api::schema()
}

/// Everything `/metrics/probes` tells.
fn probes(state: &State) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(blackbox::AllProbes { board: state.board.clone() }));
    registry
}

/// Everything `/metrics` tells.
fn registry(state: &State) -> Registry {
    let mut registry = Registry::default();
    state.metrics.register(&mut registry);
    registry.register(
        "healthcheck_operator_build",
        "The version that runs",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    process::register(&mut registry);
    registry.register_collector(Box::new(verdict_metrics::VerdictMetrics { board: state.board.clone() }));
    registry
}

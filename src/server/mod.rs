//! The two listeners: what load balancers and people see, and what operators of the operator see.
//!
//! Every answer is read off the board: no probe is run and no API is called for it. A board that is not current reads
//! as Unknown everywhere.

mod admin;
mod auth;
mod bind;
mod config;
mod connections;
mod public;
mod query;
mod readiness;
mod render;
mod respond;
mod serve;
mod stall;
mod tls;
mod verdict;
mod verdict_metrics;

use std::{fmt, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use prometheus_client::{metrics::info::Info, registry::Registry};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use auth::{Access, AccessRequest, Authorizer, Decision, TokenFile};
pub use bind::BindError;
pub use config::{AdminDefault, Answers, Details, Limits, ServerArgs, ServerConfig, TlsFiles};
pub use readiness::Readiness;
pub use tls::TlsError;

use crate::{
    engine::Board,
    telemetry::{Beats, Metrics, process},
};

/// What the listeners tell of.
#[derive(Clone, Debug)]
pub struct State {
    pub board: Arc<Board>,
    pub beats: Beats,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// Who may read `/v1`.
    pub access: Access,
}

/// Why the listeners cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Both listeners, bound and not yet served.
pub struct Servers {
    public: serve::Listener,
    admin: serve::Listener,
    public_address: SocketAddr,
    admin_address: SocketAddr,
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
    /// # Errors
    /// Names the flag and the mend when an address cannot be listened on or the certificate cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(config: &ServerConfig, state: State) -> Result<Self, ServerError> {
        let stop_certificate = CancellationToken::new();
        let tls = config.tls.as_ref().map(|files| tls::prepare(files, stop_certificate.clone())).transpose()?;
        let (tls, certificate) = tls.unzip();
        let tls = tls.map(TlsAcceptor::from);
        let public_socket = bind::listen("--listen", config.listen)?;
        let admin_socket = bind::listen("--admin-listen", config.admin_listen)?;
        // A bound socket has an address; should the kernel not tell it, the one asked for is the best answer.
        let public_address = public_socket.local_addr().unwrap_or(config.listen);
        let admin_address = admin_socket.local_addr().unwrap_or(config.admin_listen);

        let skip: Arc<[String]> = config.access_log_skip.as_slice().into();
        let listener = |name, socket, router| serve::Listener {
            name,
            socket,
            tls: tls.clone(),
            app: serve::App { listener: name, router, access_log_skip: skip.clone(), max_body: config.limits.body },
            limits: config.limits,
        };
        let public = public::Public {
            board: state.board.clone(),
            beats: state.beats.clone(),
            answers: config.answers.clone(),
            details: config.details,
        };
        let public = public::router(public, config.health_path.as_deref());
        let admin = admin::router(admin::Admin {
            registry: registry(&state),
            board: state.board,
            beats: state.beats,
            readiness: state.readiness,
            access: state.access,
        });
        tracing::info!(public = %public_address, admin = %admin_address, tls = tls.is_some(), "listening");
        Ok(Self {
            public: listener("public", public_socket, public),
            admin: listener("admin", admin_socket, admin),
            public_address,
            admin_address,
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

    /// Serves until `stop`; returns within [`Limits::drain`] after it.
    pub async fn serve(self, stop: CancellationToken) {
        let stop_certificate = self.stop_certificate;
        let certificate = self.certificate.map(tokio::spawn);
        // Each on a task of its own, so that one listener's clients take no turn of the other's.
        let public = tokio::spawn(self.public.serve(stop.clone()));
        let admin = tokio::spawn(self.admin.serve(stop));
        for ended in [public.await, admin.await] {
            if let Err(error) = ended {
                tracing::error!(%error, "a listener broke down");
            }
        }
        stop_certificate.cancel();
        if let Some(watch) = certificate {
            let _ = watch.await;
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

//! The listener to which Envoy streams its access log (`envoy.service.accesslog.v3.AccessLogService`): gRPC over HTTP/2, with
//! TLS where the other listeners have it.
//!
//! A stream never ends by itself. One that cannot be used ends with its gRPC status; a replica that does not judge also lets
//! the connection go, so that Envoy connects anew, and may reach the one that does.

mod call;
mod frames;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    auth::Access,
    config::Limits,
    connections::{Connection, Connections},
    reporters::Reporters,
    stall::Stalling,
};
use crate::passive::Intake;

/// How long to wait before accepting again when the machine has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams of one connection. Envoy has a connection for each worker thread, and on it a stream for each log.
const MAX_STREAMS: u32 = 64;
/// The most of a request's head, in bytes: its token is in there.
const MAX_HEAD: u32 = 32 * 1024;
/// What may be under way to us unread, of a stream and of a connection, in bytes.
const WINDOW: u32 = 256 * 1024;
/// A silent connection is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(10);

/// What calls are answered with.
pub struct Envoy {
    pub intake: Intake,
    pub access: Access,
    pub home: Handle,
    pub reporters: Arc<Reporters>,
    /// For streams of which no message was let in yet.
    pub opening: Semaphore,
}

/// How many streams may be on their first message at once.
pub const OPENING: usize = 32;

/// The listener, bound and not yet served.
pub struct EnvoyListener {
    pub socket: TcpListener,
    pub tls: Option<TlsAcceptor>,
    pub limits: Limits,
    pub envoy: Arc<Envoy>,
}

impl EnvoyListener {
    /// Serves until `stop`, then ends every stream.
    pub async fn serve(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let connections = Connections::new(self.limits.connections);
        while let Some(accepted) = stop.run_until_cancelled(self.socket.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    let serving = Serving {
                        envoy: self.envoy.clone(),
                        limits: self.limits,
                        connection: Arc::new(connections.enter()),
                        leave: stop.child_token(),
                        peer,
                    };
                    tasks.spawn(serving.accepted(stream, self.tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(listener = "envoy", %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.socket);
        tasks.close();
        // Whoever does not take its end is cut with the runtime.
        let _ = tokio::time::timeout(self.limits.drain, tasks.wait()).await;
    }
}

struct Serving {
    envoy: Arc<Envoy>,
    limits: Limits,
    /// Of use once a message was let in: others make room before it.
    connection: Arc<Connection>,
    /// Every stream shall end, and the connection with them.
    leave: CancellationToken,
    peer: SocketAddr,
}

impl Serving {
    async fn accepted(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = tls else { return self.connected(stream).await };
        tokio::select! {
            handshake = tokio::time::timeout(self.limits.head, acceptor.accept(stream)) => match handshake {
                Ok(Ok(stream)) => self.connected(stream).await,
                Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no TLS handshake"),
                Err(_) => tracing::debug!(peer = %self.peer, "no TLS handshake in time"),
            },
            () = self.connection.closed() => {}
            () = self.leave.cancelled() => {}
        }
    }

    async fn connected(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let (envoy, connection, leave) = (self.envoy.clone(), self.connection.clone(), self.leave.clone());
            async move { Ok::<_, Infallible>(call::answer(&envoy, request, &connection, leave).await) }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        let stream = TokioIo::new(Stalling::new(stream, self.limits.stalled_write));
        let mut http = std::pin::pin!(builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = http.as_mut() => ended,
            () = self.connection.closed() => return,
            () = self.leave.cancelled() => {
                http.as_mut().graceful_shutdown();
                match tokio::time::timeout(self.limits.drain, http).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %self.peer, %error, "the connection ended early");
        }
    }
}

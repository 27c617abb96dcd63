//! The listener to which Envoy streams its access log (`envoy.service.accesslog.v3.AccessLogService`): gRPC over HTTP/2, with
//! TLS where the other listeners have it.
//!
//! A stream never ends by itself. One that cannot be used ends with its gRPC status; a replica that does not judge also lets
//! the connection go, so that Envoy connects anew, and may reach the one that does.

mod call;
mod frames;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    accept::{Accepted, Accepting},
    auth::Access,
    reporters::Reporters,
};
use crate::passive::Intake;

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
    pub accepting: Accepting,
    pub envoy: Arc<Envoy>,
}

impl EnvoyListener {
    /// Serves until `stop`, then ends every stream.
    pub async fn serve(self, stop: CancellationToken) {
        let Self { accepting, envoy } = self;
        accepting.serve(stop, move |accepted| serve(envoy.clone(), accepted)).await;
    }
}

async fn serve(envoy: Arc<Envoy>, accepted: Accepted) -> hyper::Result<()> {
    let Accepted { stream, connection, limits, stop, .. } = accepted;
    // Every stream shall end, and the connection with them.
    let leave = stop.child_token();
    let service = service_fn(|request: Request<Incoming>| {
        let (envoy, connection, leave) = (envoy.clone(), connection.clone(), leave.clone());
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
    let mut http = std::pin::pin!(builder.serve_connection(stream, service));
    tokio::select! {
        ended = http.as_mut() => ended,
        () = leave.cancelled() => {
            http.as_mut().graceful_shutdown();
            // Whoever does not take its end is cut.
            tokio::time::timeout(limits.drain, http).await.unwrap_or(Ok(()))
        }
    }
}

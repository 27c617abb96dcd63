//! Accepting connections: what is the same for every listener, whatever is spoken on it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, sync::CancellationToken, task::TaskTracker};

use super::{
    config::Limits,
    connections::{Connection, Connections},
    stall::Stalling,
};

/// How long to wait before accepting again when the machine has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound socket of which nothing was accepted yet.
pub struct Accepting {
    /// For the log.
    pub name: &'static str,
    pub socket: TcpListener,
    pub tls: Option<TlsAcceptor>,
    pub limits: Limits,
}

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// A connection, after its handshake where there is one.
pub struct Accepted {
    pub stream: TokioIo<Stalling<Stream>>,
    pub peer: SocketAddr,
    /// To be told how busy it is: the idlest makes room.
    pub connection: Arc<Connection>,
    pub limits: Limits,
    /// Nothing new is begun any more, and what was begun ends.
    pub stop: CancellationToken,
}

impl Accepting {
    /// Has `serve` serve each connection until `stop`, then finish what was begun, within [`Limits::drain`].
    pub async fn serve<S, F>(self, stop: CancellationToken, serve: S)
    where
        S: Fn(Accepted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = hyper::Result<()>> + Send,
    {
        let Self { name, socket, tls, limits } = self;
        let cut = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = Connections::new(limits.connections);
        while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A client that left again already is no news; being out of descriptors is, and passes.
                    tracing::warn!(listener = name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = Arc::new(connections.enter());
            let (tls, serve, stop, cut) = (tls.clone(), serve.clone(), stop.clone(), cut.clone());
            tasks.spawn(async move {
                let served = async {
                    let handshake = handshake(stream, peer, tls, limits.head);
                    let Some(Some(stream)) = stop.run_until_cancelled(handshake).await else { return };
                    let stream = TokioIo::new(Stalling::new(stream, limits.stalled_write));
                    let (connection, stop) = (connection.clone(), stop.clone());
                    if let Err(error) = serve(Accepted { stream, peer, connection, limits, stop }).await {
                        tracing::debug!(%peer, %error, "the connection ended early");
                    }
                };
                tokio::select! {
                    () = served => {}
                    () = connection.closed() => {}
                    () = cut.cancelled() => {}
                }
            });
        }
        drop(socket);
        tasks.close();
        if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
            tracing::info!(listener = name, "cutting {} connections that are still open", tasks.len());
            cut.cancel();
            tasks.wait().await;
        }
    }
}

/// `None` where it failed or took longer than `limit`.
async fn handshake(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, limit: Duration) -> Option<Stream> {
    // An answer is one small write: waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else { return Some(Either::Left(stream)) };
    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(Either::Right(stream)),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS handshake"),
        Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
    }
    None
}

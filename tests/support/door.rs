//! A listening socket that can be shut and opened again on the same address, and whose
//! connections can be cut: what targets and the fault proxy stand behind.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

type Handler = Arc<dyn Fn(TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A socket that serves each connection with one handler. Shut when dropped.
pub struct Door {
    address: SocketAddr,
    handler: Handler,
    accepted: Arc<AtomicU64>,
    cut: Arc<Notify>,
    open: Mutex<Option<Open>>,
}

struct Open {
    shut: CancellationToken,
    loop_: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shut.cancel();
    }
}

impl Door {
    /// Listens on an address.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn open<F, Fut>(address: SocketAddr, handler: F) -> std::io::Result<Self>
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let door = Self {
            address,
            handler: Arc::new(move |stream| Box::pin(handler(stream))),
            accepted: Arc::default(),
            cut: Arc::default(),
            open: Mutex::default(),
        };
        door.reopen().await?;
        Ok(door)
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Shuts the socket and cuts its connections: who connects now is refused.
    pub async fn shut(&self) {
        let Some(mut open) = self.open.lock().await.take() else { return };
        open.shut.cancel();
        let _ = (&mut open.loop_).await;
    }

    /// Listens again on the same address; nothing happens when it is open.
    ///
    /// # Errors
    /// When somebody else has taken the address meanwhile.
    pub async fn reopen(&self) -> std::io::Result<()> {
        let mut open = self.open.lock().await;
        if open.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address).await?;
        let shut = CancellationToken::new();
        let loop_ = tokio::spawn(accept(
            listener,
            Arc::clone(&self.handler),
            Arc::clone(&self.accepted),
            Arc::clone(&self.cut),
            shut.clone(),
        ));
        *open = Some(Open { shut, loop_ });
        Ok(())
    }

    /// Cuts all present connections and goes on listening.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

async fn accept(
    listener: TcpListener,
    handler: Handler,
    accepted: Arc<AtomicU64>,
    cut: Arc<Notify>,
    shut: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shut.cancelled() => break,
            () = cut.notified() => connections.shutdown().await,
            Some(_) = connections.join_next() => {}
            Ok((stream, _)) = listener.accept() => {
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(handler(stream));
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

//! The runner's side: scripts for whoever may open its socket.

use std::{
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{MAX_CLIENTS, REQUEST_LIMIT, TALK_LIMIT, receive, send};
use crate::probe::script::{Run, Scripts};

/// A timeout a client may ask for, at most: as long as an interval may be.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Serves runs on a Unix socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    scripts: Scripts,
}

impl Server {
    /// Takes the socket at `path`: a stale one is replaced; it is open to owner and group only.
    ///
    /// # Errors
    /// A runner is already there, something else is in the way, or the folder cannot be written.
    pub fn bind(path: &Path, scripts: Scripts) -> io::Result<Self> {
        clear(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), scripts })
    }

    /// Serves until `stop` is done, then kills what runs and removes the socket.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let clients = TaskTracker::new();
        let cancel = tokio_util::sync::CancellationToken::new();
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&self.listener, &room) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let (scripts, cancel) = (self.scripts.clone(), cancel.clone());
            clients.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = client(stream, &scripts) => {}
                }
                drop(permit);
            });
        }
        cancel.cancel();
        clients.close();
        clients.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(
    listener: &UnixListener,
    room: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            // Out of descriptors, say: the next try must not come at once.
            tracing::warn!(%error, "a client could not be accepted");
            sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn client(mut stream: UnixStream, scripts: &Scripts) {
    let mut run: Run = match timeout(TALK_LIMIT, receive(&mut stream, REQUEST_LIMIT)).await {
        Ok(Ok(run)) => run,
        Ok(Err(error)) => return tracing::debug!(%error, "a request that is none"),
        Err(_) => return tracing::debug!("a client that asks nothing"),
    };
    run.timeout = run.timeout.min(MAX_TIMEOUT);
    let (mut incoming, mut outgoing) = stream.split();
    let ended = tokio::select! {
        ended = scripts.run(run) => ended,
        // Dropping the run kills it with all it started.
        () = hung_up(&mut incoming) => return,
    };
    if let Err(error) = timeout(TALK_LIMIT, send(&mut outgoing, &ended)).await.unwrap_or_else(|late| Err(late.into())) {
        tracing::debug!(%error, "an answer nobody took");
    }
}

/// Waits until the client is gone. What it sends beyond its request is read and means nothing.
async fn hung_up(incoming: &mut (impl AsyncRead + Unpin)) {
    let mut ignored = [0; 256];
    while let Ok(1..) = incoming.read(&mut ignored).await {}
}

/// Makes way for a new socket at `path`, if what is there is a socket nobody listens on.
fn clear(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another runner listens on it")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

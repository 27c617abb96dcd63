//! Scripts run by another process: the controller holds credentials, so it only ever asks.
//!
//! One Unix socket connection is one run: a line of JSON each way. A client that hangs up has its script killed.

use std::{
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    failure::Failure,
    script::{Ended, Run, Scripts},
};
use crate::check::Reason;

/// The longest request: a script's source and its variables.
const REQUEST_LIMIT: u64 = 1024 * 1024;
/// The longest answer: 4 KiB of output, which JSON may write six times as long.
const ANSWER_LIMIT: u64 = 64 * 1024;
/// How long a client may take to send its request, or to take its answer.
const TALK_LIMIT: Duration = Duration::from_secs(5);
/// Beyond the script's own timeout: the kill, and the way back on a busy machine. An answer that is missed makes a
/// script that hangs look like a runner that does.
const ANSWER_GRACE: Duration = Duration::from_secs(1);
/// Clients served at once; more wait to be accepted.
const MAX_CLIENTS: usize = 1024;
/// A timeout a client may ask for, at most: as long as an interval may be.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Has the runner behind `socket` make one run.
pub(super) async fn ask(socket: &Path, run: &Run) -> Result<Ended, Failure> {
    let unreachable = |why: &dyn std::fmt::Display| {
        let message = format!("the script runner at {} cannot be reached: {why}", socket.display());
        Failure::new(Reason::RunnerUnreachable, message)
    };
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        send(&mut stream, run).await?;
        receive::<Ended>(&mut stream, ANSWER_LIMIT).await
    };
    match timeout(run.timeout + ANSWER_GRACE, exchange).await {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&"it did not answer in time")),
    }
}

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
        ended = scripts.run(&run) => ended,
        // Dropping the run kills its process group.
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

async fn send(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin), limit: u64) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        let (kind, why) = if line.len() as u64 >= limit {
            (io::ErrorKind::InvalidData, "the message is too long")
        } else {
            (io::ErrorKind::UnexpectedEof, "the connection closed in the middle of a message")
        };
        return Err(io::Error::new(kind, why));
    }
    Ok(serde_json::from_slice(&line)?)
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

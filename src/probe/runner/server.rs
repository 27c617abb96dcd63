//! The runner's side: scripts for whoever may open its socket.

use std::{
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::process::Pid;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{MAX_CLIENTS, REQUEST_LIMIT, Request, TALK_LIMIT, receive, send};
use crate::probe::script::{Run, Scripts, may_be_ours};

/// A timeout a client may ask for, at most: as long as an interval may be.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How often the runner looks whether its socket is still its own.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is told, at most, that scripts ask the runner themselves.
const TELL: Duration = Duration::from_secs(10);

/// Serves runs on a Unix socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// What `path` was when it was ours for certain.
    own: Identity,
    scripts: Scripts,
}

/// Which file a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self { device: metadata.dev(), number: metadata.ino() })
    }
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
        Ok(Self { own: Identity::of(path)?, listener, path: path.to_owned(), scripts })
    }

    /// Serves until `stop` is done, then kills what runs and removes the socket.
    ///
    /// # Errors
    /// The socket is no longer there, or another is in its place: whoever asks there may be asking a script. What runs
    /// is killed, and the end of a container's first process is the end of such a script too.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut look = interval(LOOK);
        let mut told = None;
        let clients = TaskTracker::new();
        let cancel = tokio_util::sync::CancellationToken::new();
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut stop = std::pin::pin!(stop);
        let end = loop {
            let accepted = tokio::select! {
                () = &mut stop => break Ok(()),
                _ = look.tick() => {
                    if self.is_lost() {
                        break Err(io::Error::other("it was removed or replaced, maybe by a script"));
                    }
                    continue;
                }
                accepted = accept(&self.listener, &room) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            if let Some(process) = asked_by_script(&stream) {
                if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
                    tracing::warn!(process, "a script has asked the runner itself for a run; it is not answered");
                    told = Some(Instant::now());
                }
                continue;
            }
            let (scripts, cancel) = (self.scripts.clone(), cancel.clone());
            clients.spawn(async move {
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = client(stream, &scripts) => {}
                }
                drop(permit);
            });
        };
        cancel.cancel();
        clients.close();
        clients.wait().await;
        end
    }

    fn is_lost(&self) -> bool {
        Identity::of(&self.path).ok() != Some(self.own)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_lost() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The script that opened this connection, if it was one of ours: it might ask for runs without end, in the name of any
/// namespace. Who handed the connection on and is gone is taken for a script as well.
fn asked_by_script(stream: &UnixStream) -> Option<i32> {
    let process = stream.peer_cred().ok()?.pid()?;
    // Another container's process has no number here.
    may_be_ours(Pid::from_raw(process)?).then_some(process)
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
        Ok(Ok(Request::Run(run))) => run,
        Ok(Ok(Request::Alive(word))) => return answer(&mut stream, &word).await,
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
    answer(&mut outgoing, &ended).await;
}

async fn answer(outgoing: &mut (impl AsyncWrite + Unpin), answer: &impl Serialize) {
    if let Err(error) = timeout(TALK_LIMIT, send(outgoing, answer)).await.unwrap_or_else(|late| Err(late.into())) {
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn a_runner_whose_socket_was_replaced_ends_and_leaves_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("runner.sock");
        let lost = async |server: Server| timeout(LOOK * 40, server.serve(pending())).await.expect("its end");

        let server = Server::bind(&path, Scripts::default()).expect("a socket");
        // First the other one is there, so that it cannot have the number of the one that is removed.
        let other = UnixListener::bind(folder.path().join("other")).expect("a socket");
        std::fs::rename(folder.path().join("other"), &path).expect("replaced");
        let error = lost(server).await.expect_err("an end");
        assert!(error.to_string().contains("replaced"), "{error}");
        assert!(path.exists(), "it is the other one's");
        drop(other);

        let server = Server::bind(&path, Scripts::default()).expect("a socket in the place of a dead one");
        std::fs::remove_file(&path).expect("removed");
        lost(server).await.expect_err("an end");
    }

    #[tokio::test]
    async fn who_started_us_may_ask_and_we_may_not() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let own = i32::try_from(std::process::id()).expect("a number");
        assert_eq!(asked_by_script(&ours), Some(own));
    }
}

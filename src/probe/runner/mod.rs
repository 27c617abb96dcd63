//! Scripts run by another process: the controller holds credentials, so it only ever asks.
//!
//! One connection is one run: a line of JSON each way. A client that hangs up has its script killed. The runner itself
//! listens on a Unix socket alone; to one in another pod leads a [`Door`], which speaks mutual TLS.

mod door;
mod pem;
mod remote;
mod server;

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{
    failure::Failure,
    script::{Ended, Run},
};
use crate::check::Reason;

pub use door::Door;
pub use pem::{PemError, PemFiles};
pub use remote::{Place, Remote};
pub use server::Server;

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
/// How long a runner may take to say that it is there.
const ALIVE_PATIENCE: Duration = Duration::from_secs(1);

/// What a client asks of a runner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Request {
    Alive(Alive),
    Run(Run),
}

/// Whether it is there; and that it is, as the answer.
#[derive(Debug, Serialize, Deserialize)]
enum Alive {
    #[serde(rename = "alive")]
    Alive,
}

/// Asks the runner behind `socket` for a word, and for no script: one that hangs or is gone gives none.
///
/// # Errors
/// No answer within a second, or none that a runner would give.
pub async fn is_alive(socket: &Path) -> io::Result<()> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        send(&mut stream, &Request::Alive(Alive::Alive)).await?;
        receive::<Alive>(&mut stream, ANSWER_LIMIT).await
    };
    timeout(ALIVE_PATIENCE, exchange).await.map_err(|_| io::Error::other("it did not answer in time"))??;
    Ok(())
}

/// Has the runner behind `socket` make one run.
pub(super) async fn ask(socket: &Path, run: &Run) -> Result<Ended, Failure> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        talk(&mut stream, run).await
    };
    in_time(&socket.display(), run, exchange).await
}

/// The answer to `run`, or that the runner at `place` cannot be reached.
async fn in_time(
    place: &(impl std::fmt::Display + Sync),
    run: &Run,
    exchange: impl Future<Output = io::Result<Ended>>,
) -> Result<Ended, Failure> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Failure::new(Reason::RunnerUnreachable, format!("the script runner at {place} cannot be reached: {why}"))
    };
    match timeout(run.timeout + ANSWER_GRACE, exchange).await {
        Ok(Ok(ended)) => Ok(ended),
        Ok(Err(error)) => Err(unreachable(&error)),
        Err(_) => Err(unreachable(&"it did not answer in time")),
    }
}

/// Asks for one run over a connection.
async fn talk(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), run: &Run) -> io::Result<Ended> {
    send(stream, run).await?;
    receive(stream, ANSWER_LIMIT).await
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

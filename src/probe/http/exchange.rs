//! One request and the head of its answer on an open connection.

use std::{
    error::Error,
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::{Judged, judge_status, request::Request};
use crate::{
    check::{Connection, HttpProbe, Reason},
    probe::{
        exchange::Stream,
        failure::{self, Failure, Moment},
        http2::{self, Question, Reply},
        progress::{Phase, Progress},
    },
};

/// Of one answer; an answer with more is refused.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;
/// Of a whole connection: interim answers come before the head, and a polite end reads what is left of a short body.
const MAX_READ: usize = 64 * 1024;
/// Of a body that is judged; one with more is refused.
const MAX_BODY: usize = 64 * 1024;
/// Of a whole connection whose body is judged: it may come in chunks, each with a size in front.
const MAX_READ_WITH_BODY: usize = MAX_READ + 3 * MAX_BODY;

/// The head of an answer, its body where that was asked for, and when all of it was there.
pub(super) struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub at: Instant,
}

/// Sends `request` on `stream`, reads the answer as far as `probe` judges it, and ends the connection as it says.
pub(super) async fn run<S>(
    stream: S,
    request: &Request,
    probe: &HttpProbe,
    progress: &Progress,
) -> Result<Head, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let connection = probe.connection;
    let message = request.message()?;
    let left = if probe.expected_body.is_some() { MAX_READ_WITH_BODY } else { MAX_READ };
    let watched = TokioIo::new(Watched { stream, progress, connection, left, wrote: false });
    let (mut sender, driver) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .title_case_headers(true)
        .handshake(watched)
        .await
        .map_err(|error| explain(&error))?;
    progress.reach(Phase::Request);
    let mut driver = pin!(driver);
    let mut answer = pin!(sender.send_request(message));
    // The connection is driven in place, not on a task of its own: dropping this future drops all of it.
    let (answer, driven) = tokio::select! {
        biased;
        answer = &mut answer => (answer, None),
        driven = &mut driver => (answer.await, Some(driven)),
    };
    let answer = answer.map_err(|error| match driven {
        Some(Err(cause)) if error.is_canceled() => explain(&cause),
        _ => explain(&error),
    })?;
    let (parts, mut body) = answer.into_parts();
    let mut head = Head { status: parts.status, headers: parts.headers, body: vec![], at: Instant::now() };
    if probe.expected_body.is_some() && judge_status(probe, head.status.as_u16()) == Judged::Expected {
        head.body = read(driver.as_mut(), &mut body).await?;
        head.at = Instant::now();
    }
    if connection == Connection::Polite {
        // The verdict stands; a body that will not end only costs the rest of the attempt's own time.
        let _ = timeout_at(progress.deadline, goodbye(driver.as_mut(), body)).await;
    }
    Ok(head)
}

/// The same over HTTP/2.
pub(super) async fn run2(
    stream: Stream,
    request: &Request,
    probe: &HttpProbe,
    progress: &Progress,
) -> Result<Head, Failure> {
    let judged = |status: StatusCode| judge_status(probe, status.as_u16()) == Judged::Expected;
    let question = Question {
        request: request.head()?,
        body: request.body.clone(),
        reads: &|status| probe.expected_body.is_some() && judged(status),
        max_body: MAX_BODY,
        polite: probe.connection == Connection::Polite,
    };
    let Reply { status, headers, body, at, .. } = http2::ask(stream, question, progress).await?;
    if headers.len() > MAX_HEADERS {
        return Err(too_large());
    }
    Ok(Head { status, headers, body, at })
}

/// The whole body.
async fn read<D>(mut driver: Pin<&mut D>, body: &mut Incoming) -> Result<Vec<u8>, Failure>
where
    D: Future<Output = hyper::Result<()>>,
{
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(body_too_large());
    }
    let mut bytes = vec![];
    let mut driving = true;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            // What broke is told by the body; what had already come is still in it.
            _ = driver.as_mut(), if driving => {
                driving = false;
                continue;
            }
        };
        match frame {
            None => return Ok(bytes),
            Some(Err(error)) => return Err(explain_body(&error)),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
        }
        if bytes.len() > MAX_BODY {
            return Err(body_too_large());
        }
    }
}

/// Reads a short body to its end and closes: with unread bytes the kernel would reset after all.
async fn goodbye<D>(driver: Pin<&mut D>, mut body: Incoming)
where
    D: Future<Output = hyper::Result<()>>,
{
    let drain = async { while let Some(Ok(_)) = body.frame().await {} };
    let (_, _) = tokio::join!(drain, driver);
}

/// What went wrong with the exchange, without a byte of what was received.
fn explain(error: &hyper::Error) -> Failure {
    if let Some(cause) = cause::<io::Error>(error) {
        if cause.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) {
            return too_large();
        }
        return failure::from_io(cause, Moment::Arrived);
    }
    if error.is_parse_too_large() {
        return too_large();
    }
    if error.is_parse() {
        return Failure::new(Reason::MalformedResponse, "the answer is not HTTP/1.1");
    }
    Failure::new(Reason::ConnectionClosed, "connection closed before an answer")
}

/// What went wrong with a body, without a byte of it.
fn explain_body(error: &hyper::Error) -> Failure {
    let cut_off = || Failure::new(Reason::ConnectionClosed, "connection closed before the end of the body");
    match cause::<io::Error>(error) {
        // Beyond what a body of the allowed size can take, in the smallest of chunks.
        Some(cause) if cause.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) => body_too_large(),
        Some(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => cut_off(),
        Some(cause) if cause.raw_os_error().is_some() => failure::from_io(cause, Moment::Arrived),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => cut_off(),
        _ => Failure::new(Reason::MalformedResponse, "the answer's body is not HTTP/1.1"),
    }
}

fn body_too_large() -> Failure {
    Failure::new(Reason::BodyTooLarge, format!("the answer's body is over {} KiB", MAX_BODY / 1024))
}

fn too_large() -> Failure {
    let message = format!("the answer's headers are over {MAX_HEADERS} or {} KiB", MAX_HEAD / 1024);
    Failure::new(Reason::HeadersTooLarge, message)
}

fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// More came than an answer's head may have.
#[derive(Debug)]
struct TooMuch;

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more was received than is read")
    }
}

impl Error for TooMuch {}

/// A connection that says when the request is out, and that ends when too much comes in.
struct Watched<'a, S> {
    stream: S,
    progress: &'a Progress,
    connection: Connection,
    /// How much may still be read.
    left: usize,
    wrote: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.wrote {
            self.progress.reach(Phase::Response);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.connection {
            // Hyper ends a finished exchange by itself; then a FIN would go out before the reset.
            Connection::Reset => Poll::Ready(Ok(())),
            Connection::Polite => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}

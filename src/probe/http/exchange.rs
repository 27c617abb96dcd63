//! Requests and the heads of their answers on an open connection.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
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
    check::{Class, Connection, HttpProbe, Reason},
    probe::{
        exchange::Stream,
        failure::{self, Broken, Failure, Moment},
        http2::{self, Question, Reply},
        progress::{Phase, Progress},
    },
};

/// Of one answer; an answer with more is refused.
pub(in crate::probe) const MAX_HEADERS: usize = 64;
pub(in crate::probe) const MAX_HEAD: usize = 16 * 1024;
/// Of a whole connection: interim answers come before the head, and a polite end reads what is left of a short body.
pub(in crate::probe) const MAX_READ: usize = 64 * 1024;
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

/// A connection that speaks HTTP/1.1. It is driven by whoever asks over it and not by a task of its own: between two
/// requests nothing runs, and dropping it frees all of it.
pub(super) struct One {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Watched>, Full<Bytes>>,
    /// The driver may be asked no more; with what it said.
    ended: Option<Option<hyper::Error>>,
    marks: Arc<Marks>,
}

impl One {
    /// Takes `stream`, which ends as `connection` says.
    pub async fn open(stream: Stream, connection: Connection) -> Result<Self, Failure> {
        let marks = Arc::new(Marks::default());
        let watched = TokioIo::new(Watched::new(stream, connection, Arc::clone(&marks)));
        let (sender, driver) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .title_case_headers(true)
            .handshake(watched)
            .await
            .map_err(|error| explain(&error))?;
        Ok(Self { sender, driver, ended: None, marks })
    }

    /// Sends `request` and reads the answer as far as `probe` judges it. Then, where the connection is to be `kept`, reads
    /// what is left, and says whether another request may follow; or else ends it as `probe` says.
    pub async fn ask(
        &mut self,
        request: &Request,
        probe: &HttpProbe,
        progress: &Progress,
        kept: bool,
    ) -> Result<(Head, bool), Broken> {
        let message = request.message()?;
        let left = if probe.expected_body.is_some() { MAX_READ_WITH_BODY } else { MAX_READ };
        self.marks.begin(left);
        progress.reach(Phase::Request);
        let mut sent = false;
        let answer = self.send(message, progress, &mut sent).await;
        let answer = answer.map_err(|failure| {
            // Closed while nobody looked, or on our request: that says nothing about the target yet.
            let untold = failure.reason.class() == Some(Class::Connect) && self.marks.left() == left;
            Broken { unheard: !sent || untold, failure }
        })?;
        let (parts, mut body) = answer.into_parts();
        let mut head = Head { status: parts.status, headers: parts.headers, body: vec![], at: Instant::now() };
        if probe.expected_body.is_some() && judge_status(probe, head.status.as_u16()) == Judged::Expected {
            head.body = self.read(&mut body).await?;
            head.at = Instant::now();
        }
        // The verdict stands; a body that will not end only costs the rest of the attempt's own time.
        let again = if kept {
            timeout_at(progress.deadline, self.settle(body)).await.unwrap_or(false)
        } else {
            if probe.connection == Connection::Polite {
                let _ = timeout_at(progress.deadline, self.goodbye(body)).await;
            }
            false
        };
        Ok((head, again))
    }

    async fn send(
        &mut self,
        message: http::Request<Full<Bytes>>,
        progress: &Progress,
        sent: &mut bool,
    ) -> Result<http::Response<Incoming>, Failure> {
        let Self { sender, driver, ended, marks } = self;
        let mut answer = pin!(sender.send_request(message));
        let answer = poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if !drive(driver, ended, cx) {
                if marks.flushed.swap(false, Ordering::Relaxed) {
                    *sent = true;
                    progress.reach(Phase::Response);
                }
                return Poll::Pending;
            }
            answer.as_mut().poll(cx)
        });
        let answer = answer.await;
        *sent |= marks.flushed.load(Ordering::Relaxed);
        answer.map_err(|error| match ended {
            Some(Some(cause)) if error.is_canceled() => explain(cause),
            _ => explain(&error),
        })
    }

    /// Polls the connection beside `other`, until that is done.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let Self { driver, ended, .. } = self;
        let mut other = pin!(other);
        poll_fn(|cx| match other.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done),
            // What broke is told by the body; what had already come is still in it.
            Poll::Pending if ended.is_none() && drive(driver, ended, cx) => other.as_mut().poll(cx),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The whole body.
    async fn read(&mut self, body: &mut Incoming) -> Result<Vec<u8>, Failure> {
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(body_too_large());
        }
        let mut bytes = vec![];
        while let Some(frame) = self.beside(body.frame()).await {
            let frame = frame.map_err(|error| explain_body(&error))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > MAX_BODY {
                return Err(body_too_large());
            }
        }
        Ok(bytes)
    }

    /// Reads a body to its end, as far as is read at all. Whether another request may follow.
    async fn settle(&mut self, mut body: Incoming) -> bool {
        while let Some(frame) = self.beside(body.frame()).await {
            if frame.is_err() {
                return false;
            }
        }
        let Self { sender, driver, ended, .. } = self;
        poll_fn(|cx| {
            if ended.is_some() || drive(driver, ended, cx) {
                return Poll::Ready(false);
            }
            sender.poll_ready(cx).map(|ready| ready.is_ok())
        })
        .await
    }

    /// Reads a short body to its end and closes: with unread bytes the kernel would reset after all.
    async fn goodbye(&mut self, mut body: Incoming) {
        while let Some(Ok(_)) = self.beside(body.frame()).await {}
        if self.ended.is_none() {
            let Self { driver, ended, .. } = self;
            poll_fn(|cx| if drive(driver, ended, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        }
    }
}

/// Whether the connection has ended by now. It may not be asked again.
fn drive(
    driver: &mut http1::Connection<TokioIo<Watched>, Full<Bytes>>,
    ended: &mut Option<Option<hyper::Error>>,
    cx: &mut Context<'_>,
) -> bool {
    match Pin::new(driver).poll(cx) {
        Poll::Pending => false,
        Poll::Ready(said) => {
            *ended = Some(said.err());
            true
        }
    }
}

/// The same over HTTP/2.
pub(super) async fn ask_two(
    line: &mut http2::Line,
    request: &Request,
    probe: &HttpProbe,
    progress: &Progress,
    kept: bool,
) -> Result<(Head, bool), Broken> {
    let judged = |status: StatusCode| judge_status(probe, status.as_u16()) == Judged::Expected;
    let question = Question {
        request: request.head()?,
        body: request.body.clone(),
        reads: &|status| probe.expected_body.is_some() && judged(status),
        // Where none is read, none is let in.
        max_body: if probe.expected_body.is_some() { MAX_BODY } else { 0 },
    };
    let Reply { status, headers, body, at, .. } = line.ask(question, progress).await?;
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || size > MAX_HEAD {
        return Err(too_large().into());
    }
    if kept {
        return Ok((Head { status, headers, body, at }, line.settle().await));
    }
    if probe.connection == Connection::Polite {
        // The verdict stands. The attempt's own time bounds it.
        let _ = timeout_at(progress.deadline, line.goodbye()).await;
    }
    Ok((Head { status, headers, body, at }, false))
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
        return malformed();
    }
    closed()
}

pub(in crate::probe) fn malformed() -> Failure {
    Failure::new(Reason::MalformedResponse, "the answer is not HTTP/1.1")
}

pub(in crate::probe) fn closed() -> Failure {
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

pub(in crate::probe) fn too_large() -> Failure {
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

/// What a connection tells of the exchange that is on.
#[derive(Default)]
struct Marks {
    /// How much may still be read.
    left: AtomicUsize,
    /// What was written is out.
    flushed: AtomicBool,
}

impl Marks {
    fn begin(&self, left: usize) {
        self.left.store(left, Ordering::Relaxed);
        self.flushed.store(false, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// A connection that notes when the request is out, and that ends when too much comes in. What a target says before it is
/// asked for the first time is read when it is: hyper takes it for a fault, if it happens to look in between.
struct Watched {
    stream: Stream,
    connection: Connection,
    marks: Arc<Marks>,
    wrote: bool,
    /// Nothing was asked yet.
    is_new: bool,
    /// Who wants to read meanwhile.
    reader: Option<Waker>,
}

impl Watched {
    fn new(stream: Stream, connection: Connection, marks: Arc<Marks>) -> Self {
        Self { stream, connection, marks, wrote: false, is_new: true, reader: None }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_new {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.marks.left() == 0 {
            return Poll::Ready(Err(io::Error::other(TooMuch)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let left = self.marks.left().saturating_sub(buf.filled().len() - before);
        self.marks.left.store(left, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        self.is_new = false;
        self.reader.take().into_iter().for_each(Waker::wake);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if std::mem::take(&mut self.wrote) {
            self.marks.flushed.store(true, Ordering::Relaxed);
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

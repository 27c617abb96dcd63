//! Requests over HTTP/2, on a connection that is driven in place: dropping it frees all of it.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tokio_util::either::Either;

use super::{
    exchange::Stream,
    failure::{self, Broken, Failure, Moment},
    progress::{Phase, Progress},
    tls,
};
use crate::check::Reason;

/// Of one answer's headers, and of its trailers, as HTTP/2 counts them (RFC 9113, 6.5.2). Above what an answer may have,
/// so that whoever asks can say what is wrong with one that has a little more.
const MAX_HEADERS: u32 = 64 * 1024;
/// Of everything a target sends until its answer is there. Nothing in the protocol bounds what comes beside an answer:
/// settings, pings, frames of a kind that nobody knows.
const MAX_READ: usize = 256 * 1024;

/// A request, and how much of the answer is of interest.
pub(super) struct Question<'a> {
    /// With its scheme and authority.
    pub request: Request<()>,
    /// Empty: none is sent.
    pub body: Bytes,
    /// Whether the body of an answer with this head is read, and its trailers.
    pub reads: &'a (dyn Fn(StatusCode) -> bool + Sync),
    /// The most that is read of it, in bytes; one with more is refused.
    pub max_body: usize,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// When all of it was there.
    pub at: Instant,
}

/// Whether the TLS handshake of `stream`, where there was one, agreed on HTTP/2.
pub(super) fn is_agreed(stream: &Stream) -> bool {
    match stream {
        Either::Left(_) => false,
        Either::Right(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
    }
}

/// That it did not, where it had to.
pub(super) fn not_offered() -> Failure {
    Failure::new(Reason::TlsHandshakeFailed, "TLS handshake failed: the target does not offer HTTP/2")
}

/// A connection that speaks HTTP/2. It is driven by whoever asks over it and not by a task of its own: between two
/// requests nothing runs, and dropping it frees all of it.
pub(super) struct Line {
    /// `None`: we have said goodbye.
    sender: Option<SendRequest<Bytes>>,
    connection: Connection<Noting, Bytes>,
    /// The connection may be asked no more.
    ended: bool,
    notes: Arc<Notes>,
}

impl Line {
    /// Begins on `stream`.
    pub async fn open(stream: Stream, progress: &Progress) -> Result<Self, Failure> {
        progress.reach(Phase::Request);
        let notes = Arc::new(Notes { left: AtomicUsize::new(MAX_READ), broke: OnceLock::new() });
        let stream = Noting { stream, notes: Arc::clone(&notes) };
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_HEADERS)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| explain(&error, &notes))?;
        Ok(Self { sender: Some(sender), connection, ended: false, notes })
    }

    /// Asks `question`.
    pub async fn ask(&mut self, question: Question<'_>, progress: &Progress) -> Result<Reply, Broken> {
        progress.reach(Phase::Request);
        let Self { sender, connection, ended, notes } = self;
        // Every byte of a body may come in a frame of its own.
        notes.left.store(MAX_READ + 16 * question.max_body, Ordering::Relaxed);
        let told =
            |error: h2::Error| Broken { unheard: is_about_the_connection(&error), failure: explain(&error, notes) };
        let Some(sender) = sender.clone() else { return Err(gone()) };
        let mut exchange = pin!(exchange(sender, question, progress, &told));
        poll_fn(|cx| {
            if let Poll::Ready(reply) = exchange.as_mut().poll(cx) {
                return Poll::Ready(reply);
            }
            if *ended {
                return Poll::Pending;
            }
            match Pin::new(&mut *connection).poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(said) => {
                    *ended = true;
                    match said {
                        Err(error) => Poll::Ready(Err(told(error))),
                        Ok(()) => exchange.as_mut().poll(cx),
                    }
                }
            }
        })
        .await
    }

    /// Sends what is still to be sent, such as that a body is not wanted. Whether another question may follow.
    pub async fn settle(&mut self) -> bool {
        let Self { connection, ended, .. } = self;
        poll_fn(|cx| {
            *ended = *ended || Pin::new(&mut *connection).poll(cx).is_ready();
            Poll::Ready(!*ended)
        })
        .await
    }

    /// Without a sender the connection says goodbye and ends.
    pub async fn goodbye(&mut self) {
        self.sender = None;
        if !self.ended {
            let _ = (&mut self.connection).await;
            self.ended = true;
        }
    }
}

fn gone() -> Broken {
    Broken { failure: Failure::new(Reason::ConnectionClosed, "connection closed"), unheard: true }
}

/// Whether `error` ended the connection, or kept the request off it, rather than answered the request.
fn is_about_the_connection(error: &h2::Error) -> bool {
    error.is_io() || error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM)
}

async fn exchange(
    sender: SendRequest<Bytes>,
    question: Question<'_>,
    progress: &Progress,
    told: &(dyn Fn(h2::Error) -> Broken + Sync),
) -> Result<Reply, Broken> {
    let Question { request, body, reads, max_body } = question;
    let mut sender = sender.ready().await.map_err(told)?;
    let (answer, mut stream) = sender.send_request(request, body.is_empty()).map_err(told)?;
    if !body.is_empty() {
        stream.send_data(body, true).map_err(told)?;
    }
    progress.reach(Phase::Response);
    let (head, mut incoming): (http::response::Parts, _) = answer.await.map_err(told).map(Response::into_parts)?;
    // From here on the target has been heard.
    let told = |error| told(error).failure;
    let mut reply =
        Reply { status: head.status, headers: head.headers, body: vec![], trailers: None, at: Instant::now() };
    if !reads(reply.status) {
        return Ok(reply);
    }
    while let Some(data) = incoming.data().await {
        let data = data.map_err(told)?;
        reply.body.extend_from_slice(&data);
        if reply.body.len() > max_body {
            let message = format!("the answer's body is over {} KiB", max_body / 1024);
            return Err(Failure::new(Reason::BodyTooLarge, message).into());
        }
        incoming.flow_control().release_capacity(data.len()).map_err(told)?;
    }
    reply.trailers = incoming.trailers().await.map_err(told)?;
    reply.at = Instant::now();
    Ok(reply)
}

/// What HTTP/2 would keep no more of than its text.
struct Notes {
    /// How much may still be read.
    left: AtomicUsize,
    /// What broke the connection. The first is the reason of all that follow.
    broke: OnceLock<Broke>,
}

enum Broke {
    /// A target may refuse our certificate after the handshake.
    Tls(rustls::Error),
    /// More came than an answer can take.
    Flood,
}

/// A connection that takes notes, and that ends when too much comes in.
struct Noting {
    stream: Stream,
    notes: Arc<Notes>,
}

impl AsyncRead for Noting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = self.notes.left.load(Ordering::Relaxed);
        if left == 0 {
            let _ = self.notes.broke.set(Broke::Flood);
            return Poll::Ready(Err(io::Error::other("more was received than is read")));
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.notes.left.store(left.saturating_sub(buf.filled().len() - before), Ordering::Relaxed);
        if let Err(error) = &read
            && let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            let _ = self.notes.broke.set(Broke::Tls(error.clone()));
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What went wrong with the exchange, without a byte of what was received.
fn explain(error: &h2::Error, notes: &Notes) -> Failure {
    match notes.broke.get() {
        Some(Broke::Tls(error)) => return tls::explain(error),
        Some(Broke::Flood) => {
            let message = format!("the target floods the connection: over {} KiB beside an answer", MAX_READ / 1024);
            return Failure::new(Reason::MalformedResponse, message);
        }
        None => {}
    }
    if let Some(error) = error.get_io() {
        return failure::from_io(error, Moment::Arrived);
    }
    match error.reason() {
        Some(reason) if error.is_remote() => {
            Failure::new(Reason::ConnectionClosed, format!("the target broke off the request (HTTP/2 {reason:?})"))
        }
        _ => Failure::new(Reason::MalformedResponse, "the answer is not HTTP/2"),
    }
}

//! One request over HTTP/2, on a connection of its own that is driven in place: dropping the attempt frees all of it.

use std::{
    io,
    pin::{Pin, pin},
    sync::OnceLock,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_util::either::Either;

use super::{
    exchange::Stream,
    failure::{self, Failure, Moment},
    progress::{Phase, Progress},
    tls,
};
use crate::check::Reason;

/// Of one answer's headers, and of its trailers.
const MAX_HEADERS: u32 = 16 * 1024;

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
    /// Ends the connection by saying so, and not by letting go of it.
    pub polite: bool,
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

/// Asks `question` over `stream`.
pub(super) async fn ask(stream: Stream, question: Question<'_>, progress: &Progress) -> Result<Reply, Failure> {
    progress.reach(Phase::Request);
    let refused = OnceLock::new();
    let stream = Noting { stream, refused: &refused };
    let explain = |error: &h2::Error| refused.get().map_or_else(|| explain(error), tls::explain);
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(MAX_HEADERS)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| explain(&error))?;
    let polite = question.polite;
    let asked = {
        let mut exchange = pin!(exchange(sender, question, progress, &explain));
        tokio::select! {
            biased;
            ended = &mut exchange => ended,
            driven = &mut connection => match driven {
                Err(error) => Err(explain(&error)),
                Ok(()) => exchange.await,
            },
        }
    };
    if polite && asked.is_ok() {
        // The verdict stands. Without a sender the connection says goodbye and ends; the attempt's own time bounds it.
        let _ = timeout_at(progress.deadline, connection).await;
    }
    asked
}

async fn exchange(
    sender: h2::client::SendRequest<Bytes>,
    question: Question<'_>,
    progress: &Progress,
    explain: &(dyn Fn(&h2::Error) -> Failure + Sync),
) -> Result<Reply, Failure> {
    let explained = |error: h2::Error| explain(&error);
    let Question { request, body, reads, max_body, .. } = question;
    let mut sender = sender.ready().await.map_err(explained)?;
    let (answer, mut stream) = sender.send_request(request, body.is_empty()).map_err(explained)?;
    if !body.is_empty() {
        stream.send_data(body, true).map_err(explained)?;
    }
    progress.reach(Phase::Response);
    let (head, mut incoming): (http::response::Parts, _) = answer.await.map_err(explained).map(Response::into_parts)?;
    let mut reply =
        Reply { status: head.status, headers: head.headers, body: vec![], trailers: None, at: Instant::now() };
    if !reads(reply.status) {
        return Ok(reply);
    }
    while let Some(data) = incoming.data().await {
        let data = data.map_err(explained)?;
        reply.body.extend_from_slice(&data);
        if reply.body.len() > max_body {
            return Err(Failure::new(
                Reason::BodyTooLarge,
                format!("the answer's body is over {} KiB", max_body / 1024),
            ));
        }
        incoming.flow_control().release_capacity(data.len()).map_err(explained)?;
    }
    reply.trailers = incoming.trailers().await.map_err(explained)?;
    reply.at = Instant::now();
    Ok(reply)
}

/// A connection that notes what TLS thinks of it: HTTP/2 keeps no more of an error than its text, and a target may refuse
/// our certificate after the handshake.
struct Noting<'a> {
    stream: Stream,
    refused: &'a OnceLock<rustls::Error>,
}

impl AsyncRead for Noting<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let Err(error) = &read
            && let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            // The first is the reason of all that follow.
            let _ = self.refused.set(error.clone());
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Noting<'_> {
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
fn explain(error: &h2::Error) -> Failure {
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

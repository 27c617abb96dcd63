//! One call of `StreamAccessLogs`: who may, about what, and every message of it taken in turn.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use prost::Message as _;
use std::convert::Infallible;
use tokio_util::sync::CancellationToken;

use super::{
    Envoy,
    frames::{Broken, Frames, MAX_MESSAGE},
};
use crate::{
    engine::Scope,
    passive::{
        self, Overflow, Pending,
        envoy::{LogsMessage, MAX_ENTRIES, Opening, count_entries},
    },
    server::{auth::Decision, connections::Connection, observations::scope_request},
    telemetry::Source,
};

/// How long a stream may be there before its first message was let in. Envoy opens one when it has something to say.
const MAX_OPENING: Duration = Duration::from_secs(10);
const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// How a call ends (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok = 0,
    InvalidArgument = 3,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

struct End {
    code: Code,
    why: String,
}

impl End {
    fn new(code: Code, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// Answers a request, once its stream ends, or until `leave`.
pub async fn answer(
    envoy: &Envoy,
    request: Request<Incoming>,
    connection: &Connection,
    leave: CancellationToken,
) -> Response<Body> {
    let end = match is_ours(&request) {
        Err(end) => end,
        Ok(()) => {
            let (head, body) = request.into_parts();
            let stream = stream(envoy, &head.headers, Frames::new(body), connection, &leave);
            match leave.run_until_cancelled(stream).await {
                Some(Ok(())) => End::new(Code::Ok, ""),
                Some(Err(end)) => end,
                None => End::new(Code::Unavailable, "this process is going away; connect again"),
            }
        }
    };
    if end.code != Code::Ok {
        tracing::debug!(code = ?end.code, why = end.why, "a stream of access logs ended");
    }
    respond(&end)
}

fn is_ours(request: &Request<Incoming>) -> Result<(), End> {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if request.method() == Method::POST && request.uri().path() == PATH && grpc {
        return Ok(());
    }
    Err(End::new(Code::Unimplemented, format!("only {PATH} is served here")))
}

async fn stream(
    envoy: &Envoy,
    headers: &HeaderMap,
    mut frames: Frames<Incoming>,
    connection: &Connection,
    leave: &CancellationToken,
) -> Result<(), End> {
    let metrics = envoy.intake.metrics();
    let mut scope: Option<(Arc<Scope>, String)> = None;
    // What nobody has vouched for yet takes memory too: so few such streams at once, and none for long.
    let first = tokio::time::Instant::now() + MAX_OPENING;
    let too_late = || End::new(Code::Unavailable, "nobody was let in on this stream in time; connect again");
    let mut opening = match tokio::time::timeout_at(first, envoy.opening.acquire()).await {
        Ok(Ok(turn)) => Some(turn),
        Ok(Err(_)) | Err(_) => return Err(too_late()),
    };
    loop {
        let next = match &opening {
            Some(_) => tokio::time::timeout_at(first, frames.next()).await.map_err(|_| too_late())?,
            None => frames.next().await,
        };
        let message = match next {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(Broken::Off(why)) => return Err(End::new(Code::Unavailable, why)),
            Err(Broken::Compressed) => {
                metrics.batch(Source::Envoy, "malformed");
                return Err(End::new(Code::Unimplemented, "compressed messages are not taken"));
            }
            Err(Broken::TooLong(length)) => {
                metrics.batch(Source::Envoy, "too_large");
                let why = format!("a message of {length} bytes is above {MAX_MESSAGE}: lower buffer_size_bytes");
                return Err(End::new(Code::ResourceExhausted, why));
            }
        };
        let malformed = |error: prost::DecodeError| {
            metrics.batch(Source::Envoy, "malformed");
            End::new(Code::InvalidArgument, format!("not a StreamAccessLogsMessage: {error}"))
        };
        let entries = count_entries(&message).map_err(malformed)?;
        // Whoever leaves before they are judged leaves them counted.
        let pending = Pending::new(metrics, Source::Envoy, entries as u64);
        if let Some(identifier) = Opening::decode(&*message).map_err(malformed)?.identifier {
            let parsed = passive::parse_scope(&identifier.log_name).map_err(|why| {
                metrics.batch(Source::Envoy, "malformed");
                End::new(Code::InvalidArgument, format!("log_name: {why}"))
            })?;
            scope = Some((Arc::new(parsed), identifier.log_name));
        }
        let Some((scope, name)) = &scope else {
            metrics.batch(Source::Envoy, "malformed");
            return Err(End::new(Code::InvalidArgument, "the first message has no identifier"));
        };
        if entries > MAX_ENTRIES {
            metrics.batch(Source::Envoy, "too_large");
            let why = format!("a message of {entries} entries, above {MAX_ENTRIES}: lower buffer_size_bytes");
            return Err(End::new(Code::ResourceExhausted, why));
        }
        // Asked anew for every message, of an answer that is kept for a while: a grant that is withdrawn ends the stream.
        let who = match envoy.access.decide(headers, scope_request(scope), &envoy.home).await {
            Decision::Allowed(who) => who,
            refused => {
                metrics.batch(Source::Envoy, "refused");
                return Err(refusal(refused));
            }
        };
        opening.take();
        connection.prove();
        // Whoever is not read waits: Envoy holds back what it can, and counts what it cannot.
        let seat = envoy.intake.wait_for_seat(Source::Envoy).await.map_err(|overflow| {
            metrics.batch(Source::Envoy, "not_judging");
            gone(overflow, leave)
        })?;
        let Some(logs) = LogsMessage::decode(message).map_err(malformed)?.entries else { continue };
        let read = logs.read(scope);
        drop(logs);
        pending.done();
        metrics.add(Source::Envoy, "unattributed", read.unattributed);
        seat.take(read.reports).await.map_err(|overflow| {
            metrics.batch(Source::Envoy, "not_judging");
            gone(overflow, leave)
        })?;
        metrics.batch(Source::Envoy, "accepted");
        envoy.reporters.note(Source::Envoy, who.as_deref(), name);
    }
}

/// This replica does not judge, so nothing of this connection is of use here.
fn gone(_: Overflow, leave: &CancellationToken) -> End {
    leave.cancel();
    End::new(Code::Unavailable, "this replica does not judge; connect again to reach the one that does")
}

fn refusal(decision: Decision) -> End {
    match decision {
        Decision::Forbidden(why) => End::new(Code::PermissionDenied, why),
        Decision::Unavailable(why) => End::new(Code::Unavailable, why),
        Decision::Busy => End::new(Code::Unavailable, "too many tokens are looked at; try again"),
        Decision::Unauthenticated | Decision::Allowed(_) => {
            End::new(Code::Unauthenticated, "a valid bearer token is needed in the metadata 'authorization'")
        }
    }
}

/// What ends well has its one, empty, message; everything else is told by the status alone.
fn respond(end: &End) -> Response<Body> {
    let code = HeaderValue::from(end.code as u16);
    let mut response = match end.code {
        Code::Ok => {
            let trailers = HeaderMap::from_iter([(header::HeaderName::from_static("grpc-status"), code)]);
            let message = Full::new(Bytes::from_static(&[0; 5]));
            Response::new(message.with_trailers(async move { Some(Ok(trailers)) }).boxed())
        }
        _ => {
            let mut response = Response::new(Full::default().boxed());
            response.headers_mut().insert("grpc-status", code);
            // Percent-encoded, as gRPC over HTTP/2 has it.
            let why: String = url::form_urlencoded::byte_serialize(end.why.as_bytes()).collect();
            if let Ok(why) = HeaderValue::from_str(&why.replace('+', "%20")) {
                response.headers_mut().insert("grpc-message", why);
            }
            response
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

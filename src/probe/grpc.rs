//! The gRPC probe: `grpc.health.v1.Health/Check` over one HTTP/2 connection of its own.
//!
//! By `h2` itself and not by a gRPC library: one request with two fixed messages needs no code generator, and the
//! connection is driven in place, so that dropping the attempt frees all of it at once.

mod message;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use tokio_util::either::Either;

use self::message::Status;
use super::{
    ask::{Ask, Asked},
    dial::Manner,
    exchange::{Exchange, Opened, Stream, answered},
    failure::{self, Failure, Moment},
    progress::{Phase, Progress},
    tls::Protocol,
};
use crate::check::{GrpcProbe, Host, Reason};

const PATH: &str = "/grpc.health.v1.Health/Check";
const AGENT: &str = concat!("healthcheck-operator/", env!("CARGO_PKG_VERSION"));
/// Of one answer's headers, and of its trailers.
const MAX_HEADERS: u32 = 16 * 1024;
/// Of the message of an answer, which is a few bytes.
const MAX_MESSAGE: usize = 4 * 1024;

impl Ask for Exchange<'_, GrpcProbe> {
    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        let Opened { stream, certificate_expires } =
            self.open(address, Manner::Reset, Protocol::Http2, progress).await?;
        // Without it a gRPC server would be spoken to in a language it has not agreed to.
        if let Either::Right(tls) = &stream
            && tls.get_ref().1.alpn_protocol() != Some(b"h2")
        {
            let message = "TLS handshake failed: the target does not offer HTTP/2";
            return answered(Err(Failure::new(Reason::TlsHandshakeFailed, message)), certificate_expires);
        }
        answered(self.call(stream, address, progress).await, certificate_expires)
    }
}

/// The name that a certificate must bear where the probe says so: `tls.serverName`, else the host of `authority`.
pub(super) fn server_name(probe: &GrpcProbe) -> Option<&str> {
    let written = probe.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    written.or_else(|| probe.authority.as_deref().map(host))
}

/// An authority without its port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

impl Exchange<'_, GrpcProbe> {
    fn request(&self, address: SocketAddr, progress: &Progress) -> Result<Request<()>, Failure> {
        let authority = match (&self.probe.authority, &self.dial.host) {
            (Some(authority), _) => authority.to_string(),
            (None, Host::Name(name)) => format!("{}:{}", name.trim_end_matches('.'), address.port()),
            (None, Host::Address(_)) => address.to_string(),
        };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(PATH).build();
        // At most eight digits (gRPC over HTTP/2, Timeout).
        let millis = progress.remaining().as_millis().clamp(1, 99_999_999);
        uri.and_then(|uri| {
            Request::builder()
                .version(Version::HTTP_2)
                .method(Method::POST)
                .uri(uri)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header(header::USER_AGENT, AGENT)
                .header("grpc-timeout", format!("{millis}m"))
                .body(())
        })
        .map_err(|_| Failure::new(Reason::CannotStart, "the authority cannot be sent; correct the probe"))
    }

    async fn call(&self, stream: Stream, address: SocketAddr, progress: &Progress) -> Result<(), Failure> {
        let request = self.request(address, progress)?;
        progress.reach(Phase::Request);
        let (sender, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(MAX_HEADERS)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(|error| explain(&error))?;
        let mut exchange = std::pin::pin!(self.exchange(sender, request, progress));
        tokio::select! {
            biased;
            ended = &mut exchange => ended,
            driven = &mut connection => match driven {
                Err(error) => Err(explain(&error)),
                Ok(()) => exchange.await,
            },
        }
    }

    async fn exchange(
        &self,
        sender: h2::client::SendRequest<Bytes>,
        request: Request<()>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let explained = |error: h2::Error| explain(&error);
        let mut sender = sender.ready().await.map_err(explained)?;
        let (answer, mut stream) = sender.send_request(request, false).map_err(explained)?;
        stream.send_data(message::question(&self.probe.service), true).map_err(explained)?;
        progress.reach(Phase::Response);
        let (head, mut body) = answer.await.map_err(explained)?.into_parts();
        if head.status != StatusCode::OK {
            let message = format!("unexpected status code; got '{}', want '200'", head.status.as_u16());
            return Err(Failure::new(Reason::UnexpectedStatus, message));
        }
        let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/grpc") {
            return Err(Failure::new(Reason::MalformedResponse, "the answer is not gRPC"));
        }
        let mut frame = vec![];
        while let Some(data) = body.data().await {
            let data = data.map_err(explained)?;
            frame.extend_from_slice(&data);
            if frame.len() > MAX_MESSAGE {
                let message = format!("the answer's message is over {} KiB", MAX_MESSAGE / 1024);
                return Err(Failure::new(Reason::BodyTooLarge, message));
            }
            body.flow_control().release_capacity(data.len()).map_err(explained)?;
        }
        // An answer that is all trailers has its status among the headers.
        let trailers = body.trailers().await.map_err(explained)?;
        self.judge(status(trailers.as_ref().unwrap_or(&head.headers)), &frame)
    }

    fn judge(&self, status: Option<u32>, frame: &[u8]) -> Result<(), Failure> {
        let service = match &*self.probe.service {
            "" => "the server".to_owned(),
            service => format!("service '{service}'"),
        };
        let failed = |reason, message: String| Err(Failure::new(reason, message));
        match (status, message::answer(frame)) {
            (Some(0), Some(Status::Serving)) => Ok(()),
            (Some(0), Some(Status::ServiceUnknown)) | (Some(5), _) => {
                failed(Reason::GrpcServiceUnknown, format!("the server does not know {service}"))
            }
            (Some(0), Some(says)) => failed(Reason::GrpcNotServing, format!("{service} is {}", says.name())),
            (Some(12), _) => {
                failed(Reason::GrpcUnimplemented, "the server does not implement grpc.health.v1.Health".to_owned())
            }
            (Some(code), _) if code != 0 => {
                failed(Reason::GrpcNotServing, format!("gRPC status {code} ({})", code_name(code)))
            }
            _ => failed(Reason::MalformedResponse, "the answer is not one of grpc.health.v1".to_owned()),
        }
    }
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Status codes as gRPC names them (doc/statuscodes.md).
fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("unknown")
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

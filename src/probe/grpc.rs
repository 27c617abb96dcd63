//! The gRPC probe: `grpc.health.v1.Health/Check` over one HTTP/2 connection of its own.
//!
//! By HTTP/2 itself and not by a gRPC library: one request with two fixed messages needs no code generator.

mod message;

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};

use self::message::Status;
use super::{
    ask::{Ask, Asked},
    dial::Manner,
    exchange::{Exchange, Opened, Stream, answered},
    failure::Failure,
    http2::{self, Question},
    progress::Progress,
    tls::Protocol,
};
use crate::check::{GrpcProbe, Host, Reason};

const PATH: &str = "/grpc.health.v1.Health/Check";
const AGENT: &str = concat!("healthcheck-operator/", env!("CARGO_PKG_VERSION"));
/// Of the message of an answer, which is a few bytes.
const MAX_MESSAGE: usize = 4 * 1024;

impl Ask for Exchange<'_, GrpcProbe> {
    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        let Opened { stream, certificate_expires } =
            self.open(address, Manner::Reset, Protocol::Http2, progress).await?;
        // Without it a gRPC server would be spoken to in a language it has not agreed to.
        if self.tls.is_some() && !http2::is_agreed(&stream) {
            return answered(Err(http2::not_offered()), certificate_expires);
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
        let question = Question {
            request: self.request(address, progress)?,
            body: message::question(&self.probe.service),
            reads: &|status| status == StatusCode::OK,
            max_body: MAX_MESSAGE,
        };
        let mut line = http2::Line::open(stream, progress).await?;
        let reply = line.ask(question, progress).await.map_err(|broken| broken.failure)?;
        if reply.status != StatusCode::OK {
            let message = format!("unexpected status code; got '{}', want '200'", reply.status.as_u16());
            return Err(Failure::new(Reason::UnexpectedStatus, message));
        }
        let kind = reply.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/grpc") {
            return Err(Failure::new(Reason::MalformedResponse, "the answer is not gRPC"));
        }
        // An answer that is all trailers has its status among the headers.
        self.judge(status(reply.trailers.as_ref().unwrap_or(&reply.headers)), &reply.body)
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

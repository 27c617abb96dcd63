//! HTTP/1.1, and everything that is the same for every request.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, response::Response};
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    accept::{Accepted, Accepting},
    respond::{self, Failure},
};

/// The most of a request's head that is read, in bytes; hyper needs at least 8 KiB.
const MAX_HEAD: usize = 32 * 1024;

/// One listener with what it serves.
pub struct Listener {
    pub accepting: Accepting,
    pub app: App,
}

/// What requests are answered with.
#[derive(Clone)]
pub struct App {
    pub listener: &'static str,
    pub router: Router,
    pub access_log_skip: Arc<[String]>,
    /// Of a request's declared body, in bytes.
    pub max_body: u64,
    /// Paths that begin like this may have larger ones.
    pub large_bodies: Option<(&'static str, u64)>,
}

impl Listener {
    /// Serves until `stop`, then finishes what was begun, within [`super::Limits::drain`].
    pub async fn serve(self, stop: CancellationToken) {
        let Self { accepting, app } = self;
        accepting.serve(stop, move |accepted| app.clone().serve(accepted)).await;
    }
}

impl App {
    async fn serve(self, accepted: Accepted) -> hyper::Result<()> {
        let Accepted { stream, peer, connection, limits, stop } = accepted;
        let service = service_fn(|request| async {
            connection.begin();
            let response = self.answer(request, peer).await;
            connection.end();
            Ok::<_, Infallible>(response)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(limits.head).half_close(true).max_buf_size(MAX_HEAD);
        let mut http = std::pin::pin!(builder.serve_connection(stream, service));
        tokio::select! {
            ended = http.as_mut() => ended,
            () = stop.cancelled() => {
                http.as_mut().graceful_shutdown();
                http.await
            }
        }
    }

    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response {
        let begun = std::time::Instant::now();
        let path = trim_path(request.uri_mut());
        let method = request.method().clone();
        let max_body =
            self.large_bodies.filter(|(prefix, _)| path.starts_with(prefix)).map_or(self.max_body, |(_, most)| most);
        let mut response = if declared_body(&request) > max_body {
            self.too_large(max_body)
        } else {
            // The router's error type has no value.
            let Ok(response) = self.router.clone().oneshot(request.map(Body::new)).await;
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if !self.access_log_skip.contains(&path) {
            tracing::info!(
                target: "access", listener = self.listener, %peer, %method, path, status = response.status().as_u16(),
                micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            );
        }
        response
    }

    fn too_large(&self, max_body: u64) -> Response {
        use axum::response::IntoResponse;
        let why = format!("the body has more than {max_body} bytes");
        let mut response = match self.listener {
            "admin" => Failure::new(StatusCode::PAYLOAD_TOO_LARGE, why).into_response(),
            _ => respond::text(StatusCode::PAYLOAD_TOO_LARGE, why + "\n"),
        };
        // Nobody will read what comes.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// What the request says its body will have, in bytes.
fn declared_body(request: &Request<Incoming>) -> u64 {
    hyper::body::Body::size_hint(request.body()).exact().unwrap_or(0)
}

/// Takes slashes off the end of the path, so that `/healthz/` is `/healthz`, and returns it.
fn trim_path(uri: &mut Uri) -> String {
    let path = match uri.path().trim_end_matches('/') {
        "" => "/".to_owned(),
        path => path.to_owned(),
    };
    if path != uri.path() {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut parts = std::mem::take(uri).into_parts();
        // A shorter path of the same characters is a path; were it none, the one that came would stay.
        if let Ok(shorter) = PathAndQuery::try_from(path.clone() + &query) {
            parts.path_and_query = Some(shorter);
        }
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_end_go_and_the_query_stays() {
        for (before, after) in [
            ("/", "/"),
            ("//", "/"),
            ("/healthz", "/healthz"),
            ("/healthz/", "/healthz"),
            ("/healthz/shop//?verbose&exclude=a/", "/healthz/shop?verbose&exclude=a/"),
            ("/?verbose", "/?verbose"),
            ("http://host:80/healthz/?a", "http://host:80/healthz?a"),
            ("*", "*"),
        ] {
            let mut uri: Uri = before.parse().expect("valid");
            let path = trim_path(&mut uri);
            assert_eq!(uri, after);
            assert_eq!(path, uri.path());
        }
    }
}

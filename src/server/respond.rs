//! Answers that both listeners give, and what the client asks them to look like.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The forms an answer can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    Html,
}

/// `{"error": …}`, as the admin listener tells that something is wrong.
#[derive(Debug)]
pub struct Failure {
    code: StatusCode,
    why: String,
}

impl Failure {
    pub fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.why }).to_string() + "\n";
        respond(self.code, "application/json", body)
    }
}

/// An answer with a body of a given type.
pub fn respond(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text, one line or many.
pub fn text(code: StatusCode, body: impl Into<Body>) -> Response {
    respond(code, "text/plain; charset=utf-8", body)
}

/// Makes an answer that is long with many checks, on another thread than the one that answers load balancers.
pub async fn off_thread(work: impl FnOnce() -> Response + Send + 'static) -> Response {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer could not be made");
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "an answer could not be made; see the log").into_response()
    })
}

/// What the `Accept` header prefers (RFC 9110, section 12.5.1): the offered form with the highest weight, the one named
/// first among equals; `otherwise` where no form of ours is named.
pub fn preferred(headers: &HeaderMap, otherwise: Form) -> Form {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut best: Option<(Form, f32)> = None;
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().map(str::to_ascii_lowercase).as_deref() {
            Some("text/plain" | "text/*") => Form::Text,
            Some("application/health+json" | "application/json" | "application/*") => Form::Json,
            Some("text/html" | "application/xhtml+xml") => Form::Html,
            Some("*/*") => otherwise,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        if weight > 0.0 && best.is_none_or(|(_, heaviest)| weight > heaviest) {
            best = Some((form, weight));
        }
    }
    best.map_or(otherwise, |(form, _)| form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_the_form() {
        let of = |accept: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            preferred(&headers, Form::Text)
        };
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(of(browser), Form::Html);
        assert_eq!(of("application/health+json"), Form::Json);
        assert_eq!(of("Application/JSON; q=0.5, text/plain;q=0.4"), Form::Json);
        assert_eq!(of("text/html;q=0.1, application/health+json;q=0.2"), Form::Json);
        assert_eq!(of("text/html;q=0, */*"), Form::Text);
        for other in ["*/*", "image/png", "", "text/html;q=x"] {
            assert_eq!(of(other), Form::Text, "{other}");
        }
        assert_eq!(preferred(&HeaderMap::new(), Form::Json), Form::Json);
    }
}

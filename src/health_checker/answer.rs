//! The one question, and its two answers.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody as _},
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::HealthChecker;

/// Which checks failed; the original has nothing of the kind, and its clients read no headers.
const FAILED: HeaderName = HeaderName::from_static("x-healthcheck-failed");
/// The most that header says, in bytes; some proxies refuse long ones.
const LONGEST_HEADER: usize = 512;

/// How long a body may take; the connection of a longer one is closed.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// What a run found: nothing wrong, or the names of what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    failed: Option<HeaderValue>,
}

impl Verdict {
    /// Everything is well when nothing failed.
    pub fn of(failed: &[&str]) -> Self {
        Self { failed: (!failed.is_empty()).then(|| listed(failed)) }
    }
}

impl IntoResponse for Verdict {
    fn into_response(self) -> Response {
        match self.failed {
            None => (StatusCode::OK, "OK").into_response(),
            Some(failed) => {
                (StatusCode::GATEWAY_TIMEOUT, [(FAILED, failed)], "At least one health check failed").into_response()
            }
        }
    }
}

pub fn router(checker: Arc<HealthChecker>) -> Router {
    Router::new().fallback(answer).with_state(checker)
}

async fn answer(State(checker): State<Arc<HealthChecker>>, request: Request) -> Verdict {
    let body = request.into_body();
    // On a task of its own: the answer does not wait for it, and may be there before the body has ended.
    if !body.is_end_stream() {
        tokio::spawn(timeout(BODY_PATIENCE, swallow(body)));
    }
    checker.verdict().await
}

/// Reads a body that nobody wants to know, so that its client is not cut off in the middle of it and the connection can
/// be kept.
async fn swallow(mut body: Body) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// As many names as there is room for, and how many more there are.
fn listed(names: &[&str]) -> HeaderValue {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        if text.len() + comma.len() + name.len() > LONGEST_HEADER {
            text = format!("{text}{comma}and {} more", names.len() - index);
            break;
        }
        text = text + comma + name;
    }
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    // Of these characters every text is a value.
    HeaderValue::from_str(&text.chars().map(plain).collect::<String>())
        .unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_what_failed_and_stays_short() {
        assert_eq!(listed(&["port 80"]), "port 80");
        assert_eq!(listed(&["port 80", "script é\r\nx"]), "port 80, script ???x");
        let names: Vec<String> = (10_000..10_100).map(|port| format!("port {port}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let value = listed(&names);
        assert!(value.len() < LONGEST_HEADER + 20, "{value:?}");
        // 10 bytes the first, 12 each other one.
        assert!(value.to_str().expect("ASCII").ends_with("port 10041, and 58 more"), "{value:?}");
        assert_eq!(listed(&["x".repeat(600).as_str()]), "and 1 more");
    }

    #[test]
    fn nothing_failed_is_well() {
        assert_eq!(Verdict::of(&[]).into_response().status(), 200);
        let bad = Verdict::of(&["port 80"]).into_response();
        assert_eq!((bad.status().as_u16(), &bad.headers()[FAILED]), (504, &HeaderValue::from_static("port 80")));
    }
}

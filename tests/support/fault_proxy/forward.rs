//! One request through the proxy.

use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use http::{HeaderMap, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::rules::{Fault, Request, Rules};
use super::watch_stream;

pub(super) type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// The API server behind the proxy.
pub(super) struct Upstream {
    client: reqwest::Client,
    url: String,
}

impl Upstream {
    pub(super) fn new(url: String, ca_pem: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(ca_pem.as_bytes())?])
            // A connection for each request: one kept from before the API server was killed would
            // be a fault that no test asked for.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, url })
    }

    async fn send(&self, head: http::request::Parts, body: Bytes) -> anyhow::Result<reqwest::Response> {
        let path = head.uri.path_and_query().context("a request without a path")?;
        let request = self.client.request(head.method, format!("{}{path}", self.url));
        Ok(request.headers(passed_on(head.headers)).body(body).send().await?)
    }
}

/// Answers a client's request; an error cuts its connection.
pub(super) async fn answer(
    request: http::Request<Incoming>,
    rules: Arc<Rules>,
    upstream: Arc<Upstream>,
) -> anyhow::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let info = Request::parse(&head.method, &head.uri);
    rules.record(&info);
    let body = body.collect().await?.to_bytes();
    // A task of its own: a held request goes on to the API server even when its client is gone.
    tokio::spawn(async move {
        let mut answer_lost = false;
        for rule in rules.matching(&info) {
            if rule.fault.is_of_events() || !rule.strike() {
                continue;
            }
            match &rule.fault {
                Fault::Delay(time) => tokio::time::sleep(*time).await,
                Fault::Hold => rules.lifted(&rule).await,
                Fault::Cut => bail!("cut, as told"),
                Fault::LoseAnswer => answer_lost = true,
                Fault::Answer { status, retry_after } => return refusal(*status, *retry_after),
                Fault::Gone => return refusal(410, None),
                Fault::GoneEvent | Fault::DropEvents | Fault::RepeatEvents => {}
            }
        }
        let response = upstream.send(head, body).await?;
        if answer_lost {
            // The answer's head is there, so the request was carried out.
            bail!("answer lost, as told");
        }
        Ok(passed_back(response, info, rules))
    })
    .await?
}

fn passed_back(response: reqwest::Response, info: Request, rules: Arc<Rules>) -> Response<Body> {
    let mut answer = Response::new(());
    *answer.status_mut() = response.status();
    let watches = info.verb == "watch" && response.status().is_success();
    let mut headers = passed_on(response.headers().clone());
    if !watches && let Some(length) = response.headers().get(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, length.clone());
    }
    *answer.headers_mut() = headers;
    let body = if watches { watch_stream::events(response, info, rules) } else { watch_stream::plain(response) };
    answer.map(|()| body)
}

/// Headers without those that belong to one hop. Compression is not asked for: the proxy reads
/// the events of watches.
fn passed_on(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, ACCEPT_ENCODING] {
        headers.remove(name);
    }
    headers
}

fn refusal(code: u16, retry_after: Option<u32>) -> anyhow::Result<Response<Body>> {
    let text = status(code).to_string();
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::builder().status(code).header("Content-Type", "application/json");
    if let Some(seconds) = retry_after {
        answer = answer.header(RETRY_AFTER, seconds);
    }
    Ok(answer.body(body)?)
}

/// A `Status` object as the API server makes them.
pub(super) fn status(code: u16) -> serde_json::Value {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden by the test"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version: 1 (2)"),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        500 => ("InternalError", "an error on the server has prevented the request from succeeding"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("", "refused by the test"),
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    })
}

//! `POST /v1/healthchecks/{namespace}/{name}/probe`: a probe that somebody asks for, now.

use std::{sync::Arc, time::Instant};

use axum::{
    body::{Body, to_bytes},
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    admin::Admin,
    auth::AccessRequest,
    respond::{self, Failure},
};
use crate::{
    check::ObjectKey,
    on_demand::{Question, Refusal},
};

/// The longest question, in bytes.
const MAX_QUESTION: usize = 16 * 1024;

/// Answers once the probe has ended, within its timeout.
pub async fn probe(
    State(admin): State<Arc<Admin>>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // The words of the Kubernetes API for doing something to an object: a subresource is created.
    let request = AccessRequest { verb: "create", namespace: &namespace, name: &name, subresource: "probe" };
    let who = match admin.access.check(&headers, request, &admin.home).await {
        Ok(who) => who,
        Err(refusal) => return refusal.into_response(),
    };
    let Ok(body) = to_bytes(body, MAX_QUESTION).await else {
        let why = format!("the body has more than {MAX_QUESTION} bytes, or broke off");
        return Failure::new(StatusCode::PAYLOAD_TOO_LARGE, why).into_response();
    };
    let question = match Question::parse(&body) {
        Ok(question) => question,
        Err(why) => return Failure::new(StatusCode::BAD_REQUEST, why).into_response(),
    };
    let Some(on_demand) = &admin.on_demand else {
        return Failure::new(StatusCode::NOT_FOUND, "nothing is probed on demand here").into_response();
    };
    let (key, begun) = (ObjectKey::new(&namespace, &name), Instant::now());
    let target = question.target.clone();
    let (answered, joined) = on_demand.probe(key.clone(), question).await;
    let result = match &answered {
        Ok(answer) => match answer.healthy {
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unknown",
        },
        Err(_) => "refused",
    };
    tracing::info!(
        target: "audit", who = who.as_deref().unwrap_or("-"), check = %key, endpoint_of = target.as_deref().unwrap_or("*"),
        result, joined, micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX), "probed on demand"
    );
    match answered {
        // Serializing a plain struct into memory cannot fail.
        Ok(answer) => {
            let body = serde_json::to_string(&answer).unwrap_or_default() + "\n";
            respond::respond(StatusCode::OK, "application/json", body)
        }
        Err(Refusal::NotFound(why)) => Failure::new(StatusCode::NOT_FOUND, why).into_response(),
        Err(Refusal::Invalid(why)) => Failure::new(StatusCode::BAD_REQUEST, why).into_response(),
        Err(Refusal::Busy) => {
            let why = "too many probes are asked for at once; try again";
            again(Failure::new(StatusCode::TOO_MANY_REQUESTS, why).into_response())
        }
        Err(Refusal::NotProbing) => {
            let why = "nothing is probed by this replica at the moment: it has just begun, or changes roles; try again";
            again(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response())
        }
        Err(Refusal::Unavailable(why)) => again(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response()),
    }
}

/// What was refused now may go well in a second.
pub(super) fn again(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

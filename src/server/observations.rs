//! `POST /v1/observations`, and `POST /v1/observations/access-log`: what data planes report of their traffic.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;

use super::{
    admin::Admin,
    auth::{Access, AccessRequest},
    probe_now::again,
    respond::{self, Failure},
};
use crate::{
    check::{ObjectKey, Text},
    engine::{Fate, Scope},
    passive::{self, Intake, MAX_REPORTS, Overflow, Read, Seat, Tally, Unread},
    telemetry::Source,
};

/// Where both paths begin: their bodies may be larger than any other.
pub const PREFIX: &str = "/v1/observations";
/// The largest batch of reports, in bytes.
const MAX_BATCH: usize = 1024 * 1024;
/// The largest batch of access logs, in bytes: a thousand lines with all their headers.
pub const MAX_LOG: usize = 4 * 1024 * 1024;
/// How many HealthChecks a batch may name: each may have to be asked for.
const MAX_CHECKS: usize = 256;
/// How long it may take to ask what a token may: the batch waits in its seat meanwhile.
const MAX_ASKING: Duration = Duration::from_secs(10);
const SLOW: &str =
    "it took too long to ask what the token may; grant it in whole namespaces, or send fewer HealthChecks in a batch";
/// How long a batch may take to arrive: it holds a seat meanwhile.
const MAX_ARRIVAL: Duration = Duration::from_secs(5);

/// The answer to a batch of which something could be taken.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    accepted: u64,
    unknown_check: u64,
    unknown_endpoint: u64,
    not_passive: u64,
    suspended: u64,
    /// Seen too long ago, or before the endpoint recovered.
    late: u64,
    /// Lines of a log that say nothing of any endpoint.
    unattributed: u64,
    /// The first reports that were not taken.
    refused: Vec<RefusedReport>,
}

#[derive(Serialize)]
struct RefusedReport {
    /// From 0, in the batch; of a log, among the upstreams that were asked.
    index: usize,
    reason: &'static str,
}

/// A list of observations.
pub async fn report(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Body) -> Response {
    let batch = Batch { admin: &admin, source: Source::Api };
    // Who stands behind the token is asked first: a seat is not for everybody who can spell one.
    let everywhere = match admin.access.check(&headers, scope_request(&Scope::All), &admin.home).await {
        Ok(who) => Some(who),
        Err(refused) if refused.is_forbidden() => None,
        Err(refused) => return batch.refused(refused.into_response(), &Read::default()),
    };
    let seat = match batch.seat() {
        Ok(seat) => seat,
        Err(refusal) => return *refusal,
    };
    let body = match batch.read(body, MAX_BATCH).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let written = match passive::parse_observations(&body) {
        Ok(written) => written,
        Err(why) => return batch.refuse("malformed", StatusCode::BAD_REQUEST, why),
    };
    if written.reports.len() > MAX_REPORTS {
        let why = format!("a batch has at most {MAX_REPORTS} observations, this one {}", written.reports.len());
        return batch.refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, why);
    }
    if written.checks.len() > MAX_CHECKS {
        let why = format!("a batch names at most {MAX_CHECKS} HealthChecks, this one {}", written.checks.len());
        return batch.refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, why);
    }
    let reports = Read { reports: written.reports, unattributed: 0 };
    let who = match everywhere {
        Some(who) => who,
        // Who is somebody may say that there is nothing to say.
        None if written.checks.is_empty() => None,
        None => match tokio::time::timeout(MAX_ASKING, may_report(&admin, &headers, &written.checks)).await {
            Ok(Ok(who)) => who,
            Ok(Err(refusal)) => return batch.refused(refusal, &reports),
            Err(_) => {
                let slow = Failure::new(StatusCode::SERVICE_UNAVAILABLE, SLOW).into_response();
                return batch.refused(slow, &reports);
            }
        },
    };
    batch.take(seat, reports, who.as_deref()).await
}

/// Access logs as APISIX's http-logger posts them, about endpoints in `?scope=`.
pub async fn access_log(State(admin): State<Arc<Admin>>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let batch = Batch { admin: &admin, source: Source::HttpLogger };
    let scope = match scope(&uri) {
        Ok(scope) => Arc::new(scope),
        Err(why) => return batch.refuse("malformed", StatusCode::BAD_REQUEST, why),
    };
    let who = match admin.access.check(&headers, scope_request(&scope), &admin.home).await {
        Ok(who) => who,
        Err(refusal) => return batch.refused(refusal.into_response(), &Read::default()),
    };
    let seat = match batch.seat() {
        Ok(seat) => seat,
        Err(refusal) => return *refusal,
    };
    let body = match batch.read(body, MAX_LOG).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    // Megabytes of JSON are not for the thread that answers load balancers.
    let parsed = tokio::task::spawn_blocking(move || passive::parse_http_log(&body, &scope)).await;
    match parsed {
        Ok(Ok(read)) => batch.take(seat, read, who.as_deref()).await,
        Ok(Err(Unread::Malformed(why))) => batch.refuse("malformed", StatusCode::BAD_REQUEST, why),
        Ok(Err(Unread::TooMany)) => {
            let why = format!("a batch has at most {MAX_REPORTS} lines: lower batch_max_size");
            batch.refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        Err(error) => {
            tracing::error!(%error, "a batch of access logs could not be read");
            batch.refuse("malformed", StatusCode::INTERNAL_SERVER_ERROR, "it could not be read; see the log".to_owned())
        }
    }
}

/// `?scope=`, of which there is exactly one.
fn scope(uri: &Uri) -> Result<Scope, String> {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let mut scope = None;
    for (name, value) in pairs {
        if name != "scope" || scope.is_some() {
            return Err(format!("'{}': the query is ?scope=… and nothing else", crate::check::clean_message(&name)));
        }
        scope = Some(passive::parse_scope(&value).map_err(|why| format!("scope: {why}"))?);
    }
    scope.ok_or_else(|| "say whose endpoints the log speaks of: ?scope=NAMESPACE/NAME, NAMESPACE/* or *".to_owned())
}

/// What must be allowed to report about `scope`.
pub fn scope_request(scope: &Scope) -> AccessRequest<'_> {
    let (namespace, name) = match scope {
        Scope::All => ("", ""),
        Scope::Namespace(namespace) => (&**namespace, ""),
        Scope::Check(key) => (&*key.namespace, &*key.name),
    };
    AccessRequest { verb: "create", namespace, name, subresource: "report" }
}

/// Whether all of `checks` may be reported about. A namespace is asked for first, for that is how it is granted.
async fn may_report(admin: &Admin, headers: &HeaderMap, checks: &[Arc<ObjectKey>]) -> Result<Option<Text>, Response> {
    let ask = async |namespace, name| {
        let request = AccessRequest { verb: "create", namespace, name, subresource: "report" };
        admin.access.check(headers, request, &admin.home).await.map_err(IntoResponse::into_response)
    };
    let mut who = None;
    let mut namespaces: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for check in checks {
        namespaces.entry(&check.namespace).or_default().push(&check.name);
    }
    if !matches!(admin.access, Access::Cluster(_)) {
        return ask("", "").await;
    }
    for (namespace, names) in namespaces {
        match ask(namespace, "").await {
            Ok(found) => who = found,
            Err(refusal) if refusal.status() == StatusCode::FORBIDDEN => {
                for name in names {
                    who = ask(namespace, name).await?;
                }
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(who)
}

struct Batch<'a> {
    admin: &'a Admin,
    source: Source,
}

impl Batch<'_> {
    fn intake(&self) -> &Intake {
        &self.admin.intake
    }

    fn seat(&self) -> Result<Seat, Box<Response>> {
        self.intake().seat(self.source).map_err(|overflow| Box::new(self.overflow(overflow)))
    }

    fn overflow(&self, overflow: Overflow) -> Response {
        match overflow {
            Overflow::Busy => {
                let why = "too many batches are being taken in; send this one again".to_owned();
                again(self.refuse("busy", StatusCode::TOO_MANY_REQUESTS, why))
            }
            Overflow::NotJudging => {
                let why =
                    "this replica does not judge; report to the one that holds the lease (status.prober)".to_owned();
                let mut refusal = again(self.refuse("not_judging", StatusCode::SERVICE_UNAVAILABLE, why));
                // The next connection may reach the one that does; this one never will.
                refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                refusal
            }
        }
    }

    fn refuse(&self, result: &'static str, code: StatusCode, why: String) -> Response {
        self.intake().metrics().batch(self.source, result);
        Failure::new(code, why).into_response()
    }

    /// Whoever sent `read` may not, or nobody could be asked.
    fn refused(&self, refusal: Response, read: &Read) -> Response {
        let metrics = self.intake().metrics();
        metrics.batch(self.source, "refused");
        metrics.dropped(self.source, read.reports.iter().map(|report| u64::from(report.count)).sum());
        refusal
    }

    async fn read(&self, body: Body, most: usize) -> Result<Bytes, Response> {
        let too_large = || {
            let why = format!("a batch has at most {most} bytes: send it in parts");
            self.refuse("too_large", StatusCode::PAYLOAD_TOO_LARGE, why)
        };
        // What says beforehand that it is too large need not be sent.
        if usize::try_from(hyper::body::Body::size_hint(&body).lower()).is_ok_and(|declared| declared > most) {
            return Err(too_large());
        }
        match tokio::time::timeout(MAX_ARRIVAL, Limited::new(body, most).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => {
                Err(self.refuse("malformed", StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))
            }
            Err(_) => {
                let why = format!("the body has not come within {} s", MAX_ARRIVAL.as_secs());
                Err(self.refuse("malformed", StatusCode::REQUEST_TIMEOUT, why))
            }
        }
    }

    async fn take(&self, seat: Seat, read: Read, who: Option<&str>) -> Response {
        let Read { reports, unattributed } = read;
        let metrics = self.intake().metrics();
        metrics.add(self.source, "unattributed", unattributed);
        let tally = match seat.take(reports).await {
            Ok(tally) => tally,
            Err(overflow) => return self.overflow(overflow),
        };
        metrics.batch(self.source, "accepted");
        self.admin.reporters.note(self.source, who, "-");
        respond::respond(StatusCode::OK, "application/json", answer(&tally, unattributed))
    }
}

fn answer(tally: &Tally, unattributed: u64) -> String {
    let refused = |(index, fate): &(usize, Fate)| RefusedReport { index: *index, reason: fate.as_str() };
    let answer = Answer {
        accepted: tally.accepted,
        unknown_check: tally.unknown_check,
        unknown_endpoint: tally.unknown_endpoint,
        not_passive: tally.not_passive,
        suspended: tally.suspended,
        late: tally.late,
        unattributed,
        refused: tally.told.iter().map(refused).collect(),
    };
    // Serializing a plain struct into memory cannot fail.
    serde_json::to_string(&answer).unwrap_or_default() + "\n"
}

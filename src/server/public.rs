//! What load balancers and people see.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::{MethodFilter, MethodRouter, on},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Handle;

use super::{
    auth::Access,
    config::{Answers, Details},
    fresh,
    query::{self, Asked},
    render::{
        health_json,
        page::{self, Reader},
        text,
    },
    respond::{self, Form},
    verdict::{Subject, Verdict, judge},
};
use crate::{
    check::ObjectKey,
    engine::{Board, CheckView, WRITER_SILENCE},
    on_demand::OnDemand,
    telemetry::Beats,
};

#[derive(Clone, Debug)]
pub struct Public {
    pub board: Arc<Board>,
    pub beats: Beats,
    pub answers: Answers,
    pub details: Details,
    /// Who may have probes made.
    pub access: Access,
    pub on_demand: Option<OnDemand>,
    /// Where `access` may ask others.
    pub home: Handle,
}

type Shared = State<Arc<Public>>;

/// The routes; paths come without a slash at the end.
pub fn router(public: Public, health_path: Option<&str>) -> Router {
    let mut router = Router::new()
        .route("/", read(root))
        .route("/healthz", read(all))
        .route("/healthz/{namespace}", read(namespace))
        .route("/healthz/{namespace}/{name}", read(check))
        .route("/healthz/{namespace}/{name}/{target}", read(target));
    if let Some(path) = health_path {
        router = router.route(path, read(own_health));
    }
    router
        .fallback(|uri: Uri| async move {
            respond::text(StatusCode::NOT_FOUND, format!("nothing is served at {}; try /healthz\n", uri.path()))
        })
        .method_not_allowed_fallback(|| async {
            respond::text(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS are answered here\n")
        })
        .with_state(Arc::new(public))
}

/// GET, HEAD (which axum derives from GET) and OPTIONS alike.
pub fn read<H, T, S>(handler: H) -> MethodRouter<S>
where
    H: axum::handler::Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    on(MethodFilter::GET.or(MethodFilter::OPTIONS), handler)
}

/// The page for everybody, also for who sends no `Accept`. But `OPTIONS /` is what HAProxy's default check sends, every
/// second or two: unless it asks for the page it gets the line, which costs the same however many checks there are.
async fn root(State(public): Shared, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let usual = if method == Method::OPTIONS { Form::Text } else { Form::Html };
    answer(public, Subject::All, &uri, &headers, usual).await
}

async fn all(State(public): Shared, uri: Uri, headers: HeaderMap) -> Response {
    answer(public, Subject::All, &uri, &headers, Form::Text).await
}

async fn namespace(State(public): Shared, Path(ns): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    answer(public, Subject::Namespace(ns), &uri, &headers, Form::Text).await
}

async fn check(
    State(public): Shared,
    Path((ns, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(public, Subject::Check(ObjectKey::new(&ns, &name)), &uri, &headers, Form::Text).await
}

async fn target(
    State(public): Shared,
    Path((ns, name, target)): Path<(String, String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    answer(public, Subject::Target(ObjectKey::new(&ns, &name), target), &uri, &headers, Form::Text).await
}

async fn answer(public: Arc<Public>, subject: Subject, uri: &Uri, headers: &HeaderMap, usual: Form) -> Response {
    let asked = match query::parse(uri) {
        Ok(asked) => asked,
        Err(why) => return respond::text(StatusCode::BAD_REQUEST, why + "\n"),
    };
    let form = asked.form.unwrap_or_else(|| respond::preferred(headers, usual));
    if asked.fresh {
        return fresh::answer(&public, subject, &asked, headers, form).await;
    }
    let listed = public.details != Details::None && (asked.verbose || form != Form::Text);
    let many = listed && matches!(subject, Subject::All | Subject::Namespace(_));
    let make = move || match judge(&public.board, subject, &asked.filter, listed) {
        Ok(verdict) => public.render(&verdict, form, &asked),
        Err(why) => respond::text(StatusCode::NOT_FOUND, format!("{why}\n")),
    };
    if many { respond::off_thread(make).await } else { make() }
}

impl Public {
    pub fn render(&self, verdict: &Verdict, form: Form, asked: &Asked) -> Response {
        let code = self.answers.code(verdict.health);
        match form {
            Form::Json => {
                respond::respond(code, health_json::CONTENT_TYPE, health_json::document(verdict, self.details))
            }
            Form::Html => {
                let (details, standby) = (self.details, self.beats.is_standby());
                let reader = Reader { details, now: Timestamp::now(), base: "/healthz", standby, asked };
                html(code, page::page(verdict, &reader))
            }
            Form::Text if asked.verbose => respond::text(code, text::verbose(verdict, self.details)),
            Form::Text => match self.answers.body(verdict.health) {
                Some(body) => respond::text(code, body.to_owned()),
                None => respond::text(code, text::line(verdict, self.details)),
            },
        }
    }
}

/// A page, with the policy that keeps it harmless.
pub fn html(code: StatusCode, body: String) -> Response {
    let mut response = respond::respond(code, "text/html; charset=utf-8", body);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, page::content_security_policy());
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// `agents` are those of our loops and checks that beat; whatever has stopped is in `stopped`, and only there.
/// A check that was never probed has no beat yet: `null`.
#[derive(Serialize)]
struct OwnHealth {
    status: &'static str,
    now: Timestamp,
    agents: BTreeMap<String, Option<Timestamp>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    stopped: BTreeMap<String, Option<Timestamp>>,
}

async fn own_health(State(public): Shared) -> Response {
    let now = Timestamp::now();
    let mut health = OwnHealth { status: "ok", now, agents: BTreeMap::new(), stopped: BTreeMap::new() };
    for (name, beat) in public.beats.all() {
        let list = if beat.is_alive() { &mut health.agents } else { &mut health.stopped };
        list.insert(name.to_owned(), Some(beat.at));
    }
    // Names of checks are detail that a stranger may not be meant to have.
    let checks = if public.details == Details::None { Vec::new() } else { public.board.all() };
    for view in checks.iter().filter(|view| !view.suspended) {
        let list = if is_beating(view, now) { &mut health.agents } else { &mut health.stopped };
        list.insert(view.key.to_string(), view.live.last_beat());
    }
    // Serializing a plain struct into memory cannot fail.
    let body = serde_json::to_string(&health).unwrap_or_default() + "\n";
    respond::respond(StatusCode::OK, "application/json", body)
}

/// A check is silent when an endpoint's verdict went stale and no probe ended lately either: the engine knows how long
/// each may be silent, and none may be for less than [`WRITER_SILENCE`].
fn is_beating(view: &CheckView, now: Timestamp) -> bool {
    let recent = |at: Timestamp| {
        now.duration_since(at) < jiff::SignedDuration::from_secs(WRITER_SILENCE.as_secs().cast_signed())
    };
    !view.endpoints.iter().any(|endpoint| endpoint.stale) || view.live.last_beat().is_some_and(recent)
}

//! What operators of the operator see: its own liveness and readiness, metrics, and the API.

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode, Uri};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use super::{
    auth::{Access, AccessRequest},
    blackbox,
    config::Details,
    exposition::expose,
    observations, probe_now,
    public::{html, read},
    query::{self, Asked},
    readiness::{self, Readiness},
    render::{
        api,
        page::{self, Reader},
    },
    reporters::Reporters,
    respond::{self, Failure, Form},
    verdict::{Subject, Verdict, judge},
};
use crate::{check::ObjectKey, engine::Board, on_demand::OnDemand, passive::Intake, telemetry::Beats};

pub struct Admin {
    pub board: Arc<Board>,
    pub beats: Beats,
    pub readiness: Readiness,
    pub registry: Registry,
    /// What is measured, in the words of blackbox_exporter.
    pub probes: Registry,
    pub access: Access,
    pub on_demand: Option<OnDemand>,
    pub intake: Intake,
    pub reporters: Arc<Reporters>,
    /// Where `access` may ask others.
    pub home: Handle,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("access", &self.access).finish_non_exhaustive()
    }
}

type Shared = State<Arc<Admin>>;

/// The routes; paths come without a slash at the end.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", read(livez))
        .route("/readyz", read(readyz))
        .route("/readyz/{check}", read(readyz_check))
        .route("/metrics", read(metrics))
        .route("/metrics/probes", read(blackbox::all))
        .route("/probe", read(blackbox::one))
        .route("/v1/healthchecks", read(list_all))
        .route("/v1/healthchecks/{namespace}", read(list_namespace))
        .route("/v1/healthchecks/{namespace}/{name}", read(get_check))
        .route("/v1/healthchecks/{namespace}/{name}/probe", post(probe_now::probe))
        .route("/v1/observations", post(observations::report))
        .route("/v1/observations/access-log", post(observations::access_log))
        .fallback(|uri: Uri| async move {
            let why = format!(
                "nothing is served at {}; try /v1/healthchecks, /metrics, /metrics/probes, /probe, /livez or /readyz",
                uri.path()
            );
            Failure::new(StatusCode::NOT_FOUND, why)
        })
        .method_not_allowed_fallback(|| async {
            let why = "only GET, HEAD and OPTIONS are answered here, and POST where a path ends in /probe or begins with /v1/observations";
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .with_state(Arc::new(admin))
}

/// A loop of ours that no longer turns will not by itself: only a restart helps. Nothing outside this process counts.
async fn livez(State(admin): Shared) -> Response {
    let beats = admin.beats.all();
    let dead = beats.iter().filter(|(_, beat)| !beat.is_alive());
    let body: String =
        dead.map(|(name, beat)| format!("[-]loop-{name} failed: no sign of life since {:.3}\n", beat.at)).collect();
    if body.is_empty() {
        return respond::text(StatusCode::OK, "ok\n");
    }
    respond::text(StatusCode::INTERNAL_SERVER_ERROR, body + "livez check failed\n")
}

/// As the API server of Kubernetes tells it: `ok`, or a line for each check where one is bad or `verbose` is asked for.
async fn readyz(State(admin): Shared, uri: Uri) -> Response {
    let asked = match query::parse(&uri) {
        Ok(asked) => asked,
        Err(why) => return Failure::new(StatusCode::BAD_REQUEST, why).into_response(),
    };
    let checks = readiness::checks(&admin.readiness, &admin.beats, &admin.board);
    let ready = checks.values().all(Result::is_ok);
    if ready && !asked.verbose {
        return respond::text(StatusCode::OK, "ok\n");
    }
    let mut body = String::new();
    for (name, state) in checks {
        body.push_str(&match state {
            Ok(()) => format!("[+]{name} ok\n"),
            Err(why) => format!("[-]{name} failed: {why}\n"),
        });
    }
    let (code, end) = if ready {
        (StatusCode::OK, "readyz check passed\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "readyz check failed\n")
    };
    respond::text(code, body + end)
}

async fn readyz_check(State(admin): Shared, Path(name): Path<String>) -> Response {
    match readiness::checks(&admin.readiness, &admin.beats, &admin.board).remove(&name) {
        Some(Ok(())) => respond::text(StatusCode::OK, "ok\n"),
        Some(Err(why)) => respond::text(StatusCode::SERVICE_UNAVAILABLE, format!("{name} failed: {why}\n")),
        None => Failure::new(StatusCode::NOT_FOUND, format!("no check {name:?}; see /readyz?verbose")).into_response(),
    }
}

async fn metrics(State(admin): Shared, headers: HeaderMap) -> Response {
    // Long with many checks, so not on the thread that answers load balancers.
    respond::off_thread(move || expose(&admin.registry, &headers)).await
}

async fn list_all(State(admin): Shared, uri: Uri, headers: HeaderMap) -> Response {
    api(admin, Subject::All, uri, headers).await
}

async fn list_namespace(State(admin): Shared, Path(ns): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    api(admin, Subject::Namespace(ns), uri, headers).await
}

async fn get_check(
    State(admin): Shared,
    Path((ns, name)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    api(admin, Subject::Check(ObjectKey::new(&ns, &name)), uri, headers).await
}

async fn api(admin: Arc<Admin>, subject: Subject, uri: Uri, headers: HeaderMap) -> Response {
    // Who may not read is not told what exists, nor what is wrong with the question.
    if let Err(refusal) = admin.access.check(&headers, request(&subject), &admin.home).await {
        return refusal.into_response();
    }
    respond::off_thread(move || match query::parse(&uri) {
        Ok(asked) if asked.fresh => {
            let why = "fresh: not answered here; ask /healthz on the other listener, or POST …/probe";
            Failure::new(StatusCode::BAD_REQUEST, why).into_response()
        }
        Ok(asked) => {
            let form = asked.form.unwrap_or_else(|| respond::preferred(&headers, Form::Json));
            answer(&admin, subject, &asked, form)
        }
        Err(why) => Failure::new(StatusCode::BAD_REQUEST, why).into_response(),
    })
    .await
}

fn request(subject: &Subject) -> AccessRequest<'_> {
    let (verb, namespace, name) = match subject {
        Subject::All => ("list", "", ""),
        Subject::Namespace(namespace) => ("list", namespace.as_str(), ""),
        Subject::Check(key) | Subject::Target(key, _) => ("get", &*key.namespace, &*key.name),
    };
    AccessRequest { verb, namespace, name, subresource: "" }
}

fn answer(admin: &Admin, subject: Subject, asked: &Asked, form: Form) -> Response {
    let one = matches!(subject, Subject::Check(_));
    let verdict = match judge(&admin.board, subject.clone(), &asked.filter, true) {
        Ok(verdict) => verdict,
        // A namespace without a check is an empty list, as in the Kubernetes API.
        Err(_) if !one => Verdict::empty(subject),
        Err(why) => return Failure::new(StatusCode::NOT_FOUND, why.to_string()).into_response(),
    };
    match form {
        Form::Html => {
            let (now, standby) = (Timestamp::now(), admin.beats.is_standby());
            let reader = Reader { details: Details::Full, now, base: "/v1/healthchecks", standby, asked };
            html(StatusCode::OK, page::page(&verdict, &reader))
        }
        Form::Json | Form::Text if !one => json(api::list(&verdict)),
        Form::Json | Form::Text => match api::single(&verdict) {
            Some(body) => json(body),
            None if verdict.believed => Failure::new(StatusCode::NOT_FOUND, "no HealthCheck matches").into_response(),
            None => Failure::new(StatusCode::SERVICE_UNAVAILABLE, verdict.why()).into_response(),
        },
    }
}

fn json(body: String) -> Response {
    respond::respond(StatusCode::OK, "application/json", body)
}

//! The way to the API server: configuration, deadlines, and a count of every request.
//!
//! kube's own retries are off: a call that hangs for minutes hides an outage. Whoever calls decides what to do next.

use std::{
    env,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::{Method, Request, Response, Uri};
use kube::{
    Api, Client, Config,
    api::ListParams,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::de::DeserializeOwned;
use tower::{BoxError, Layer, Service};

use crate::telemetry::{Metrics, metrics::ApiLabels};

/// How long any one call may take from start to end, on our side.
pub const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// How long the server may work on a call; shorter than ours, so that its answer still reaches us.
const SERVER_DEADLINE: Duration = Duration::from_secs(6);
/// How many objects are read at once.
const PAGE: u32 = 250;
/// How long the first byte of an answer may take, for lists and the start of a watch too.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// A kubeconfig file; `None`: `$KUBECONFIG`, the pod's own service account, `~/.kube/config`, in this order.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
}

impl Connection {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or it names things that are not there.
    pub async fn load(&self) -> anyhow::Result<Config> {
        let mut config = self.choose().await?;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(5));
        Ok(config)
    }

    async fn choose(&self) -> anyhow::Result<Config> {
        let in_cluster = env::var_os("KUBERNETES_SERVICE_HOST").is_some();
        if self.kubeconfig.is_none() && self.context.is_none() && env::var_os("KUBECONFIG").is_none() && in_cluster {
            return Config::incluster()
                .context("cannot read the pod's service account; set serviceAccount.automount, or name a kubeconfig with --kubeconfig");
        }
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).with_context(|| {
                format!("cannot read the kubeconfig '{}'; name another with --kubeconfig", path.display())
            })?,
            None => Kubeconfig::read().context(
                "no cluster to talk to: not in a pod, and no kubeconfig can be read; name one with --kubeconfig",
            )?,
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.context(
            "the kubeconfig cannot be used; choose a context of it with --context, or another file with --kubeconfig",
        )
    }
}

/// A client of its own connections, every request of which has a deadline and is counted.
///
/// # Errors
/// When the configuration names certificates or a proxy that cannot be used.
pub fn client(config: &Config, metrics: &Metrics) -> anyhow::Result<Client> {
    let builder = ClientBuilder::try_from(config.clone()).context("the kubeconfig cannot be used")?;
    Ok(builder.with_layer(&Observe { metrics: metrics.clone() }).build())
}

/// Why a call to the API server did not succeed, as far as anyone acts on it.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no answer from the API server within its deadline")]
    Timeout,
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    #[error("API server asks for patience: {0}")]
    Throttled(String),
    #[error("API server error: {0}")]
    Server(String),
    /// Somebody else changed the object first.
    #[error("{0}")]
    Conflict(String),
    /// The object is not as the patch's tests would have it.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Unauthorized(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Other(String),
}

impl CallError {
    /// Whether nothing else would get through now either: the server's or the network's trouble, not the object's.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable(_) | Self::Throttled(_) | Self::Server(_))
    }
}

impl From<&kube::Error> for CallError {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                match status.code {
                    401 => Self::Unauthorized(message),
                    403 => Self::Forbidden(message),
                    404 => Self::NotFound(message),
                    409 | 412 => Self::Conflict(message),
                    422 => Self::Invalid(message),
                    429 => Self::Throttled(message),
                    408 | 504 => Self::Timeout,
                    500.. => Self::Server(message),
                    _ => Self::Other(message),
                }
            }
            kube::Error::Service(error) if error.is::<DeadlinePassed>() => Self::Timeout,
            kube::Error::Service(error) => Self::Unreachable(innermost(&**error)),
            kube::Error::HyperError(error) => Self::Unreachable(innermost(error)),
            kube::Error::Auth(error) => Self::Unauthorized(innermost(error)),
            other => Self::Other(innermost(other)),
        }
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        Self::from(&error)
    }
}

/// The innermost cause says what happened; the outer ones say only where.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// One call with its deadline.
///
/// # Errors
/// Whatever the server answered, or that it did not.
pub async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_DEADLINE, request).await {
        Ok(result) => result.map_err(CallError::from),
        Err(_) => Err(CallError::Timeout),
    }
}

/// What one API lists, page by page.
pub struct Pages<'a, K> {
    api: &'a Api<K>,
    /// `None`: that was all.
    next: Option<ListParams>,
}

impl<'a, K: Clone + DeserializeOwned + std::fmt::Debug> Pages<'a, K> {
    #[must_use]
    pub fn new(api: &'a Api<K>, params: ListParams) -> Self {
        Self { api, next: Some(params.limit(PAGE)) }
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// When it cannot be read, within [`CALL_DEADLINE`]. Asked again, it is tried again.
    pub async fn next(&mut self) -> Result<Option<Vec<K>>, CallError> {
        let Some(params) = &mut self.next else { return Ok(None) };
        let list = call(self.api.list(params)).await?;
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => self.next = None,
        }
        Ok(Some(list.items))
    }
}

/// Hands everything that the APIs list to `each`, in their order.
///
/// # Errors
/// When a page cannot be read; what came before it was handed over.
pub async fn list_all<K: Clone + DeserializeOwned + std::fmt::Debug>(
    apis: &[Api<K>],
    params: &ListParams,
    mut each: impl FnMut(K),
) -> Result<(), CallError> {
    for api in apis {
        let mut pages = Pages::new(api, params.clone());
        while let Some(page) = pages.next().await? {
            page.into_iter().for_each(&mut each);
        }
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
#[error("no answer from the API server within {} s", ANSWER_DEADLINE.as_secs())]
struct DeadlinePassed;

#[derive(Clone)]
struct Observe {
    metrics: Metrics,
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, metrics: self.metrics.clone() }
    }
}

struct Observed<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (kind, verb) = describe(request.method(), request.uri());
        if verb != "watch"
            && let Some(uri) = with_deadline(request.uri())
        {
            *request.uri_mut() = uri;
        }
        let answer = self.inner.call(request);
        let metrics = self.metrics.clone();
        Box::pin(async move {
            let started = Instant::now();
            let answer = match tokio::time::timeout(ANSWER_DEADLINE, answer).await {
                Ok(answer) => answer,
                Err(_) => Err(DeadlinePassed.into()),
            };
            let labels = ApiLabels { kind, verb, result: result_word(&answer) };
            metrics.api_request_duration.get_or_create(&labels).observe(started.elapsed().as_secs_f64());
            metrics.api_requests.get_or_create(&labels).inc();
            answer
        })
    }
}

fn result_word<B>(answer: &Result<Response<B>, BoxError>) -> &'static str {
    match answer {
        Ok(response) => match response.status().as_u16() {
            100..400 => "success",
            403 => "forbidden",
            404 => "not_found",
            409 | 412 => "conflict",
            429 => "throttled",
            500.. => "server_error",
            _ => "error",
        },
        Err(error) if error.is::<DeadlinePassed>() => "timeout",
        Err(_) => "unreachable",
    }
}

/// The server gives up on the request by itself, so that nothing of ours is carried out long after we forgot it.
fn with_deadline(uri: &Uri) -> Option<Uri> {
    let path_and_query = uri.path_and_query()?.as_str();
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let mut parts = uri.clone().into_parts();
    let text = format!("{path_and_query}{separator}timeout={}s", SERVER_DEADLINE.as_secs());
    parts.path_and_query = Some(text.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The resources we ever ask for: metric labels come from a closed set.
const KINDS: [&str; 18] = [
    "healthchecks",
    "endpointslices",
    "pods",
    "services",
    "nodes",
    "secrets",
    "configmaps",
    "events",
    "leases",
    "tokenreviews",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectreviews",
    "customresourcedefinitions",
    "namespaces",
    "endpoints",
    "version",
    "healthz",
];

/// Resource and verb of a request, as RBAC and the audit log would call them.
fn describe(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let segments: Vec<_> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let rest = match segments.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        other => other,
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        other => other,
    };
    let kind = rest.first().and_then(|name| KINDS.into_iter().find(|kind| kind == name)).unwrap_or("other");
    let named = rest.len() > 1;
    let watching = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    let verb = match *method {
        Method::GET if watching => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    (kind, verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(method: Method, uri: &str) -> (&'static str, &'static str) {
        describe(&method, &uri.parse().expect("a URI"))
    }

    #[test]
    fn a_request_is_called_as_rbac_calls_it() {
        let group = "/apis/healthcheck-operator.dev/v1alpha1";
        assert_eq!(described(Method::GET, &format!("{group}/healthchecks?limit=5")), ("healthchecks", "list"));
        assert_eq!(
            described(Method::PATCH, &format!("{group}/namespaces/shop/healthchecks/db/status")),
            ("healthchecks", "patch")
        );
        assert_eq!(described(Method::GET, "/api/v1/namespaces/shop/pods?&watch=true"), ("pods", "watch"));
        assert_eq!(described(Method::GET, "/api/v1/namespaces/shop"), ("namespaces", "get"));
        assert_eq!(described(Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews"), ("tokenreviews", "create"));
        assert_eq!(described(Method::GET, "/apis/example.dev/v1/gadgets/one"), ("other", "get"));
    }

    #[test]
    fn a_deadline_is_added_to_the_query() {
        let with = |uri: &str| with_deadline(&uri.parse().expect("a URI")).expect("a URI").to_string();
        assert_eq!(with("http://h/api/v1/pods"), "http://h/api/v1/pods?timeout=6s");
        assert_eq!(with("http://h/api/v1/pods?limit=1"), "http://h/api/v1/pods?limit=1&timeout=6s");
    }

    #[tokio::test]
    async fn every_request_but_a_watch_ends_on_the_server_too() {
        let layer = Observe { metrics: Metrics::default() };
        let mut service = layer.layer(tower::service_fn(|request: Request<Body>| async move {
            Ok::<_, BoxError>(Response::new(request.uri().to_string()))
        }));
        for (uri, wanted) in [
            ("http://h/api/v1/pods?limit=1", "http://h/api/v1/pods?limit=1&timeout=6s"),
            (
                "http://h/api/v1/pods?watch=true&timeoutSeconds=190",
                "http://h/api/v1/pods?watch=true&timeoutSeconds=190",
            ),
        ] {
            let request = Request::get(uri).body(Body::empty()).expect("a request");
            assert_eq!(service.call(request).await.expect("an answer").into_body(), wanted);
        }
    }
}

//! Against a server that is written down.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::check::ObjectKey;

const TYPE: &str = "healthcheck-operator.dev/web";

/// Pods that are withheld, page after page: one in the namespace of the check, and many elsewhere.
#[derive(Clone, Default)]
struct Server {
    requests: Arc<Mutex<Vec<String>>>,
    pages: usize,
    page: usize,
    /// How many namespaces have a check beside `shop`.
    others: usize,
    busy: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

fn pod(namespace: &str, name: &str, status: &str) -> Value {
    json!({
        "metadata": {"namespace": namespace, "name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"containers": [], "readinessGates": [{"conditionType": TYPE}]},
        "status": {"conditions": [{"type": TYPE, "status": status, "message": "HealthCheck web, gate traffic"}]},
    })
}

impl Server {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, tower::BoxError> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let token = query.split('&').find_map(|pair| pair.strip_prefix("continue=")).unwrap_or_default();
        let said = format!("{} {path} {token}", request.method());
        self.requests.lock().expect("no panic").push(said.trim_end().to_owned());
        let list = |items: Vec<Value>, next: &str| json!({"metadata": {"continue": next}, "items": items});
        let body = match (request.method(), path.as_str()) {
            (&Method::GET, path) if path.ends_with("/healthchecks") => {
                let gates = json!([{"name": "traffic", "podReadiness": {"conditionType": TYPE}}]);
                let spec = json!({"targets": [{"name": "t", "host": "192.0.2.1", "port": 1}], "gates": gates});
                let names = (0..self.others).map(|n| format!("n{n}")).chain(["shop".to_owned()]);
                let check = |namespace| json!({"metadata": {"namespace": namespace, "name": "web"}, "spec": spec});
                list(names.map(check).collect(), "")
            }
            (&Method::GET, "/api/v1/namespaces/shop/pods") => list(vec![pod("shop", "web", "False")], ""),
            (&Method::GET, "/api/v1/pods") => {
                let page: usize = token.parse().unwrap_or(0);
                let items = (0..self.page).map(|n| pod("elsewhere", &format!("p{page}-{n}"), "False")).collect();
                list(items, &if page + 1 < self.pages { (page + 1).to_string() } else { String::new() })
            }
            (&Method::PATCH, path) => {
                self.most.fetch_max(self.busy.fetch_add(1, SeqCst) + 1, SeqCst);
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                self.busy.fetch_sub(1, SeqCst);
                let parts: Vec<_> = path.split('/').collect();
                pod(parts[4], parts[6], "True")
            }
            _ => list(vec![], ""),
        };
        let answer = Response::builder().status(StatusCode::OK).header("content-type", "application/json");
        Ok(answer.body(Body::from(body.to_string().into_bytes()))?)
    }
}

fn release_of_pods() -> Release {
    Release {
        namespace: "hco".into(),
        lease: "hco".into(),
        selection: Selection::default(),
        features: Features { endpoint_slices: false, pod_readiness: true },
        within: Duration::from_secs(45),
        free_lease: false,
    }
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(tower::service_fn(move |request| server.clone().answer(request)), "default")
    }

    /// What was asked since this was last asked.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().expect("no panic"))
    }
}

#[tokio::test]
async fn where_many_namespaces_have_gates_everything_is_listed_at_once_each_time() {
    let server = Server { pages: 1, page: 1, others: 60, ..Server::default() };
    let (client, what) = (server.client(), release_of_pods());
    let (mut sweep, mut report) = (Sweep::new(Duration::ZERO), Report::default());
    for _ in 0..2 {
        pass::look(&client, &what, &mut sweep, &mut report, &mut Pass::default()).await;
        let requests = server.requests();
        assert!(requests.iter().any(|each| each == "GET /api/v1/pods"), "{requests:?}");
        assert!(!requests.iter().any(|each| each.starts_with("GET /api/v1/namespaces/")), "{requests:?}");
    }
}

#[tokio::test]
async fn what_is_known_comes_first_and_no_page_waits_for_the_next() {
    let server = Server { pages: 3, page: 20, ..Server::default() };
    let (client, what) = (server.client(), release_of_pods());
    let (mut sweep, mut report) = (Sweep::new(Duration::ZERO), Report::default());
    let mut pass = Pass::default();
    pass::look(&client, &what, &mut sweep, &mut report, &mut pass).await;
    assert!(pass.wrote && pass.left.is_empty(), "{:?}", pass.left);
    assert_eq!((report.pods.len(), report.waiting.len()), (61, 61));
    assert!(report.waiting.contains("Pod shop/web"), "{:?}", report.waiting);
    assert!(pass.is_done("shop"));
    let requests = server.requests();
    let at =
        |what: &str| requests.iter().position(|each| each == what).unwrap_or_else(|| panic!("no {what}: {requests:?}"));
    let order = [
        "GET /api/v1/namespaces/shop/pods",
        "PATCH /api/v1/namespaces/shop/pods/web/status",
        "GET /api/v1/pods",
        "PATCH /api/v1/namespaces/elsewhere/pods/p0-19/status",
        "GET /api/v1/pods 1",
        "PATCH /api/v1/namespaces/elsewhere/pods/p1-19/status",
        "GET /api/v1/pods 2",
    ];
    assert!(order.map(at).is_sorted(), "{requests:?}");
    assert_eq!(server.most.load(SeqCst), WRITES, "several at once, and no more");

    // Whoever undoes it does so where there is a gate: the whole cluster is not searched again.
    pass::look(&client, &what, &mut sweep, &mut report, &mut Pass::default()).await;
    let requests = server.requests();
    assert!(!requests.iter().any(|each| each.starts_with("GET /api/v1/pods")), "{requests:?}");
    assert!(requests.iter().any(|each| each == "GET /api/v1/namespaces/elsewhere/pods"), "{requests:?}");
}

#[test]
fn only_where_everything_is_let_go_it_is_told() {
    let refused = CallError::Forbidden("may not".to_owned());
    let mut pass = Pass::default();
    pass.unwritten("EndpointSlice", &ObjectKey::new("shop", "db"), &refused);
    pass.unwritten("EndpointSlice", &ObjectKey::new("gone", "db"), &CallError::NotFound("gone".to_owned()));
    assert_eq!(pass.left, ["EndpointSlice shop/db: may not"]);
    assert!(!pass.is_done("shop") && pass.is_done("gone") && pass.is_done("elsewhere"));
    pass.unlisted("pods", &refused);
    assert!(!pass.is_done("elsewhere"));
}

#[test]
fn who_may_still_write_is_waited_for_the_longer_the_slower_calls_are() {
    let fast = seen(Duration::from_millis(20));
    assert!(fast.abs_diff(LOOK + CALL_DEADLINE) < PAUSE, "{fast:?}");
    assert!(seen(Duration::from_millis(600)) > fast);
    assert_eq!(seen(CALL_DEADLINE), LOOK + CALL_DEADLINE * 3);
}

use http::{Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

use super::*;

/// A keeper whose API server gives every request this answer, or none.
fn parts(status: Option<StatusCode>) -> Parts {
    let service = tower::service_fn(move |request: Request<Body>| async move {
        let Some(status) = status else { return std::future::pending().await };
        let body = if status == StatusCode::OK {
            let kind = match request.uri().path().rsplit('/').next() {
                Some("nodes") => "NodeList",
                Some("services") => "ServiceList",
                _ => "EndpointSliceList",
            };
            let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}});
            let items = if kind == "NodeList" { vec![node] } else { vec![] };
            json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
        } else {
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no",
                "reason": "x", "code": status.as_u16()})
        };
        let response = Response::builder().status(status).body(Body::from(body.to_string().into_bytes()));
        Ok::<_, tower::BoxError>(response.expect("valid"))
    });
    let cluster_url = http::Uri::from_static("https://192.0.2.1:6443");
    let denied = DeniedDynamic { api_servers: without_asking(&cluster_url), ..DeniedDynamic::default() };
    Parts {
        client: Client::new(service, "default"),
        cluster_url,
        own: None,
        guard: Arc::new(EgressGuard::cluster(denied, vec![])),
        metrics: Metrics::default(),
        readiness: Readiness::default(),
        known: CancellationToken::new(),
    }
}

fn denies(guard: &EgressGuard, address: &str) -> bool {
    guard.check(address.parse().expect("an address")).is_err()
}

/// Runs a keeper until it lets probing begin; how long that took.
async fn wait(status: Option<StatusCode>) -> (Arc<EgressGuard>, Duration) {
    let parts = parts(status);
    let (guard, known, stop) = (parts.guard.clone(), parts.known.clone(), CancellationToken::new());
    assert!(denies(&guard, "192.0.2.1:6443"), "denied before anybody was asked");
    let begun = Instant::now();
    let keeper = tokio::spawn(keep(parts, stop.clone()));
    known.cancelled().await;
    let took = begun.elapsed();
    stop.cancel();
    keeper.await.expect("no panic");
    assert!(denies(&guard, "192.0.2.1:6443"));
    (guard, took)
}

#[tokio::test(start_paused = true)]
async fn probing_waits_for_the_first_answers() {
    let (guard, took) = wait(Some(StatusCode::OK)).await;
    assert!(denies(&guard, "192.0.2.7:10250") && !denies(&guard, "192.0.2.7:80"));
    assert!(took < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_answer_too() {
    let (guard, took) = wait(Some(StatusCode::FORBIDDEN)).await;
    assert!(!denies(&guard, "192.0.2.7:10250"));
    assert!(took < PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever() {
    let (_, took) = wait(None).await;
    assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
}

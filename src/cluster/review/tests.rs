use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use futures::future::join_all;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;

const GOOD: &str = "good-0123456789abcdef";
const LONG: Duration = Duration::from_secs(20);

/// An API server that knows tokens that begin with `good`, and lets them do anything but in the namespace `closed`. Of
/// others it says nothing until it is let.
struct Server {
    reviews: AtomicUsize,
    accesses: AtomicUsize,
    free: watch::Sender<bool>,
    /// It answers that it cannot.
    away: AtomicBool,
    /// It lets nobody do anything any more.
    closed: AtomicBool,
    /// It knows no token any more.
    revoked: AtomicBool,
}

impl Server {
    async fn answer(&self, request: Request<Body>) -> Value {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect_bytes().await.expect("a body");
        let mut review: Value = serde_json::from_slice(&body).expect("JSON");
        review["status"] = if path.ends_with("/tokenreviews") {
            self.reviews.fetch_add(1, SeqCst);
            let good = review["spec"]["token"].as_str().expect("a token").starts_with("good");
            let good = good && !self.revoked.load(SeqCst);
            if !good {
                self.free.subscribe().wait_for(|free| *free).await.expect("never closed");
            }
            json!({"authenticated": good, "user": {"username": if good { "alice" } else { "" }}})
        } else {
            self.accesses.fetch_add(1, SeqCst);
            let closed = self.closed.load(SeqCst);
            json!({"allowed": !closed && review["spec"]["resourceAttributes"]["namespace"] != "closed"})
        };
        review
    }

    fn asked(&self) -> (usize, usize) {
        (self.reviews.load(SeqCst), self.accesses.load(SeqCst))
    }
}

fn start() -> (Arc<Server>, ClusterAuthorizer) {
    let server = Arc::new(Server {
        reviews: AtomicUsize::new(0),
        accesses: AtomicUsize::new(0),
        free: watch::Sender::new(true),
        away: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        revoked: AtomicBool::new(false),
    });
    let behind = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = behind.clone();
        async move {
            let answer = server.answer(request).await.to_string();
            let mut answer = Response::new(Body::from(answer.into_bytes()));
            if server.away.load(SeqCst) {
                *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    (server, ClusterAuthorizer::new(Client::new(service, "default")))
}

const fn probing(namespace: &str) -> AccessRequest<'_> {
    AccessRequest { verb: "create", namespace, name: "web", subresource: "probe" }
}

fn alice() -> Decision {
    Decision::Allowed(Some("alice".into()))
}

fn stranger(number: usize) -> String {
    format!("stranger-0123456789-{number}")
}

#[tokio::test(start_paused = true)]
async fn strangers_have_few_turns_and_hold_up_nobody() {
    let (server, main) = start();
    let public = main.for_strangers().expect("one of its own");
    assert_eq!(public.authorize(GOOD, probing("shop")).await, alice());
    // So long ago that she is asked about anew.
    tokio::time::advance(KEPT * 2).await;
    server.free.send_replace(false);
    let before = server.asked().0;
    let flood: Vec<_> = (0..50)
        .map(|number| {
            let public = public.clone();
            tokio::spawn(async move { public.authorize(&stranger(number), probing("shop")).await })
        })
        .collect();
    timeout(LONG, async {
        while server.asked().0 < before + STRANGERS_AT_ONCE || flood.iter().filter(|one| one.is_finished()).count() < 46
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("four wait, and the others have been told");
    assert_eq!(public.authorize(&stranger(99), probing("shop")).await, Decision::Busy);
    assert_eq!(public.authorize(GOOD, probing("shop")).await, alice(), "who was somebody is no stranger");
    assert_eq!(main.authorize("good-9876543210fedcba", probing("shop")).await, alice(), "nor who asks elsewhere");
    server.free.send_replace(true);
    let told: Vec<_> = join_all(flood).await.into_iter().map(|told| told.expect("no panic")).collect();
    let count = |decision| told.iter().filter(|told| **told == decision).count();
    assert_eq!((count(Decision::Unauthenticated), count(Decision::Busy)), (STRANGERS_AT_ONCE, 46));
    assert_eq!(server.asked().0, before + STRANGERS_AT_ONCE + 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_refusals_pushes_out_no_grant() {
    let (server, main) = start();
    let public = main.for_strangers().expect("one of its own");
    assert_eq!(public.authorize(GOOD, probing("shop")).await, alice());
    assert!(matches!(public.authorize(GOOD, probing("closed")).await, Decision::Forbidden(_)));
    for number in 0..CAPACITY + 10 {
        assert_eq!(public.authorize(&stranger(number), probing("shop")).await, Decision::Unauthenticated);
    }
    assert_eq!(server.asked(), (CAPACITY + 11, 2), "who stands behind a token is asked once");
    assert_eq!(public.authorize(GOOD, probing("shop")).await, alice());
    assert!(matches!(main.authorize(GOOD, probing("closed")).await, Decision::Forbidden(_)));
    assert_eq!(public.authorize(&stranger(CAPACITY + 9), probing("shop")).await, Decision::Unauthenticated);
    assert_eq!(server.asked(), (CAPACITY + 11, 2), "all of this was known");
    assert_eq!(main.reviews.nobodies.lock().len(), NOBODIES);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_no_token_is_refused_unasked() {
    let (server, main) = start();
    let long = "a".repeat(PLAUSIBLE.end() + 1);
    for token in
        ["short", "good 0123456789abcdef", "good-0123456789äöü", "===================", "good=0123456789abcdef", &long]
    {
        assert_eq!(main.authorize(token, probing("shop")).await, Decision::Unauthenticated, "{token}");
    }
    assert_eq!(server.asked(), (0, 0));
    for token in
        ["good.eyJhbGciOiJSUzI1NiJ9.e30.c2ln_-", "good~0123456789+/==", &format!("good{}", "a".repeat(8 * 1024 - 4))]
    {
        assert_eq!(main.authorize(token, probing("shop")).await, alice(), "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_the_same_at_once_is_asked_about_once() {
    let (server, main) = start();
    server.free.send_replace(false);
    let asking = (0..20).map(|_| main.authorize("stranger-0123456789", probing("shop")));
    let release = async {
        timeout(LONG, async {
            while server.asked().0 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("asked in time");
        server.free.send_replace(true);
    };
    let (told, ()) = tokio::join!(join_all(asking), release);
    assert!(told.iter().all(|told| *told == Decision::Unauthenticated), "{told:?}");
    assert_eq!(server.asked(), (1, 0));
    let namespaces: Vec<_> = (0..40).map(|number| format!("n{number}")).collect();
    let told = join_all(namespaces.iter().map(|namespace| main.authorize(GOOD, probing(namespace)))).await;
    assert!(told.iter().all(|told| *told == alice()), "{told:?}");
    assert_eq!(server.asked(), (2, 40), "one token");
}

const fn reporting(namespace: &str) -> AccessRequest<'_> {
    AccessRequest { subresource: REPORT, ..probing(namespace) }
}

#[tokio::test(start_paused = true)]
async fn who_may_report_goes_on_while_the_cluster_cannot_be_asked_and_not_for_ever() {
    let (server, main) = start();
    assert_eq!(main.authorize(GOOD, reporting("shop")).await, alice());
    assert_eq!(main.authorize(GOOD, probing("shop")).await, alice());
    server.away.store(true, SeqCst);
    let begun = Instant::now();
    tokio::time::sleep(KEPT * 2).await;
    let mut asked = server.asked().0;
    while begun.elapsed() < OUTAGE - KEPT {
        assert_eq!(main.authorize(GOOD, reporting("shop")).await, alice(), "after {:?}", begun.elapsed());
        assert_eq!(main.authorize(GOOD, reporting("shop")).await, alice());
        assert_eq!(server.asked().0, asked + 1, "not with each batch");
        asked = server.asked().0;
        tokio::time::sleep(KEPT * 3).await;
    }
    // That is for what traffic says alone, and of what was granted.
    assert!(matches!(main.authorize(GOOD, probing("shop")).await, Decision::Unavailable(_)));
    assert!(matches!(main.authorize(GOOD, reporting("other")).await, Decision::Unavailable(_)));
    assert!(matches!(main.authorize("good-9876543210fedcba", reporting("shop")).await, Decision::Unavailable(_)));
    tokio::time::sleep(KEPT * 4).await;
    assert!(matches!(main.authorize(GOOD, reporting("shop")).await, Decision::Unavailable(_)), "long enough");
    server.away.store(false, SeqCst);
    assert_eq!(main.authorize(GOOD, reporting("shop")).await, alice());
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_not_granted_by_the_next_outage() {
    let (server, main) = start();
    assert_eq!(main.authorize(GOOD, reporting("shop")).await, alice());
    server.closed.store(true, SeqCst);
    tokio::time::sleep(KEPT * 2).await;
    assert!(matches!(main.authorize(GOOD, reporting("shop")).await, Decision::Forbidden(_)));
    server.away.store(true, SeqCst);
    tokio::time::sleep(KEPT * 2).await;
    assert!(matches!(main.authorize(GOOD, reporting("shop")).await, Decision::Unavailable(_)));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_nobodys_any_more_is_not_let_in_by_the_next_outage() {
    let (server, main) = start();
    for namespace in ["one", "two"] {
        assert_eq!(main.authorize(GOOD, reporting(namespace)).await, alice());
    }
    server.revoked.store(true, SeqCst);
    tokio::time::sleep(KEPT * 2).await;
    assert_eq!(main.authorize(GOOD, reporting("one")).await, Decision::Unauthenticated);
    server.away.store(true, SeqCst);
    tokio::time::sleep(KEPT * 2).await;
    for namespace in ["one", "two"] {
        assert!(matches!(main.authorize(GOOD, reporting(namespace)).await, Decision::Unavailable(_)), "{namespace}");
    }
}

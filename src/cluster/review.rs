//! Who may use the API of the admin listener: the cluster is asked, and its answer kept for a short while.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::client::{CallError, call};
use crate::{
    api::GROUP,
    engine::SingleFlight,
    server::{AccessRequest, Authorizer, Decision},
};

/// How long it is kept who stands behind a token, and how long what one may. Together at most two minutes
/// (`http-and-cli.md`).
const KEPT: Duration = Duration::from_secs(60);
/// How long a refusal is kept: it may be about to be granted.
const REFUSAL_KEPT: Duration = Duration::from_secs(10);
/// The most grants that are kept, and refusals of whom the cluster knows.
const CAPACITY: usize = 1024;
/// The most tokens that are kept behind which there is nobody.
const NOBODIES: usize = 256;
/// How many questions are before the cluster at once, and how many of them from listeners that anybody may reach.
const AT_ONCE: usize = 16;
const STRANGERS_AT_ONCE: usize = 4;
/// How long a question waits for its turn. One of a stranger does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a token may have, in bytes: no API server gives out or takes others. Those of service accounts have about a
/// kilobyte, bootstrap tokens 23 bytes.
const PLAUSIBLE: std::ops::RangeInclusive<usize> = 16..=8 * 1024;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    token: Arc<str>,
    verb: &'static str,
    namespace: String,
    name: String,
    subresource: &'static str,
}

/// Asks with TokenReview, then SubjectAccessReview; shares the answers of who is just asking the same.
#[derive(Clone)]
pub struct ClusterAuthorizer {
    reviews: Arc<Reviews>,
    /// It is asked by whoever can connect.
    strangers: bool,
}

impl fmt::Debug for ClusterAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are kept in there.
        f.debug_struct("ClusterAuthorizer").field("strangers", &self.strangers).finish_non_exhaustive()
    }
}

impl ClusterAuthorizer {
    #[must_use]
    pub fn new(client: Client) -> Self {
        let reviews = Reviews {
            client,
            users: Kept::new(CAPACITY, KEPT),
            grants: Kept::new(CAPACITY, KEPT),
            nobodies: Kept::new(NOBODIES, REFUSAL_KEPT),
            refusals: Kept::new(CAPACITY, REFUSAL_KEPT),
            asking: SingleFlight::default(),
            reviewing: SingleFlight::default(),
            turns: Semaphore::new(AT_ONCE),
            strangers: Semaphore::new(STRANGERS_AT_ONCE),
        };
        Self { reviews: Arc::new(reviews), strangers: false }
    }
}

impl Authorizer for ClusterAuthorizer {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            if !is_plausible(token) {
                return Decision::Unauthenticated;
            }
            let question = Question {
                token: token.into(),
                verb: request.verb,
                namespace: request.namespace.to_owned(),
                name: request.name.to_owned(),
                subresource: request.subresource,
            };
            if let Some(decision) = self.reviews.known(&question) {
                return decision;
            }
            let (reviews, strangers) = (self.reviews.clone(), self.strangers);
            let asked = question.clone();
            let boarded =
                self.reviews.asking.board(question, || async move { reviews.decide(&asked, strangers).await });
            boarded.result().await
        })
    }

    fn for_strangers(&self) -> Option<Arc<dyn Authorizer>> {
        Some(Arc::new(Self { reviews: self.reviews.clone(), strangers: true }))
    }
}

/// Whether an API server could take it: RFC 6750, section 2.1, and of a length that tokens have.
fn is_plausible(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    PLAUSIBLE.contains(&token.len()) && !body.is_empty() && body.bytes().all(allowed)
}

/// Answers for as long as they hold. At its capacity the one that ends first makes room, so that a flood of one kind costs
/// neither memory nor answers of another.
struct Kept<K, V> {
    answers: Mutex<HashMap<K, (V, Instant)>>,
    capacity: usize,
    time: Duration,
}

impl<K: Clone + Eq + Hash, V: Clone> Kept<K, V> {
    fn new(capacity: usize, time: Duration) -> Self {
        Self { answers: Mutex::default(), capacity, time }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, (V, Instant)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &K) -> Option<V> {
        let answers = self.lock();
        let (answer, until) = answers.get(key)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    /// Whether there is an answer, even one that has ended.
    fn remembers(&self, key: &K) -> bool {
        self.lock().contains_key(key)
    }

    fn insert(&self, key: K, answer: V) {
        let mut answers = self.lock();
        if answers.len() >= self.capacity && !answers.contains_key(&key) {
            let first = answers.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            first.and_then(|first| answers.remove(&first));
        }
        answers.insert(key, (answer, Instant::now() + self.time));
    }

    fn remove(&self, key: &K) {
        self.lock().remove(key);
    }
}

type User = Arc<UserInfo>;

struct Reviews {
    client: Client,
    /// Who stands behind a token. It is remembered past its end who was somebody.
    users: Kept<Arc<str>, User>,
    nobodies: Kept<Arc<str>, ()>,
    grants: Kept<Question, Decision>,
    refusals: Kept<Question, Decision>,
    asking: SingleFlight<Question, Decision>,
    reviewing: SingleFlight<Arc<str>, Result<User, Decision>>,
    turns: Semaphore,
    strangers: Semaphore,
}

impl Reviews {
    fn known(&self, question: &Question) -> Option<Decision> {
        let decided = self.grants.get(question).or_else(|| self.refusals.get(question));
        decided.or_else(|| self.nobodies.get(&question.token).map(|()| Decision::Unauthenticated))
    }

    /// `None`: too many are asking.
    async fn turn(&self, token: &Arc<str>, strangers: bool) -> Option<SemaphorePermit<'_>> {
        // Who was somebody lately is no stranger.
        if strangers && !self.users.remembers(token) {
            return self.strangers.try_acquire().ok();
        }
        timeout(PATIENCE, self.turns.acquire()).await.ok()?.ok()
    }

    async fn decide(self: Arc<Self>, question: &Question, strangers: bool) -> Decision {
        let Some(_turn) = self.turn(&question.token, strangers).await else { return Decision::Busy };
        let decision = self.ask(question).await;
        match &decision {
            Decision::Allowed(_) => self.grants.insert(question.clone(), decision.clone()),
            Decision::Forbidden(_) => self.refusals.insert(question.clone(), decision.clone()),
            // Kept by its token.
            Decision::Unauthenticated => {}
            // Nobody answered: that is no answer to keep.
            Decision::Unavailable(_) | Decision::Busy => {}
        }
        decision
    }

    async fn ask(self: &Arc<Self>, question: &Question) -> Decision {
        let user = match self.user(&question.token).await {
            Ok(user) => user,
            Err(decision) => return decision,
        };
        match self.may(&user, question).await {
            Ok(true) => Decision::Allowed(user.username.as_deref().map(Into::into)),
            Ok(false) => Decision::Forbidden(format!(
                "user '{}' may not {} healthchecks{}{} in {}",
                user.username.as_deref().unwrap_or_default(),
                question.verb,
                if question.subresource.is_empty() { "" } else { "/" },
                question.subresource,
                if question.namespace.is_empty() {
                    "any namespace".to_owned()
                } else {
                    format!("namespace '{}'", question.namespace)
                },
            )),
            Err(error) => unavailable("subjectaccessreviews", &error),
        }
    }

    /// Who stands behind `token`: asked once, whatever is asked of it.
    async fn user(self: &Arc<Self>, token: &Arc<str>) -> Result<User, Decision> {
        if let Some(user) = self.users.get(token) {
            return Ok(user);
        }
        let (reviews, asked) = (self.clone(), token.clone());
        let boarded = self.reviewing.board(token.clone(), || async move { reviews.review(asked).await });
        boarded.result().await
    }

    async fn review(&self, token: Arc<str>) -> Result<User, Decision> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_string()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let review = call(api.create(&PostParams::default(), &review)).await;
        let status = review.map_err(|error| unavailable("tokenreviews", &error))?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(Arc::new);
        match &user {
            Some(user) => self.users.insert(token, user.clone()),
            None => {
                self.users.remove(&token);
                self.nobodies.insert(token, ());
            }
        }
        user.ok_or(Decision::Unauthenticated)
    }

    async fn may(&self, user: &UserInfo, question: &Question) -> Result<bool, CallError> {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.username.clone(),
                uid: user.uid.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some("healthchecks".to_owned()),
                    subresource: some(question.subresource),
                    verb: Some(question.verb.to_owned()),
                    namespace: some(&question.namespace),
                    name: some(&question.name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let status = call(api.create(&PostParams::default(), &review)).await?.status;
        Ok(status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

fn unavailable(resource: &str, error: &CallError) -> Decision {
    tracing::warn!("cannot ask the cluster who may read: {resource}: {error}");
    Decision::Unavailable(format!("the cluster could not be asked ({resource})"))
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
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
    }

    impl Server {
        async fn answer(&self, request: Request<Body>) -> Value {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.expect("a body");
            let mut review: Value = serde_json::from_slice(&body).expect("JSON");
            review["status"] = if path.ends_with("/tokenreviews") {
                self.reviews.fetch_add(1, SeqCst);
                let good = review["spec"]["token"].as_str().expect("a token").starts_with("good");
                if !good {
                    self.free.subscribe().wait_for(|free| *free).await.expect("never closed");
                }
                json!({"authenticated": good, "user": {"username": if good { "alice" } else { "" }}})
            } else {
                self.accesses.fetch_add(1, SeqCst);
                json!({"allowed": review["spec"]["resourceAttributes"]["namespace"] != "closed"})
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
        });
        let behind = server.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = behind.clone();
            async move {
                let answer = server.answer(request).await.to_string();
                Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes())))
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
            while server.asked().0 < before + STRANGERS_AT_ONCE
                || flood.iter().filter(|one| one.is_finished()).count() < 46
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
        for token in [
            "short",
            "good 0123456789abcdef",
            "good-0123456789äöü",
            "===================",
            "good=0123456789abcdef",
            &long,
        ] {
            assert_eq!(main.authorize(token, probing("shop")).await, Decision::Unauthenticated, "{token}");
        }
        assert_eq!(server.asked(), (0, 0));
        for token in [
            "good.eyJhbGciOiJSUzI1NiJ9.e30.c2ln_-",
            "good~0123456789+/==",
            &format!("good{}", "a".repeat(8 * 1024 - 4)),
        ] {
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
}

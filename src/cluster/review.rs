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
    check::Text,
    engine::SingleFlight,
    server::{AccessRequest, Authorizer, Decision},
};

/// How long it is kept who stands behind a token, and how long what one may. Together at most two minutes
/// (`http-and-cli.md`).
const KEPT: Duration = Duration::from_secs(60);
/// How long a refusal is kept: it may be about to be granted.
const REFUSAL_KEPT: Duration = Duration::from_secs(10);
/// How long a grant to report holds while nobody can be asked: as long as a token that the kubelet hands out lasts, before
/// which the outage of an API server should be over. Verdicts of traffic alone must not end with the API server.
const OUTAGE: Duration = Duration::from_secs(3600);
/// The one subresource that it is for.
const REPORT: &str = "report";
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
    token: Text,
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
            lasting: Kept::new(CAPACITY, OUTAGE),
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

    fn retain(&self, keep: impl Fn(&K) -> bool) {
        self.lock().retain(|key, _| keep(key));
    }

    fn remove(&self, key: &K) {
        self.lock().remove(key);
    }
}

type User = Arc<UserInfo>;

struct Reviews {
    client: Client,
    /// Who stands behind a token. It is remembered past its end who was somebody.
    users: Kept<Text, User>,
    nobodies: Kept<Text, ()>,
    grants: Kept<Question, Decision>,
    refusals: Kept<Question, Decision>,
    /// What the cluster last let somebody report, for as long as it cannot be asked.
    lasting: Kept<Question, Decision>,
    asking: SingleFlight<Question, Decision>,
    reviewing: SingleFlight<Text, Result<User, Decision>>,
    turns: Semaphore,
    strangers: Semaphore,
}

impl Reviews {
    fn known(&self, question: &Question) -> Option<Decision> {
        let decided = self.grants.get(question).or_else(|| self.refusals.get(question));
        decided.or_else(|| self.nobodies.get(&question.token).map(|()| Decision::Unauthenticated))
    }

    /// `None`: too many are asking.
    async fn turn(&self, token: &Text, strangers: bool) -> Option<SemaphorePermit<'_>> {
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
            Decision::Allowed(_) => {
                self.grants.insert(question.clone(), decision.clone());
                if question.subresource == REPORT {
                    self.lasting.insert(question.clone(), decision.clone());
                }
            }
            Decision::Forbidden(_) => {
                self.lasting.remove(question);
                self.refusals.insert(question.clone(), decision.clone());
            }
            // Kept by its token, of which nothing holds any more.
            Decision::Unauthenticated => self.lasting.retain(|granted| granted.token != question.token),
            // Nobody answered: that is no answer to keep.
            Decision::Unavailable(_) => return self.outlast(question).unwrap_or(decision),
            Decision::Busy => {}
        }
        decision
    }

    /// Goes on with the last grant while nobody can be asked. It is taken for granted for as long as any: who reports often
    /// must not wait for an API server that is away with each batch.
    fn outlast(&self, question: &Question) -> Option<Decision> {
        let granted = self.lasting.get(question)?;
        self.grants.insert(question.clone(), granted.clone());
        tracing::warn!(
            namespace = question.namespace,
            name = question.name,
            "goes on with what was granted last, as the cluster cannot be asked who may report"
        );
        Some(granted)
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
    async fn user(self: &Arc<Self>, token: &Text) -> Result<User, Decision> {
        if let Some(user) = self.users.get(token) {
            return Ok(user);
        }
        let (reviews, asked) = (self.clone(), token.clone());
        let boarded = self.reviewing.board(token.clone(), || async move { reviews.review(asked).await });
        boarded.result().await
    }

    async fn review(&self, token: Text) -> Result<User, Decision> {
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
mod tests;

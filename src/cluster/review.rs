//! Who may use the API of the admin listener: the cluster is asked, and its answer kept for a short while.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use super::client::{CallError, call};
use crate::{
    api::GROUP,
    server::{AccessRequest, Authorizer, Decision},
};

/// How long an answer is kept: at most two minutes (`http-and-cli.md`).
const KEPT: Duration = Duration::from_secs(60);
/// How long a refusal is kept: it may be about to be granted.
const REFUSAL_KEPT: Duration = Duration::from_secs(10);
/// The most answers that are kept.
const CAPACITY: usize = 1024;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    token: String,
    verb: &'static str,
    namespace: String,
    name: String,
    subresource: &'static str,
}

/// Asks with TokenReview, then SubjectAccessReview.
#[derive(Clone)]
pub struct ClusterAuthorizer {
    client: Client,
    answers: Arc<Mutex<HashMap<Question, (Decision, Instant)>>>,
}

impl fmt::Debug for ClusterAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens are kept in there.
        f.debug_struct("ClusterAuthorizer").finish_non_exhaustive()
    }
}

impl ClusterAuthorizer {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, answers: Arc::default() }
    }

    fn known(&self, question: &Question) -> Option<Decision> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (decision, until) = answers.get(question)?;
        (*until > Instant::now()).then(|| decision.clone())
    }

    fn keep(&self, question: Question, decision: &Decision) {
        let kept = match decision {
            Decision::Allowed(_) => KEPT,
            Decision::Unauthenticated | Decision::Forbidden(_) => REFUSAL_KEPT,
            // Nobody answered: that is no answer to keep.
            Decision::Unavailable(_) => return,
        };
        let now = Instant::now();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= CAPACITY {
            answers.retain(|_, (_, until)| *until > now);
        }
        // Whoever floods us with tokens costs us the cache, not the memory.
        if answers.len() >= CAPACITY {
            answers.clear();
        }
        answers.insert(question, (decision.clone(), now + kept));
    }

    async fn ask(&self, question: &Question) -> Decision {
        let user = match self.user(&question.token).await {
            Ok(Some(user)) => user,
            Ok(None) => return Decision::Unauthenticated,
            Err(error) => return unavailable("tokenreviews", &error),
        };
        match self.may(&user, question).await {
            Ok(true) => Decision::Allowed(user.username.as_deref().map(Into::into)),
            Ok(false) => Decision::Forbidden(format!(
                "user '{}' may not {} healthchecks{}{} in {}",
                user.username.unwrap_or_default(),
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

    async fn user(&self, token: &str) -> Result<Option<UserInfo>, CallError> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = call(api.create(&PostParams::default(), &review)).await?.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)))
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

impl Authorizer for ClusterAuthorizer {
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let question = Question {
                token: token.to_owned(),
                verb: request.verb,
                namespace: request.namespace.to_owned(),
                name: request.name.to_owned(),
                subresource: request.subresource,
            };
            if let Some(decision) = self.known(&question) {
                return decision;
            }
            let decision = self.ask(&question).await;
            self.keep(question, &decision);
            decision
        })
    }
}

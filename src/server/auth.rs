//! Who may read the API of the admin listener.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rustls::crypto::hash::Hash;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::{
    probe_now::again,
    respond::{self, Failure},
};

use crate::check::Text;

/// The longest token that is looked at, in bytes. Tokens of service accounts have about one kilobyte.
const MAX_TOKEN: usize = 16 * 1024;

/// What is asked for, in the words of the Kubernetes API. The resource is always `healthchecks` of
/// `healthcheck-operator.dev`.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// `get`, `list`, or `create` of a subresource.
    pub verb: &'static str,
    /// Empty: all namespaces.
    pub namespace: &'a str,
    /// Empty: all names.
    pub name: &'a str,
    /// Empty: the resource itself.
    pub subresource: &'static str,
}

/// What came of an [`AccessRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Who it is, where there are names.
    Allowed(Option<Text>),
    /// Nobody stands behind the token.
    Unauthenticated,
    /// Somebody does, and may not; why, for people.
    Forbidden(String),
    /// Nobody could be asked; why, for people.
    Unavailable(String),
    /// Too many are asked about at once; it may go well in a second.
    Busy,
}

/// Answers with what the cluster thinks of a token (TokenReview, then SubjectAccessReview).
pub trait Authorizer: fmt::Debug + Send + Sync + 'static {
    /// Decides in bounded time; may cache for at most two minutes. `token` is never empty. Asked on the runtime that
    /// [`super::Servers::bind`] was called on, and dropped when the client goes.
    fn authorize<'a>(&'a self, token: &'a str, request: AccessRequest<'a>) -> BoxFuture<'a, Decision>;

    /// The same for a listener that anybody may reach: what strangers ask must not hold up who asks elsewhere. `None`: it
    /// makes no difference.
    fn for_strangers(&self) -> Option<Arc<dyn Authorizer>> {
        None
    }
}

/// Who may read the API.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everybody who can connect.
    Open,
    /// Whoever has the token.
    Token(TokenFile),
    /// Whoever the cluster lets.
    Cluster(Arc<dyn Authorizer>),
}

/// A bearer token in a file, read anew at every request, so that a changed file counts at once.
#[derive(Clone, Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn open(path: &Path) -> io::Result<Self> {
        trimmed(std::fs::read(path)?)?;
        Ok(Self(path.into()))
    }

    async fn decide(&self, token: &str) -> Decision {
        let read = tokio::fs::read(&self.0).await.and_then(trimmed);
        match read {
            Ok(wanted) if same(&wanted, token.as_bytes()) => Decision::Allowed(None),
            Ok(_) => Decision::Unauthenticated,
            Err(error) => {
                tracing::warn!(path = %self.0.display(), %error, "cannot read the API token; nobody is let in");
                Decision::Unavailable("the API token cannot be read; see the log".into())
            }
        }
    }
}

fn trimmed(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match bytes.trim_ascii() {
        b"" => Err(io::Error::new(io::ErrorKind::InvalidData, "the file holds no token")),
        token => Ok(token.to_vec()),
    }
}

/// Compares digests: the time tells nothing about where, or in what length, the two differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    let digest = |bytes: &[u8]| sha256().map(|hash| hash.hash(bytes));
    match (digest(one), digest(other)) {
        (Some(one), Some(other)) => {
            one.as_ref().iter().zip(other.as_ref()).fold(0, |seen, (one, other)| seen | (one ^ other)) == 0
        }
        _ => false,
    }
}

/// SHA-256 of the crypto provider that is linked anyway.
pub(super) fn sha256() -> Option<&'static dyn Hash> {
    rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().map(|suite| suite.common.hash_provider)
}

/// Why a request does not pass.
#[derive(Debug)]
pub(super) struct Refused {
    code: StatusCode,
    why: String,
}

impl Refused {
    /// Whether it is known who asks, and that one may not.
    pub fn is_forbidden(&self) -> bool {
        self.code == StatusCode::FORBIDDEN
    }

    /// In plain text, as the public listener answers.
    pub fn plain(self) -> Response {
        let (code, why) = (self.code, self.why + "\n");
        challenge(respond::text(code, why))
    }
}

/// In JSON, as the admin listener answers.
impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        challenge(Failure::new(self.code, self.why).into_response())
    }
}

/// RFC 6750, section 3, and RFC 6585, section 4.
fn challenge(mut response: Response) -> Response {
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        return again(response);
    }
    if response.status() == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"healthcheck-operator\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

impl Access {
    /// Whether a request with `headers` has anything to show, where that is asked for.
    pub(super) fn may_be(&self, headers: &HeaderMap) -> bool {
        matches!(self, Self::Open) || bearer(headers).is_some()
    }

    /// What is thought of a request with `headers`. An authorizer is asked on `home`.
    pub(super) async fn decide(&self, headers: &HeaderMap, request: AccessRequest<'_>, home: &Handle) -> Decision {
        match (self, bearer(headers)) {
            (Self::Open, _) => Decision::Allowed(None),
            (_, None) => Decision::Unauthenticated,
            (Self::Token(file), Some(token)) => file.decide(token).await,
            (Self::Cluster(authorizer), Some(token)) => ask(authorizer.clone(), token, request, home).await,
        }
    }

    /// The same for a listener that anybody may reach.
    pub(super) fn for_strangers(&self) -> Self {
        match self {
            Self::Cluster(authorizer) => {
                Self::Cluster(authorizer.for_strangers().unwrap_or_else(|| authorizer.clone()))
            }
            Self::Open | Self::Token(_) => self.clone(),
        }
    }

    /// Lets a request with `headers` pass, or says why not. An authorizer is asked on `home`. Who it is, where that is known.
    pub(super) async fn check(
        &self,
        headers: &HeaderMap,
        request: AccessRequest<'_>,
        home: &Handle,
    ) -> Result<Option<Text>, Refused> {
        let refused = |code, why: String| Err(Refused { code, why });
        if !self.may_be(headers) {
            return refused(StatusCode::UNAUTHORIZED, "a bearer token is needed".into());
        }
        match self.decide(headers, request, home).await {
            Decision::Allowed(who) => Ok(who),
            Decision::Unauthenticated => refused(StatusCode::UNAUTHORIZED, "the bearer token is not valid".into()),
            Decision::Forbidden(why) => refused(StatusCode::FORBIDDEN, why),
            Decision::Unavailable(why) => refused(StatusCode::SERVICE_UNAVAILABLE, why),
            Decision::Busy => refused(StatusCode::TOO_MANY_REQUESTS, "too many tokens are looked at; try again".into()),
        }
    }
}

/// Asks `authorizer` on `home`, for as long as anybody waits for the answer.
async fn ask(authorizer: Arc<dyn Authorizer>, token: &str, request: AccessRequest<'_>, home: &Handle) -> Decision {
    let AccessRequest { verb, subresource, .. } = request;
    let (token, namespace, name) = (token.to_owned(), request.namespace.to_owned(), request.name.to_owned());
    let asking = home.spawn(async move {
        let request = AccessRequest { verb, namespace: &namespace, name: &name, subresource };
        authorizer.authorize(&token, request).await
    });
    AbortOnDropHandle::new(asking).await.unwrap_or_else(|error| {
        tracing::error!(%error, "nobody could be asked who may read");
        Decision::Unavailable("nobody could be asked; see the log".into())
    })
}

/// RFC 6750, section 2.1; the scheme's name has no case (RFC 9110, section 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_tokens_are_the_same() {
        assert!(same(b"secret", b"secret"));
        for other in [b"secreT".as_slice(), b"secret ", b"secre", b"", b"secretsecret"] {
            assert!(!same(b"secret", other));
        }
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer  abc ").as_deref(), Some("abc"));
        for none in ["Basic abc", "Bearer ", "Bearer", "abc"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}

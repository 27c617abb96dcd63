//! What a browser may do with the page.

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;

use super::{SCRIPT, STYLE};
use crate::server::auth;

/// The source expression of an inline text; `'none'` could it not be hashed.
fn source(text: &str) -> String {
    auth::sha256().map_or_else(
        || "'none'".to_owned(),
        |hash| format!("'sha256-{}'", BASE64_STANDARD.encode(hash.hash(text.as_bytes()).as_ref())),
    )
}

/// Only our own style sheet and script, named by their hashes (Content Security Policy Level 3); the script may ask
/// this server and no other; no image but the one that is written into the page.
pub fn content_security_policy() -> HeaderValue {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let (style, script) = (source(STYLE), source(SCRIPT));
        let policy = format!(
            "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        // Base64 and our own words are ASCII; were they not, nothing at all would be allowed.
        HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    });
    POLICY.clone()
}

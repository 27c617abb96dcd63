//! Who talks to the API server, and the kubeconfig that says so.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::pki::Signed;

/// How a client shows who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A client certificate. Does not pass through the fault proxy, which ends TLS.
    Certificate(Signed),
    /// A bearer token, as a ServiceAccount has.
    Token(String),
    /// Nobody in particular.
    None,
}

/// A kubeconfig for one server and one user. `server` may be any URL; `ca_pem` is left out for
/// plain http.
///
/// # Errors
/// When a certificate's file cannot be read.
pub fn kubeconfig(server: &str, ca_pem: Option<&str>, who: &Credentials, namespace: &str) -> anyhow::Result<Value> {
    let mut cluster = json!({ "server": server });
    if let Some(pem) = ca_pem {
        cluster["certificate-authority-data"] = BASE64_STANDARD.encode(pem).into();
    }
    let user = match who {
        Credentials::Certificate(files) => json!({
            "client-certificate-data": BASE64_STANDARD.encode(std::fs::read(&files.cert)?),
            "client-key-data": BASE64_STANDARD.encode(std::fs::read(&files.key)?),
        }),
        Credentials::Token(token) => json!({ "token": token }),
        Credentials::None => json!({}),
    };
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{
            "name": "test",
            "context": { "cluster": "test", "user": "test", "namespace": namespace },
        }],
    }))
}

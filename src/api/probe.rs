//! How a target is asked: exactly one of `tcp`, `http`, `grpc` and `script`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, IntOrString, rules};

/// How a target is asked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_probe())]
pub struct Probe {
    /// Passes when a TCP connection is made, and where receive is given, when the target sends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TcpProbe")]
    pub tcp: Option<TcpProbe>,

    /// Passes when an HTTP request is answered with an expected status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpProbe")]
    pub http: Option<HttpProbe>,

    /// Passes when the server says by grpc.health.v1 that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GrpcProbe")]
    pub grpc: Option<GrpcProbe>,

    /// Passes when a command exits 0; in a cluster only where scripts are enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ScriptProbe")]
    pub script: Option<ScriptProbe>,
}

/// A TCP connect, and what is said over the connection.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {
    /// Port number to connect to in place of the target's own, 1 to 65535. Default: the target's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// HalfOpen resets the connection before the target accepts it; Full connects and closes as a client does. With send, receive or tls it is always Full. Default HalfOpen.
    #[serde(default)]
    pub handshake: Handshake,

    /// Bytes to send once connected, in base64, at most 8192 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 4, max = 8192), regex(pattern = rules::BASE64_PATTERN))]
    pub send: Option<String>,

    /// Blocks of bytes in base64, 1 to 16 of at most 1024 characters, that must come in this order within 64 KiB, whatever is between them. Default: none, to connect is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 16), inner(length(min = 4, max = 1024), regex(pattern = rules::BASE64_PATTERN)))]
    pub receive: Option<Vec<String>>,

    /// Makes a TLS handshake first, and says how the server's certificate is checked. Default: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
}

/// How far a TCP connect goes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handshake {
    #[default]
    HalfOpen,
    Full,
}

/// An HTTP/1.1 request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::tls_with_https())]
#[x_kube(validation = rules::validity_with_https())]
#[x_kube(validation = rules::body_with_method())]
#[x_kube(validation = rules::expected_body_with_method())]
pub struct HttpProbe {
    /// HTTP or HTTPS. Default HTTP.
    #[serde(default)]
    pub scheme: Scheme,

    /// Port number to connect to in place of the target's own, 1 to 65535. Default: the target's port, or for a host without one 80 (HTTP) or 443 (HTTPS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// Path, and query if any, beginning with '/', at most 2048 characters. Default "/".
    #[serde(default = "default_path")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = rules::path_format())]
    pub path: String,

    /// Method of the request: GET, HEAD, POST, PUT or OPTIONS. Default GET.
    #[serde(default)]
    pub method: Method,

    /// Host header and TLS server name, at most 253 characters. Default: the target's host, or <service>.<namespace>.svc.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    #[x_kube(validation = rules::host_format(rules::HOST_FORMAT))]
    pub host: Option<String>,

    /// Headers of the request, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<Header>,

    /// Body of a POST or PUT, at most 65536 characters; give its Content-Type in headers. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 65536))]
    pub body: Option<String>,

    /// Statuses that pass, 1 to 32 numbers or ranges from 100 to 599; anything else fails. Default ["200-399"].
    #[serde(default = "default_statuses")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = rules::statuses(rules::STATUSES))]
    pub expected_statuses: Vec<IntOrString>,

    /// Statuses that fail, 1 to 32 numbers or ranges from 100 to 599, whatever expectedStatuses says of them; then any status in neither list changes nothing. Default: all that are not expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<IntOrString>", length(min = 1, max = 32))]
    #[x_kube(validation = rules::statuses(rules::UNHEALTHY_STATUSES))]
    pub unhealthy_statuses: Option<Vec<IntOrString>>,

    /// What the body of an answer with an expected status must hold; at most 64 KiB are read, and more fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExpectedBody")]
    pub expected_body: Option<ExpectedBody>,

    /// Longest time for an attempt that passes, name lookup and expectedBody included, 1ms to 24h and at most timeout. Default: the timeout alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::MAX_LATENCY.rule())]
    pub max_latency: Option<Duration>,

    /// Time for which the server's certificate must still be valid, 1s to 87600h; only with scheme HTTPS. Default: until now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::MIN_CERTIFICATE_VALIDITY.rule())]
    pub min_certificate_validity: Option<Duration>,

    /// None takes a redirect as the answer; SameHost follows up to 3 on the same host. Default None.
    #[serde(default)]
    pub follow_redirects: FollowRedirects,

    /// HTTP that is spoken: Auto is what the TLS handshake agrees on, and HTTP11 without one; HTTP2 without TLS is h2c by prior knowledge. Default Auto.
    #[serde(default)]
    pub http_version: HttpVersion,

    /// Keeps the connection for the next attempt on the same endpoint; one that was closed meanwhile is opened again and is no failure. Of no effect with POST and PUT, which are never sent twice. Default false.
    #[serde(default)]
    pub reuse_connection: bool,

    /// Reset ends the connection by RST and leaves no TIME_WAIT; Polite closes it. Default Reset.
    #[serde(default)]
    pub connection_close: ConnectionClose,

    /// How the server's certificate is checked; only with scheme HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            scheme: Scheme::default(),
            port: None,
            path: default_path(),
            method: Method::default(),
            host: None,
            headers: Vec::new(),
            body: None,
            expected_statuses: default_statuses(),
            unhealthy_statuses: None,
            expected_body: None,
            max_latency: None,
            min_certificate_validity: None,
            follow_redirects: FollowRedirects::default(),
            http_version: HttpVersion::default(),
            reuse_connection: false,
            connection_close: ConnectionClose::default(),
            tls: None,
        }
    }
}

/// A call of grpc.health.v1.Health/Check.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    /// Port number to connect to in place of the target's own, 1 to 65535. Default: the target's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// Service whose health is asked for, in visible ASCII, at most 253 characters. Default "", the server as a whole.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = rules::GRPC_SERVICE_PATTERN))]
    pub service: String,

    /// Host, and port if any, that the request names, at most 253 characters. Default: the target's host, or <service>.<namespace>.svc, with the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253), regex(pattern = rules::AUTHORITY_PATTERN))]
    pub authority: Option<String>,

    /// Makes a TLS handshake first, and says how the server's certificate is checked. Default: no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
}

/// What a body must hold: exactly one of contains, regex and jsonPointer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_body_rule())]
#[x_kube(validation = rules::pointer_with_equals())]
pub struct ExpectedBody {
    /// Text that is somewhere in the body, 1 to 1024 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 1024))]
    pub contains: Option<String>,

    /// Regular expression that matches somewhere in the body, 1 to 512 characters; without look-around and back-references, as RE2 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 512))]
    pub regex: Option<String>,

    /// Place of a value in a JSON body, such as /status/db, at most 256 characters (RFC 6901); "" is the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 256), regex(pattern = rules::JSON_POINTER_PATTERN))]
    pub json_pointer: Option<String>,

    /// What the value at jsonPointer must be, at most 1024 characters: a string as it is, anything else as JSON writes it ("true", "3").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub equals: Option<String>,
}

/// Scheme of a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

/// Method of a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Options,
}

impl Method {
    /// As it stands in the request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Options => "OPTIONS",
        }
    }
}

/// What becomes of a redirect.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FollowRedirects {
    #[default]
    None,
    SameHost,
}

/// Which HTTP is spoken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    #[default]
    Auto,
    HTTP11,
    HTTP2,
}

/// How a connection is ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionClose {
    #[default]
    Reset,
    Polite,
}

/// One header of a request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_header_source())]
pub struct Header {
    /// Name of the header, at most 128 characters; not hop-by-hop, X-Forwarded-*, Host or Content-Length.
    #[schemars(length(min = 1, max = 128), regex(pattern = rules::HEADER_NAME_PATTERN))]
    #[x_kube(validation = rules::header_allowed())]
    pub name: String,

    /// Value of the header in visible ASCII, at most 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 4096), regex(pattern = rules::HEADER_VALUE_PATTERN))]
    pub value: Option<String>,

    /// Where the value of the header is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ValueSource")]
    pub value_from: Option<ValueSource>,

    /// Adds the value beside one that is already there (true), or replaces it (false). Default true.
    #[serde(default = "default_append")]
    pub append: bool,
}

/// Where a value is read from.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ValueSource {
    /// A key of a Secret in the same namespace.
    pub secret_key_ref: KeyReference,
}

/// One key of a Secret or ConfigMap in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// Name of the object, at most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::DNS_SUBDOMAIN_PATTERN))]
    pub name: String,

    /// Key within the object, at most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::DATA_KEY_PATTERN))]
    pub key: String,
}

/// How a server's certificate is checked.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ca_with_verify())]
pub struct Tls {
    /// Verify checks the certificate against the trusted authorities and the server name; SkipVerify takes any. Default Verify.
    #[serde(default)]
    pub mode: TlsMode,

    /// Name in the TLS handshake, and the one that the certificate must bear, at most 253 characters. Default: the Host header, and with tcp the target's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    #[x_kube(validation = rules::host_format(rules::SERVER_NAME_FORMAT))]
    pub server_name: Option<String>,

    /// PEM certificates of the authorities to trust in place of the system's. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CaReference")]
    pub ca_ref: Option<CaReference>,

    /// Certificate that is shown to a server that asks for one. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ClientCertificateReference")]
    pub client_cert_ref: Option<ClientCertificateReference>,
}

/// Where a Secret of type kubernetes.io/tls has its certificate chain, and its key.
pub const TLS_CERTIFICATE: &str = "tls.crt";
pub const TLS_KEY: &str = "tls.key";

/// Where a client certificate is.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateReference {
    /// Name of a Secret of type kubernetes.io/tls in the same namespace, with tls.crt and tls.key in PEM, at most 253 characters.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::DNS_SUBDOMAIN_PATTERN))]
    pub secret: String,
}

/// Whether a certificate is checked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    #[default]
    Verify,
    SkipVerify,
}

/// Where trusted certificates are: exactly one of the two.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_ca())]
pub struct CaReference {
    /// A key of a ConfigMap in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KeyReference")]
    pub config_map: Option<KeyReference>,

    /// A key of a Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KeyReference")]
    pub secret: Option<KeyReference>,
}

/// A command that passes with exit status 0.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_script())]
pub struct ScriptProbe {
    /// Program and arguments, 1 to 64, each of at most 4096 characters; no shell is involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 64), inner(length(max = 4096), regex(pattern = rules::NO_NUL_PATTERN)))]
    pub command: Option<Vec<String>>,

    /// Inline script for the interpreter, at most 65536 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 65536), regex(pattern = rules::NO_NUL_PATTERN))]
    pub source: Option<String>,

    /// Program and arguments that run source, 1 to 16, each of at most 4096 characters. Default ["/bin/sh"].
    #[serde(default = "default_interpreter")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 4096), regex(pattern = rules::NO_NUL_PATTERN)))]
    pub interpreter: Vec<String>,

    /// Environment of the command, at most 64 variables; the target comes as HEALTHCHECK_TARGET_NAME, _HOST, _ADDRESS and _PORT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<EnvVar>,

    /// Time for the command in place of spec.timeout, 1ms up to the shortest interval. Default: spec.timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = rules::SCRIPT_TIMEOUT.rule())]
    pub timeout: Option<Duration>,
}

impl Default for ScriptProbe {
    fn default() -> Self {
        Self { command: None, source: None, interpreter: default_interpreter(), env: Vec::new(), timeout: None }
    }
}

/// One variable of a command's environment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable: letters, digits and '_', at most 128; not beginning with HEALTHCHECK_TARGET_.
    #[schemars(length(min = 1, max = 128), regex(pattern = rules::ENV_NAME_PATTERN))]
    #[x_kube(validation = rules::env_not_reserved())]
    pub name: String,

    /// Value of the variable, at most 4096 characters. Default "".
    #[serde(default)]
    #[schemars(length(max = 4096), regex(pattern = rules::NO_NUL_PATTERN))]
    pub value: String,
}

fn default_path() -> String {
    "/".to_owned()
}

fn default_statuses() -> Vec<IntOrString> {
    vec!["200-399".into()]
}

const fn default_append() -> bool {
    true
}

fn default_interpreter() -> Vec<String> {
    vec!["/bin/sh".to_owned()]
}

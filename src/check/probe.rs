//! How a target is asked: one probe of one kind.

use std::{fmt, sync::Arc, time::Duration};

use super::{BodyRule, Text};

/// A probe with everything defaulted and checked. Equal probes ask the same question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Total for one attempt: resolve, connect, TLS, request, response.
    pub timeout: Duration,
    pub kind: ProbeKind,
}

impl Probe {
    /// Which kind it is, without what it asks.
    #[must_use]
    pub const fn tag(&self) -> Kind {
        match self.kind {
            ProbeKind::Tcp(_) => Kind::Tcp,
            ProbeKind::Http(_) => Kind::Http,
            ProbeKind::Grpc(_) => Kind::Grpc,
            ProbeKind::Script(_) => Kind::Script,
        }
    }

    /// `tcp`, `http`, `grpc` or `script`: for metrics and columns.
    #[must_use]
    pub const fn kind_name(&self) -> &'static str {
        self.tag().as_str()
    }

    /// The port that is dialed in place of the target's own, where the probe names one.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match &self.kind {
            ProbeKind::Tcp(tcp) => tcp.port,
            ProbeKind::Http(http) => http.port,
            ProbeKind::Grpc(grpc) => grpc.port,
            ProbeKind::Script(_) => None,
        }
    }

    /// Whether an attempt leaves something for the next one.
    #[must_use]
    pub fn keeps(&self) -> bool {
        matches!(&self.kind, ProbeKind::Http(http) if http.keeps_connection())
    }
}

/// How an endpoint is asked, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Http,
    Grpc,
    Script,
    /// Not at all: it is another check, whose verdict it follows.
    HealthCheck,
    /// Nobody says: its target is declared no more.
    Untold,
}

impl Kind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Script => "script",
            Self::HealthCheck => "healthCheck",
            Self::Untold => "",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Tcp(TcpProbe),
    Http(HttpProbe),
    Grpc(GrpcProbe),
    Script(ScriptProbe),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpProbe {
    pub port: Option<u16>,
    /// Of a connect that is all: without anything to say, to hear or to encrypt.
    pub handshake: Handshake,
    pub send: Option<Arc<[u8]>>,
    /// None of them empty.
    pub receive: Vec<Arc<[u8]>>,
    pub tls: Option<Tls>,
}

impl TcpProbe {
    /// Whether a connection is all that is asked for.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        self.send.is_none() && self.receive.is_empty() && self.tls.is_none()
    }
}

/// How far a connect-only TCP probe goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Handshake {
    /// The SYN/ACK is the proof; the last ACK is held back and the connection reset, so the target never accepts.
    #[default]
    HalfOpen,
    /// An ordinary connect and close.
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    pub scheme: Scheme,
    pub port: Option<u16>,
    /// Begins with `/`; may carry a query.
    pub path: Text,
    /// One of GET, HEAD, POST, PUT, OPTIONS.
    pub method: Text,
    /// Sets Host and SNI. `None`: the address that is dialed.
    pub host: Option<Text>,
    pub headers: Vec<HttpHeader>,
    /// Sent with POST and PUT alone.
    pub body: Option<Text>,
    /// Statuses that pass; anything else fails, or is neutral where `unhealthy_statuses` are given.
    pub expected_statuses: Vec<StatusRange>,
    /// Statuses that fail though they be expected. Where there are any, what is in neither list is neutral.
    pub unhealthy_statuses: Vec<StatusRange>,
    /// Asked of answers with an expected status.
    pub expected_body: Option<BodyRule>,
    /// The longest that an attempt which passes may take.
    pub max_latency: Option<Duration>,
    /// How long the certificate must still be valid.
    pub min_certificate_validity: Option<Duration>,
    pub redirects: Redirects,
    pub version: HttpVersion,
    pub connection: Connection,
    /// The connection is kept for the next attempt on the same endpoint, if [`Self::keeps_connection`].
    pub reuse_connection: bool,
    pub tls: Tls,
}

impl HttpProbe {
    /// Whether the connection is kept for the next attempt. Only of methods that are safe (RFC 9110, 9.2.1): a request
    /// without an answer on a connection that was kept is sent again on another, and may have been heard both times.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        self.reuse_connection && matches!(&*self.method, "GET" | "HEAD" | "OPTIONS")
    }
}

/// What is asked where a probe says no more than `http: {}`.
impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            scheme: Scheme::Http,
            port: None,
            path: "/".into(),
            method: "GET".into(),
            host: None,
            headers: vec![],
            body: None,
            expected_statuses: vec![StatusRange { first: 200, last: 399 }],
            unhealthy_statuses: vec![],
            expected_body: None,
            max_latency: None,
            min_certificate_validity: None,
            redirects: Redirects::None,
            version: HttpVersion::Auto,
            connection: Connection::Reset,
            reuse_connection: false,
            tls: Tls::default(),
        }
    }
}

/// `grpc.health.v1.Health/Check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrpcProbe {
    pub port: Option<u16>,
    /// Whose health is asked for; "" is the server's as a whole.
    pub service: Text,
    /// What the request says of where it goes. `None`: the host that is dialed, and the port.
    pub authority: Option<Text>,
    /// `None`: HTTP/2 without TLS, with prior knowledge.
    pub tls: Option<Tls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpHeader {
    pub name: Text,
    pub source: HeaderSource,
    /// Beside a value that is already there (`true`) or in its place (`false`).
    pub append: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderSource {
    Value(Text),
    Secret(Reference),
}

/// Statuses from `first` to `last`, both included, within 100–599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

impl StatusRange {
    #[must_use]
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Redirects {
    /// A redirect is an answer like any other.
    #[default]
    None,
    /// At most three, on the same host and scheme; any other is refused.
    SameHost,
}

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// What the TLS handshake agrees on; HTTP/1.1 without one.
    #[default]
    Auto,
    Http11,
    /// Without TLS by prior knowledge (h2c).
    Http2,
}

/// How an HTTP probe ends its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Connection {
    /// By RST after the answer: leaves no TIME_WAIT behind.
    #[default]
    Reset,
    /// By FIN, for servers that log resets.
    Polite,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    pub mode: TlsMode,
    /// SNI and the name the certificate must bear; `None`: the HTTP host.
    pub server_name: Option<Text>,
    /// PEM certificates to trust instead of the system's.
    pub ca: Option<Reference>,
    /// Who we are, where the target asks.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    pub certificate: Reference,
    pub key: Reference,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    #[default]
    Verify,
    SkipVerify,
}

/// One key of a Secret or ConfigMap in the check's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub kind: ReferenceKind,
    pub name: Text,
    pub key: Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReferenceKind {
    Secret,
    ConfigMap,
}

impl ReferenceKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScriptProbe {
    /// The program and its arguments; an inline `source` is already behind its interpreter (`sh -c SOURCE`-free:
    /// the source travels apart, on standard input or as a file of the runner's).
    pub command: Vec<Text>,
    /// An inline script; `command` is then its interpreter.
    pub source: Option<Text>,
    pub env: Vec<(Text, Text)>,
}

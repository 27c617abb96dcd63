//! What of all probes goes by the fast lane, and what they send.

use std::{
    collections::HashSet,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use futures::FutureExt as _;

use crate::{
    check::{
        Connection, Dial, Handshake, HeaderSource, Host, HttpProbe, HttpVersion, ObjectKey, Probe, ProbeKind,
        Redirects, Scheme, TcpProbe,
    },
    probe::{http, references::NoReferences},
};

/// A probe of one address, made ready.
#[derive(Clone, Debug)]
pub struct Question {
    pub(super) address: SocketAddr,
    pub(super) asks: Asks,
}

/// What is asked, wherever that is. All who ask the same share it.
#[derive(Clone, Debug)]
pub struct Asks(Arc<What>);

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// Whether a handshake is answered.
    HalfOpen,
    /// Whether a handshake is completed.
    Full,
    /// What a request is answered with.
    Http(Wire),
}

impl Asks {
    /// The same of `dial`; `None` where that is no address and port.
    #[must_use]
    pub fn of(&self, dial: &Dial) -> Option<Question> {
        let (Host::Address(ip), Some(port)) = (&dial.host, dial.port) else { return None };
        Some(Question { address: SocketAddr::new(*ip, port), asks: self.clone() })
    }

    pub(super) fn what(&self) -> &What {
        &self.0
    }
}

/// A request as it is sent, but for the address where that is what the Host header says.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Wire {
    pub is_head: bool,
    /// The request line, and the beginning of the first header.
    pub before: Box<[u8]>,
    /// `None`: the address that is dialed.
    pub host: Option<Box<str>>,
    pub after: Box<[u8]>,
}

/// The longest request that is taken: an empty socket's buffer holds it, so that to send it is one call.
const MAX_REQUEST: usize = 8 * 1024;
/// Headers with which a client frames a message or changes its connection: what hyper makes of them stays hyper's.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

impl Wire {
    /// Puts the request into `into`.
    pub fn write(&self, address: SocketAddr, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(&self.before);
        match (&self.host, address) {
            (Some(host), _) => into.extend_from_slice(host.as_bytes()),
            (None, SocketAddr::V4(to)) => put_dotted(*to.ip(), into),
            (None, SocketAddr::V6(to)) => {
                let written = write!(into, "[{}]", to.ip());
                debug_assert!(written.is_ok(), "a Vec takes all");
            }
        }
        // The default port is left out.
        if self.host.is_none() && address.port() != 80 {
            into.push(b':');
            into.extend_from_slice(itoa::Buffer::new().format(address.port()).as_bytes());
        }
        into.extend_from_slice(&self.after);
    }

    fn length(&self) -> usize {
        self.before.len() + self.host.as_ref().map_or(64, |host| host.len()) + self.after.len()
    }
}

/// As `Display` writes it, without its machinery: it is in every request.
fn put_dotted(ip: Ipv4Addr, into: &mut Vec<u8>) {
    for (nth, octet) in ip.octets().into_iter().enumerate() {
        if nth > 0 {
            into.push(b'.');
        }
        into.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// What is the same is kept once.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    all: HashSet<Arc<What>>,
    sweep_at: usize,
}

impl Kinds {
    fn keep(&mut self, what: What) -> Asks {
        if let Some(known) = self.all.get(&what) {
            return Asks(known.clone());
        }
        if self.all.len() >= self.sweep_at {
            self.all.retain(|what| Arc::strong_count(what) > 1);
            self.sweep_at = (2 * self.all.len()).max(64);
        }
        let what = Arc::new(what);
        self.all.insert(what.clone());
        Asks(what)
    }

    /// What `probe` asks at `dial`, over a connection that is kept if that is wanted and `keeps`; `None` where it takes the
    /// ordinary lane.
    pub fn asks(&mut self, dial: Option<&Dial>, probe: &Probe, keeps: bool) -> Option<Asks> {
        let dial = dial?;
        let (Host::Address(_), Some(_)) = (&dial.host, dial.port) else { return None };
        let what = match &probe.kind {
            ProbeKind::Tcp(tcp) if tcp.is_connect() => match tcp {
                TcpProbe { handshake: Handshake::HalfOpen, .. } => What::HalfOpen,
                TcpProbe { handshake: Handshake::Full, .. } => What::Full,
            },
            ProbeKind::Http(http) if is_plain(http) => What::Http(wire(http, dial, keeps && http.keeps_connection())?),
            ProbeKind::Tcp(_) | ProbeKind::Http(_) | ProbeKind::Grpc(_) | ProbeKind::Script(_) => return None,
        };
        Some(self.keep(what))
    }
}

/// A request over HTTP/1.1 without TLS, whose answer is judged by its status alone.
fn is_plain(probe: &HttpProbe) -> bool {
    let ours = |name: &str| FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing));
    probe.scheme == Scheme::Http
        && probe.version != HttpVersion::Http2
        && probe.redirects == Redirects::None
        && probe.connection == Connection::Reset
        && probe.expected_body.is_none()
        && probe.headers.iter().all(|header| matches!(header.source, HeaderSource::Value(_)) && !ours(&header.name))
}

/// `None`: it cannot be sent, or is too long; the ordinary lane says what there is to say.
fn wire(probe: &HttpProbe, dial: &Dial, kept: bool) -> Option<Wire> {
    // Without references nothing is waited for.
    let plan = http::plan(probe, dial, &ObjectKey::new("", ""), &NoReferences, kept).now_or_never()?.ok()?;
    plan.wire().filter(|wire| wire.length() <= MAX_REQUEST)
}

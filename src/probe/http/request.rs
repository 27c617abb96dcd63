//! What is sent: the request of a probe, with the values of its references filled in.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT},
};
use http_body_util::Full;
use rustls::pki_types::ServerName;

use super::scheme_name;
#[cfg(all(target_os = "linux", not(without_fast_lane)))]
use crate::probe::fast::Wire;
use crate::{
    check::{Dial, HeaderSource, Host, HttpProbe, ObjectKey, Reason, Scheme},
    probe::{failure::Failure, references::References, tls},
};

/// A probe made ready to be sent to any of its addresses.
pub(in crate::probe) struct Plan {
    method: Method,
    target: Uri,
    pub(super) headers: HeaderMap,
    body: Bytes,
    scheme: Scheme,
    /// What the Host header says: the probe's own, or the host that is dialed; `None`: the address itself.
    authority: Option<String>,
    pub tls: Option<tls::Setting>,
}

/// One request, absolute enough to resolve a redirect against.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub method: Method,
    /// The path and query.
    pub target: Uri,
    pub headers: HeaderMap,
    /// Empty but for a POST or PUT.
    pub body: Bytes,
    pub scheme: Scheme,
    /// The Host header, which redirects are compared with.
    pub authority: String,
    /// The port that is dialed.
    pub port: u16,
}

const AGENT: &str = concat!("healthcheck-operator/", env!("CARGO_PKG_VERSION"));

/// Fills in references and defaults, for a connection that is `kept` or ends with the answer. Fails only for what is wrong
/// on our side.
pub(in crate::probe) async fn plan(
    probe: &HttpProbe,
    dial: &Dial,
    check: &ObjectKey,
    references: &dyn References,
    kept: bool,
) -> Result<Plan, Failure> {
    let wrong = |what: &str| Failure::new(Reason::CannotStart, format!("{what} cannot be sent; correct the probe"));
    let method = Method::from_bytes(probe.method.as_bytes()).map_err(|_| wrong("the method"))?;
    let target: Uri = probe.path.parse().map_err(|_| wrong("the path"))?;
    if target.authority().is_some() || !target.path().starts_with('/') {
        return Err(wrong("a path that does not begin with '/'"));
    }
    let mut headers = headers(probe, check, references).await?;
    if !kept {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut body = Bytes::new();
    // A POST or PUT without a body says so, or some servers wait for one.
    if method == Method::POST || method == Method::PUT {
        body = probe.body.as_deref().map(|body| Bytes::copy_from_slice(body.as_bytes())).unwrap_or_default();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let written_host = headers.remove(HOST).and_then(|host| host.to_str().ok().map(str::to_owned));
    let authority = written_host.or_else(|| authority(probe, dial));
    let tls = match probe.scheme {
        Scheme::Http => None,
        Scheme::Https => Some(tls::setting(&probe.tls, check, references).await?),
    };
    Ok(Plan { method, target, headers, body, scheme: probe.scheme, authority, tls })
}

/// What the Host header says: what the probe says, word for word; or the host that is dialed, with its port where that
/// is not the scheme's own. `None`: the address itself, known once there is one.
fn authority(probe: &HttpProbe, dial: &Dial) -> Option<String> {
    let dialed = match &dial.host {
        Host::Name(name) => name.to_string(),
        Host::Address(ip) => ip.to_string(),
    };
    match probe.host.as_deref() {
        // The default of a host target is its own host.
        Some(host) if host != dialed => Some(bracketed(host)),
        _ => match &dial.host {
            Host::Name(name) => Some(with_port(name.trim_end_matches('.'), probe.scheme, dial.port)),
            Host::Address(_) => None,
        },
    }
}

/// A bare IPv6 address in its brackets, anything else as it is.
fn bracketed(host: &str) -> String {
    if host.parse::<std::net::Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() }
}

async fn headers(probe: &HttpProbe, check: &ObjectKey, references: &dyn References) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for header in &probe.headers {
        let wrong = |why: &str| Failure::new(Reason::CannotStart, format!("header '{}' {why}", header.name));
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| wrong("is not a header's name"))?;
        let value = match &header.source {
            HeaderSource::Value(value) => {
                HeaderValue::from_str(value).map_err(|_| wrong("has a value no header may have"))?
            }
            HeaderSource::Secret(reference) => {
                let bytes = references
                    .get(&check.namespace, reference)
                    .await
                    .map_err(|(reason, message)| Failure::new(reason, message))?;
                // A Secret written with `echo` ends in a line end that was never meant to be sent.
                let mut value = HeaderValue::from_bytes(bytes.trim_ascii_end()).map_err(|_| {
                    let (name, key) = (&reference.name, &reference.key);
                    let what = "has a value that no header may have (a control character)";
                    Failure::new(Reason::SecretMissing, format!("key '{key}' of Secret '{name}' {what}"))
                })?;
                value.set_sensitive(true);
                value
            }
        };
        if header.append {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
    // What the probe says itself stands in place of these, whether it appends or replaces.
    for (name, value) in [(USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(headers)
}

fn with_port(host: &str, scheme: Scheme, port: Option<u16>) -> String {
    match port {
        Some(port) if port != scheme.default_port() => format!("{host}:{port}"),
        _ => host.to_owned(),
    }
}

impl Plan {
    pub(super) fn first(&self, address: SocketAddr) -> Request {
        let authority = self.authority.clone().unwrap_or_else(|| {
            let host = match address.ip() {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            with_port(&host, self.scheme, Some(address.port()))
        });
        Request {
            method: self.method.clone(),
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            scheme: self.scheme,
            authority,
            port: address.port(),
        }
    }

    /// The request as it is sent over HTTP/1.1, byte for byte as hyper writes [`Request::message`]; `None` where it cannot be
    /// sent.
    #[cfg(all(target_os = "linux", not(without_fast_lane)))]
    pub(in crate::probe) fn wire(&self) -> Option<Wire> {
        // The host of the request that stands for all of them is replaced, where it is the address.
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let message = self.first(anywhere).message().ok()?;
        let before = format!("{} {} HTTP/1.1\r\nHost: ", message.method(), message.uri());
        let mut after = b"\r\n".to_vec();
        for (name, value) in message.headers().iter().filter(|(name, _)| **name != HOST) {
            after.extend_from_slice(&title_case(name));
            after.extend_from_slice(b": ");
            after.extend_from_slice(value.as_bytes());
            after.extend_from_slice(b"\r\n");
        }
        after.extend_from_slice(b"\r\n");
        after.extend_from_slice(&self.body);
        let host = self.authority.as_deref().map(Into::into);
        Some(Wire {
            is_head: self.method == Method::HEAD,
            before: before.into_bytes().into(),
            host,
            after: after.into(),
        })
    }

    /// The name the certificate must bear: `tls.serverName`, else the HTTP host, else the address.
    pub(super) fn server_name(&self, probe: &HttpProbe, address: SocketAddr) -> Result<ServerName<'static>, Failure> {
        let written = probe.tls.server_name.as_deref();
        let Some(text) = written.or_else(|| self.authority.as_deref().map(host_of)) else {
            return Ok(ServerName::IpAddress(address.ip().into()));
        };
        tls::server_name(text)
    }
}

/// `x-request-id` as `X-Request-Id`: some old servers read no other.
#[cfg(all(target_os = "linux", not(without_fast_lane)))]
fn title_case(name: &HeaderName) -> Vec<u8> {
    let mut written = name.as_str().as_bytes().to_vec();
    let mut begins = true;
    for byte in &mut written {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = *byte == b'-';
    }
    written
}

/// `host` of `host`, `host:port` and `[v6]:port`.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

impl Request {
    /// The message as hyper takes it.
    pub fn message(&self) -> Result<http::Request<Full<Bytes>>, Failure> {
        let wrong = |_| Failure::new(Reason::CannotStart, "the host cannot be sent as a header; correct the probe");
        let mut message = http::Request::new(Full::new(self.body.clone()));
        *message.method_mut() = self.method.clone();
        *message.uri_mut() = self.target.clone();
        message.headers_mut().insert(HOST, HeaderValue::from_str(&self.authority).map_err(wrong)?);
        message.headers_mut().extend(self.headers.clone());
        Ok(message)
    }
}

impl Request {
    /// The head of the message for HTTP/2, which names scheme and authority, and has no headers of one connection.
    pub fn head(&self) -> Result<http::Request<()>, Failure> {
        let wrong = |_| Failure::new(Reason::CannotStart, "the host cannot be sent as an authority; correct the probe");
        let uri = Uri::builder()
            .scheme(scheme_name(self.scheme))
            .authority(self.authority.as_str())
            .path_and_query(self.target.path_and_query().map_or("/", |path| path.as_str()))
            .build()
            .map_err(wrong)?;
        let mut message = http::Request::new(());
        *message.version_mut() = http::Version::HTTP_2;
        *message.method_mut() = self.method.clone();
        *message.uri_mut() = uri;
        *message.headers_mut() = self.headers.clone();
        message.headers_mut().remove(CONNECTION);
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_authority() {
        for (authority, host) in [
            ("example.com", "example.com"),
            ("example.com:8443", "example.com"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    #[test]
    fn the_host_header_is_what_is_written_or_what_is_dialed() {
        let probe = |host: Option<&str>| HttpProbe { host: host.map(Into::into), ..HttpProbe::default() };
        let dial = |host: Host, port| Dial { host, port: Some(port) };
        let name = |name: &str| Host::Name(name.into());
        let address = |ip: &str| Host::Address(ip.parse().expect("an address"));
        for (host, dial, want) in [
            (Some("db.example"), dial(name("db.example"), 8080), Some("db.example:8080")),
            (Some("db.example"), dial(name("db.example"), 80), Some("db.example")),
            (Some("other.example"), dial(name("db.example"), 8080), Some("other.example")),
            (Some("other.example:9"), dial(address("10.0.0.1"), 8080), Some("other.example:9")),
            (Some("web.shop.svc"), dial(address("10.0.0.1"), 8080), Some("web.shop.svc")),
            (Some("fd00::1"), dial(address("10.0.0.1"), 8080), Some("[fd00::1]")),
            (Some("10.0.0.1"), dial(address("10.0.0.1"), 8080), None),
            (Some("fd00::1"), dial(address("fd00::1"), 8080), None),
            (None, dial(name("db.example."), 8080), Some("db.example:8080")),
        ] {
            assert_eq!(authority(&probe(host), &dial).as_deref(), want, "{host:?} {dial:?}");
        }
    }

    #[test]
    fn the_default_port_is_left_out() {
        assert_eq!(with_port("a", Scheme::Http, Some(80)), "a");
        assert_eq!(with_port("a", Scheme::Https, Some(80)), "a:80");
        assert_eq!(with_port("a", Scheme::Https, Some(443)), "a");
    }
}

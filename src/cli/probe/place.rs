//! Arguments of `probe` to values; every refusal is one line that names the mend.

use std::net::IpAddr;

use url::{Host as UrlHost, Url};

use crate::check::{Dial, Host, Scheme, StatusRange, Text};

/// Where a URL leads.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub scheme: Scheme,
    pub dial: Dial,
    /// The path and query.
    pub target: String,
    /// The URL without its query, which may hold a token.
    pub shown: String,
}

const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "PUT", "OPTIONS"];

pub(super) fn method(text: &str) -> Result<Text, String> {
    let upper = text.to_ascii_uppercase();
    if METHODS.contains(&upper.as_str()) {
        return Ok(upper.into());
    }
    Err(format!("use one of {}", METHODS.join(", ")))
}

pub(super) fn host_and_port(text: &str) -> Result<Dial, String> {
    let shape = "write HOST:PORT, such as db.example.com:5432 or [::1]:5432";
    if text.contains("://") {
        return Err(format!("no scheme here; {shape}"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("the port is missing; {shape}"))?;
    let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse::<u16>().ok()).flatten();
    let port = number.filter(|port| *port > 0).ok_or("the port must be a number from 1 to 65535")?;
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bracketed {
        Some(inside) => {
            Host::Address(IpAddr::V6(inside.parse().map_err(|_| "what is in brackets is no IPv6 address")?))
        }
        None if host.contains(':') => return Err(format!("an IPv6 address goes in brackets; {shape}")),
        None => host_of(host).map_err(|why| format!("{why}; {shape}"))?,
    };
    Ok(Dial { host, port: Some(port) })
}

fn host_of(text: &str) -> Result<Host, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(Host::Address(address));
    }
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text {
        "" => Err("the host is missing"),
        text if !text.chars().all(plain) => Err("the host is no name and no address"),
        text => Ok(Host::Name(text.into())),
    }
}

pub(super) fn url(text: &str) -> Result<Place, String> {
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => "the scheme is missing; write http://… or https://…".to_owned(),
        error => error.to_string(),
    })?;
    let scheme = match url.scheme() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err("only http:// and https:// can be probed".to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user or password in the URL is not sent; use --header 'Authorization: …'".to_owned());
    }
    if url.fragment().is_some() {
        return Err("a fragment ('#…') is never sent; leave it out".to_owned());
    }
    let host = match url.host() {
        None => return Err("the host is missing".to_owned()),
        Some(UrlHost::Domain(name)) => Host::Name(name.into()),
        Some(UrlHost::Ipv4(ip)) => Host::Address(ip.into()),
        Some(UrlHost::Ipv6(ip)) => Host::Address(ip.into()),
    };
    let port =
        url.port_or_known_default().filter(|port| *port > 0).ok_or("the port must be a number from 1 to 65535")?;
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let mut shown = url.clone();
    shown.set_query(None);
    Ok(Place { scheme, dial: Dial { host, port: Some(port) }, target, shown: shown.to_string() })
}

pub(super) fn status(text: &str) -> Result<StatusRange, String> {
    let wrong = "write codes and ranges within 100 and 599, such as 200 or 300-399";
    let code = |text: &str| -> Result<u16, String> {
        let number = (text.len() == 3).then(|| text.parse().ok()).flatten();
        number.filter(|code| (100..600).contains(code)).ok_or_else(|| wrong.to_owned())
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = StatusRange { first: code(first)?, last: code(last)? };
    if range.first > range.last {
        return Err(format!("the range is upside down; write {}-{}", range.last, range.first));
    }
    Ok(range)
}

/// Headers about the connection are ours to send.
const OURS: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write 'Name: value'")?;
    let value = value.trim();
    let name = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| "the name is not a header's name")?;
    http::HeaderValue::from_str(value).map_err(|_| "the value must be visible ASCII")?;
    if OURS.contains(&name.as_str()) {
        return Err(format!("'{name}' is about the connection and cannot be set"));
    }
    Ok((name.to_string(), value.to_owned()))
}

/// `host:port`, an IPv6 address in brackets.
pub(super) fn shown(dial: &Dial) -> String {
    let port = dial.port.unwrap_or_default();
    match &dial.host {
        Host::Address(address) => std::net::SocketAddr::new(*address, port).to_string(),
        Host::Name(name) => format!("{name}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        for text in ["db.example.com:5432", "10.0.0.1:1", "[::1]:65535", "my_db:80", "localhost:8080"] {
            assert_eq!(shown(&host_and_port(text).expect(text)), text);
        }
        for text in
            ["db", "db:", ":80", "db:0", "db:65536", "db:http", "::1:80", "[::g]:80", "a b:80", "a@b:80", "db:+1"]
        {
            assert!(host_and_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn urls_are_parsed_and_never_put_together() {
        let place = url("https://example.com/a/b?c=secret").expect("a URL");
        assert_eq!((place.target.as_str(), place.shown.as_str()), ("/a/b?c=secret", "https://example.com/a/b"));
        assert_eq!((place.scheme, place.dial.port), (Scheme::Https, Some(443)));
        assert_eq!(url("http://[::1]:8080").expect("a URL").dial.host, Host::Address("::1".parse().expect("an IP")));
        assert_eq!(url("http://h").expect("a URL").target, "/");
        for (text, why) in [
            ("example.com", "the scheme is missing"),
            ("ftp://example.com", "only http"),
            ("http://user@example.com", "a user or password"),
            ("http://backend@evil.example/", "a user or password"),
            ("http://example.com/#x", "a fragment"),
            ("http://", "empty host"),
            ("http://example.com:0/", "the port"),
            ("http://example.com:99999/", "invalid port"),
        ] {
            let error = url(text).expect_err(text);
            assert!(error.starts_with(why), "{text}: {error}");
        }
    }

    #[test]
    fn statuses() {
        assert_eq!(status("200"), Ok(StatusRange { first: 200, last: 200 }));
        assert_eq!(status("100-599"), Ok(StatusRange { first: 100, last: 599 }));
        for text in ["", "99", "600", "2xx", "200-", "-200", "300-200", "0200", "+20", "200-600"] {
            assert!(status(text).is_err(), "{text}");
        }
    }

    #[test]
    fn headers() {
        assert_eq!(header("X-Key: a b"), Ok(("x-key".into(), "a b".into())));
        assert_eq!(header("Host: x"), Ok(("host".into(), "x".into())));
        for text in ["X-Key", ": x", "a b: c", "Connection: keep-alive", "X: \n", "X: a\r\nY: b"] {
            assert!(header(text).is_err() || text == "X: \n", "{text}");
        }
    }
}

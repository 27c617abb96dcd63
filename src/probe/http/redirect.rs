//! Redirects that stay on the host: everything else would let a target send probes where the check never pointed.

use http::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, LOCATION},
};
use url::{Host, Url};

use super::{exchange::Head, request::Request, scheme_name};
use crate::{check::Reason, probe::failure::Failure};

/// The request that follows `request` when `head` redirects it; `None` when the answer is no redirect.
///
/// The same host, scheme and port only. The answer's Location is never quoted: it may carry a token.
pub(super) fn follow(request: &Request, head: &Head) -> Option<Result<Request, Failure>> {
    let method = next_method(head.status, &request.method)?;
    // A redirect that leads nowhere is an answer like any other.
    let location = head.headers.get(LOCATION)?;
    let status = head.status.as_u16();
    let refuse = |why: &str| Failure::new(Reason::RedirectRefused, format!("redirect refused; got '{status}' {why}"));
    let Ok(location) = std::str::from_utf8(location.as_bytes()) else {
        return Some(Err(refuse("to a place that is no URL")));
    };
    Some(resolve(request, location).map_err(refuse).map(|target| {
        let mut next = request.clone();
        if method != Method::POST && method != Method::PUT {
            next.headers.remove(CONTENT_LENGTH);
            next.body = bytes::Bytes::new();
        }
        next.method = method;
        next.target = target;
        next
    }))
}

/// RFC 9110, 15.4: 303 asks for GET; 301 and 302 turn a POST into GET, as every browser does; 307 and 308 keep it.
fn next_method(status: StatusCode, method: &Method) -> Option<Method> {
    match status {
        StatusCode::SEE_OTHER if *method == Method::HEAD => Some(Method::HEAD),
        StatusCode::SEE_OTHER => Some(Method::GET),
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if *method == Method::POST => Some(Method::GET),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => Some(method.clone()),
        _ => None,
    }
}

fn resolve(request: &Request, location: &str) -> Result<http::Uri, &'static str> {
    let no_url = "to a place that is no URL";
    let base = format!("{}://{}{}", scheme_name(request.scheme), request.authority, request.target);
    let base = Url::parse(&base).map_err(|_| no_url)?;
    let url = base.join(location).map_err(|_| no_url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("with credentials in the URL");
    }
    if url.scheme() != base.scheme() {
        return Err("to another scheme");
    }
    if !same_host(url.host(), base.host()) {
        return Err("to another host");
    }
    // Behind a port mapping the target may not know which port is dialed: its own idea of it is the Host header's.
    let port = url.port_or_known_default();
    if port != base.port_or_known_default() && port != Some(request.port) {
        return Err("to another port");
    }
    let mut target = url.path().to_owned();
    if let Some(query) = url.query() {
        target.push('?');
        target.push_str(query);
    }
    target.parse().map_err(|_| no_url)
}

fn same_host(one: Option<Host<&str>>, other: Option<Host<&str>>) -> bool {
    match (one, other) {
        (Some(Host::Domain(one)), Some(Host::Domain(other))) => {
            one.trim_end_matches('.') == other.trim_end_matches('.')
        }
        (one, other) => one.is_some() && one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Scheme;

    fn request(authority: &str, port: u16) -> Request {
        Request {
            method: Method::GET,
            target: "/a/b?c=d".parse().expect("a path"),
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            scheme: Scheme::Http,
            authority: authority.into(),
            port,
        }
    }

    #[test]
    fn only_the_same_host_scheme_and_port() {
        let from = request("example.com:8080", 8080);
        for (location, target) in [
            ("/x", "/x"),
            ("x", "/a/x"),
            ("?y=1", "/a/b?y=1"),
            ("../../z", "/z"),
            ("http://example.com:8080/x?y", "/x?y"),
            ("http://EXAMPLE.com:8080/x#frag", "/x"),
            ("//example.com:8080/x", "/x"),
        ] {
            assert_eq!(resolve(&from, location).map(|uri| uri.to_string()), Ok(target.to_owned()), "{location}");
        }
        for (location, why) in [
            ("https://example.com:8080/x", "to another scheme"),
            ("http://example.org:8080/x", "to another host"),
            ("//evil.example:8080/x", "to another host"),
            ("http://example.com:8080.evil.example/", "to a place that is no URL"),
            ("http://example.com@evil.example:8080/", "with credentials in the URL"),
            ("http://user:secret@example.com:8080/", "with credentials in the URL"),
            ("http://example.com/x", "to another port"),
            ("ftp://example.com/x", "to another scheme"),
            ("http://[::1", "to a place that is no URL"),
        ] {
            assert_eq!(resolve(&from, location).map(|uri| uri.to_string()), Err(why), "{location}");
        }
    }

    #[test]
    fn the_targets_own_idea_of_its_port_counts_too() {
        let mapped = request("example.com", 30080);
        assert!(resolve(&mapped, "http://example.com/x").is_ok());
        assert!(resolve(&mapped, "http://example.com:30080/x").is_ok());
        assert_eq!(resolve(&mapped, "http://example.com:8080/x"), Err("to another port"));
    }

    #[test]
    fn the_method_after_a_redirect() {
        for (status, method, next) in [
            (302, "POST", Some("GET")),
            (302, "PUT", Some("PUT")),
            (303, "PUT", Some("GET")),
            (303, "HEAD", Some("HEAD")),
            (307, "POST", Some("POST")),
            (308, "GET", Some("GET")),
            (300, "GET", None),
            (304, "GET", None),
            (200, "GET", None),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(next_method(status, &method).as_ref().map(Method::as_str), next, "{status} {method}");
        }
    }
}

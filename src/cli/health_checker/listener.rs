//! The value of `--listener`.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use anyhow::Context as _;

/// What a wrong value should be.
const SHAPE: &str = "want ADDRESS:PORT, like 0.0.0.0:5500, [::]:5500 or :5500, with a port from 0 to 65535";

/// A place to listen on: an address, or a name of this machine that is looked up at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl FromStr for Listener {
    type Err = &'static str;

    /// `ADDRESS:PORT`, or `:PORT` for every address, of both families.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(SHAPE)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits.then(|| port.parse().ok()).flatten().ok_or(SHAPE)?;
        let in_brackets = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let host = match (in_brackets, host) {
            (_, "") => Host::Address(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)),
            (Some(inside), _) => Host::Address(IpAddr::V6(inside.parse().map_err(|_| SHAPE)?)),
            (None, host) => match host.parse() {
                Ok(address) => Host::Address(IpAddr::V4(address)),
                Err(_) if is_name(host) => Host::Name(host.to_owned()),
                Err(_) => return Err(SHAPE),
            },
        };
        Ok(Self { host, port })
    }
}

/// One that ends in a number is an address gone wrong (RFC 3986 knows no such name).
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    text.bytes().all(plain) && !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl Listener {
    /// The address; of a name the first one, of IPv4 where there is one.
    ///
    /// # Errors
    /// The name has no address.
    pub async fn address(&self) -> anyhow::Result<SocketAddr> {
        let name = match &self.host {
            Host::Address(ip) => return Ok(SocketAddr::new(*ip, self.port)),
            Host::Name(name) => name,
        };
        let unknown = || format!("--listener {self}: no address of that name; give an IP address of this machine");
        let found: Vec<_> = tokio::net::lookup_host((name.as_str(), self.port)).await.with_context(unknown)?.collect();
        found.iter().find(|address| address.is_ipv4()).or(found.first()).copied().with_context(unknown)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_to_listen_on() {
        for (text, address) in [
            ("0.0.0.0:5500", "0.0.0.0:5500"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            (":65535", "[::]:65535"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:80", "127.0.0.1:80"),
        ] {
            let listener: Listener = text.parse().expect(text);
            assert_eq!(listener.address().await.expect(text).to_string(), address);
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in [
            "",
            "5500",
            ":",
            "0.0.0.0",
            "0.0.0.0:",
            "0.0.0.0:65536",
            "0.0.0.0:-1",
            "0.0.0.0:+1",
            "0.0.0.0:http",
            "::1:80",
            "[::1:80",
            "[1.2.3.4]:80",
            "256.0.0.1:80",
            "http://x:80",
            "a b:80",
            "1:80",
        ] {
            assert!(text.parse::<Listener>().is_err(), "{text}");
        }
    }
}

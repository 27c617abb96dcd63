//! HealthChecks by the thousand.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

/// The most targets that one check may have.
const TARGETS_PER_CHECK: usize = 64;

/// The address so many after the first.
pub fn address(first: Ipv4Addr, number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(first) + u32::try_from(number).expect("an IPv4 address"))
}

/// What the targets are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A half-open handshake.
    Tcp,
    /// A whole handshake, and a polite end.
    TcpFull,
    /// `GET /` on a connection of its own.
    Http,
    /// `GET /` on a connection that is kept from round to round.
    HttpKept,
    /// `GET /` behind a handshake of TLS, to a server whose certificate is for `localhost`.
    Https,
    HttpsKept,
}

impl Probe {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP, half-open",
            Self::TcpFull => "TCP, full handshake",
            Self::Http => "HTTP, fresh connection",
            Self::HttpKept => "HTTP, kept connection",
            Self::Https => "HTTPS, fresh connection",
            Self::HttpsKept => "HTTPS, kept connection",
        }
    }

    const fn yaml(self) -> &'static str {
        match self {
            Self::Tcp => "{tcp: {handshake: HalfOpen}}",
            Self::TcpFull => "{tcp: {handshake: Full}}",
            Self::Http => "{http: {path: /, expectedStatuses: [200]}}",
            Self::HttpKept => "{http: {path: /, expectedStatuses: [200], reuseConnection: true}}",
            Self::Https => "{http: {path: /, scheme: HTTPS, tls: {serverName: localhost}, expectedStatuses: [200]}}",
            Self::HttpsKept => {
                "{http: {path: /, scheme: HTTPS, tls: {serverName: localhost}, expectedStatuses: [200], reuseConnection: true}}"
            }
        }
    }
}

/// `endpoints` of them, `per_check` in each check.
#[derive(Clone, Debug)]
pub struct Plan {
    pub endpoints: usize,
    pub per_check: usize,
    pub probe: Probe,
    pub interval: String,
    pub timeout: String,
    /// Every target listens here, on an address of its own.
    pub port: u16,
    /// The address of the first target; the others follow.
    pub first: Ipv4Addr,
    /// What its checks are called, beside a number.
    pub name: &'static str,
}

impl Plan {
    /// Targets on loopback at one second, as many in a check as there may be.
    pub fn loopback(endpoints: usize, probe: Probe, port: u16) -> Self {
        let first = Ipv4Addr::new(127, 1, 0, 1);
        Self {
            endpoints,
            per_check: TARGETS_PER_CHECK,
            probe,
            interval: "1s".into(),
            timeout: "900ms".into(),
            port,
            first,
            name: "check",
        }
    }

    pub fn checks(&self) -> usize {
        self.endpoints.div_ceil(self.per_check)
    }

    /// One check as YAML.
    pub fn check(&self, number: usize) -> String {
        let mut yaml = format!(
            "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: {}-{number}, \
             namespace: bench}}\nspec:\n  interval: {}\n  timeout: {}\n  probe: {}\n  targets:\n",
            self.name,
            self.interval,
            self.timeout,
            self.probe.yaml()
        );
        let first = number * self.per_check;
        for endpoint in first..(first + self.per_check).min(self.endpoints) {
            let (address, port) = (address(self.first, endpoint), self.port);
            writeln!(yaml, "    - {{name: target-{endpoint}, host: {address}, port: {port}}}")
                .expect("a String takes all");
        }
        yaml
    }

    /// All checks in one file.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let all: Vec<String> = (0..self.checks()).map(|number| self.check(number)).collect();
        std::fs::write(file, all.join("---\n"))
    }
}

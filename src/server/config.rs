//! The flags of both listeners.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use http::StatusCode;
use rustix::process::{Resource, getrlimit};

use crate::check::Health;

/// The longest custom body, in bytes: a health answer fits one packet.
const MAX_BODY: usize = 1024;

/// What is not the same for every command that has the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminDefault {
    /// Every interface: a cluster's policies and the API server's answers guard it.
    Everywhere,
    /// Loopback only: there is nobody to ask who may read it.
    Loopback,
}

/// Flags of the public and the admin listener; flatten it into a command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct ServerArgs {
    /// Where /healthz is served; [::] means IPv4 too, port 0 any free port
    #[arg(
        long, value_name = "ADDRESS", default_value = "[::]:8080", value_parser = parse_address,
        env = "HEALTHCHECK_OPERATOR_LISTEN"
    )]
    listen: SocketAddr,
    /// Where metrics, /livez, /readyz and the API are served [default: [::]:8081; standalone: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, env = "HEALTHCHECK_OPERATOR_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Where Envoy's access logs are taken in by gRPC, like :8083, for spec.passive [default: nowhere]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, env = "HEALTHCHECK_OPERATOR_ENVOY_LISTEN")]
    envoy_listen: Option<SocketAddr>,
    /// Certificate chain (PEM) of all listeners, read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "HEALTHCHECK_OPERATOR_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "HEALTHCHECK_OPERATOR_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Status code of a Healthy answer, 200-599
    #[arg(
        long, value_name = "CODE", default_value_t = 200, value_parser = code,
        env = "HEALTHCHECK_OPERATOR_HEALTHY_CODE"
    )]
    healthy_code: u16,
    /// Status code of a Degraded answer, 200-599
    #[arg(
        long, value_name = "CODE", default_value_t = 200, value_parser = code,
        env = "HEALTHCHECK_OPERATOR_DEGRADED_CODE"
    )]
    degraded_code: u16,
    /// Status code of an Unhealthy answer, 200-599
    #[arg(
        long, value_name = "CODE", default_value_t = 503, value_parser = code,
        env = "HEALTHCHECK_OPERATOR_UNHEALTHY_CODE"
    )]
    unhealthy_code: u16,
    /// Status code of an Unknown answer, 200-599
    #[arg(
        long, value_name = "CODE", default_value_t = 503, value_parser = code,
        env = "HEALTHCHECK_OPERATOR_UNKNOWN_CODE"
    )]
    unknown_code: u16,
    /// Plain text body, in place of ours, of every answer with a code below 400
    #[arg(long, value_name = "TEXT", value_parser = parse_body, env = "HEALTHCHECK_OPERATOR_HEALTHY_BODY")]
    healthy_body: Option<String>,
    /// Plain text body, in place of ours, of every answer with a code from 400 up
    #[arg(long, value_name = "TEXT", value_parser = parse_body, env = "HEALTHCHECK_OPERATOR_UNHEALTHY_BODY")]
    unhealthy_body: Option<String>,
    /// How much strangers learn from the public listener
    #[arg(long, value_enum, default_value_t = Details::Summary, env = "HEALTHCHECK_OPERATOR_DETAILS")]
    details: Details,
    /// Where the public listener tells that this process lives, whatever the checks say
    #[arg(
        long, value_name = "PATH", default_value = "/__health", value_parser = parse_health_path,
        env = "HEALTHCHECK_OPERATOR_HEALTH_PATH"
    )]
    health_path: String,
    /// Do not serve --health-path
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_HEALTH")]
    disable_health: bool,
    /// Leave requests for PATH out of the access log (may be given many times)
    #[arg(
        long, value_name = "PATH", value_delimiter = ',', value_parser = parse_path,
        env = "HEALTHCHECK_OPERATOR_ACCESS_LOG_SKIP"
    )]
    access_log_skip: Vec<String>,
}

/// How much strangers learn from the public listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Details {
    /// The verdict word alone
    None,
    /// Names of checks and targets, their states, and why they fail; a page says since when a check is what it is
    #[default]
    Summary,
    /// Addresses, all times, latencies and outages too
    Full,
}

/// Everything the listeners need to know, checked.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// `None`: Envoy's access logs are not taken in.
    pub envoy_listen: Option<SocketAddr>,
    pub tls: Option<TlsFiles>,
    pub answers: Answers,
    pub details: Details,
    /// `None`: not served.
    pub health_path: Option<String>,
    /// Without a slash at the end.
    pub access_log_skip: Vec<String>,
    pub limits: Limits,
}

/// Where the certificate of the listeners is.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// How often the two are looked at.
    pub poll: Duration,
}

/// What a verdict is told with.
#[derive(Clone, Debug)]
pub struct Answers {
    /// In the order of [`Health::ALL`].
    codes: [StatusCode; 4],
    healthy_body: Option<String>,
    unhealthy_body: Option<String>,
}

impl Answers {
    #[must_use]
    pub const fn code(&self, health: Health) -> StatusCode {
        self.codes[health as usize]
    }

    /// The body set by the user for an answer with the code of `health`, if any: a load balancer that matches on text
    /// must read the same from the text as from the code.
    #[must_use]
    pub fn body(&self, health: Health) -> Option<&str> {
        let good = self.code(health).as_u16() < 400;
        if good { self.healthy_body.as_deref() } else { self.unhealthy_body.as_deref() }
    }
}

/// What keeps slow, silent or many clients from doing harm; per listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once. Beyond it the one that has been idle for longest is closed.
    pub connections: usize,
    /// From accepting, or the last answer, to the whole head of the next request; the TLS handshake too.
    pub head: Duration,
    /// How long the client may take no byte of an answer.
    pub stalled_write: Duration,
    /// From the shutdown to the last answer; what is open then is cut.
    pub drain: Duration,
    /// The largest declared request body, in bytes.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // A sixteenth of the descriptors for each listener: the probes need the others.
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        Self {
            connections: usize::try_from(descriptors / 16).unwrap_or(usize::MAX).clamp(32, 1024),
            // Above the 15 s and 30 s at which scrapers and load balancers come back on a kept connection.
            head: Duration::from_secs(35),
            stalled_write: Duration::from_secs(10),
            drain: Duration::from_secs(1),
            body: 64 * 1024,
        }
    }
}

impl ServerArgs {
    /// The configuration these flags ask for.
    ///
    /// # Errors
    /// When flags that are fine alone are wrong together.
    pub fn config(&self, admin: AdminDefault) -> Result<ServerConfig, String> {
        let admin_ip: IpAddr = match admin {
            AdminDefault::Everywhere => Ipv6Addr::UNSPECIFIED.into(),
            AdminDefault::Loopback => Ipv4Addr::LOCALHOST.into(),
        };
        let admin_listen = self.admin_listen.unwrap_or(SocketAddr::new(admin_ip, 8081));
        if self.listen.port() != 0 && self.listen == admin_listen {
            return Err(format!("--listen and --admin-listen are both {admin_listen}; give each a port of its own"));
        }
        if let Some(envoy) = self.envoy_listen.filter(|envoy| envoy.port() != 0)
            && (envoy == self.listen || envoy == admin_listen)
        {
            return Err(format!("--envoy-listen is {envoy} like another listener; give each a port of its own"));
        }
        let tls = self.tls_cert.clone().zip(self.tls_key.clone()).map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            poll: Duration::from_secs(2),
        });
        let code = |code: u16| StatusCode::from_u16(code).map_err(|error| format!("{code}: {error}"));
        let codes =
            [code(self.healthy_code)?, code(self.degraded_code)?, code(self.unhealthy_code)?, code(self.unknown_code)?];
        Ok(ServerConfig {
            listen: self.listen,
            admin_listen,
            envoy_listen: self.envoy_listen,
            tls,
            answers: Answers {
                codes,
                healthy_body: self.healthy_body.clone(),
                unhealthy_body: self.unhealthy_body.clone(),
            },
            details: self.details,
            health_path: (!self.disable_health).then(|| self.health_path.clone()),
            access_log_skip: self.access_log_skip.clone(),
            limits: Limits::default(),
        })
    }
}

/// `ADDRESS:PORT`, or `:PORT` for every address.
fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "want ADDRESS:PORT with an IP address, like 127.0.0.1:8080, [::]:8080 or :8080".into())
}

/// A status that a load balancer understands as a word about health; 1xx is none.
fn code(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|code| (200..600).contains(code)).ok_or_else(|| "want a status from 200 to 599".to_owned())
}

fn parse_body(text: &str) -> Result<String, String> {
    if text.len() > MAX_BODY {
        return Err(format!("a body has at most {MAX_BODY} bytes, this one has {}", text.len()));
    }
    Ok(text.to_owned())
}

/// A path as it is compared: beginning with `/`, without one at the end.
fn parse_path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    if !text.starts_with('/') {
        return Err(format!("a path begins with '/', like '/{text}'"));
    }
    if !text.bytes().all(plain) || text.contains("//") {
        return Err("a path here has only letters, digits and / - _ . ~, and no empty part".into());
    }
    Ok(match text.trim_end_matches('/') {
        "" => "/".into(),
        path => path.into(),
    })
}

fn parse_health_path(text: &str) -> Result<String, String> {
    let path = parse_path(text)?;
    if path == "/" || path == "/healthz" || path.starts_with("/healthz/") {
        return Err(format!("'{path}' already tells the health of the checks; take another, or leave this out"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn config(flags: &[&str]) -> Result<ServerConfig, String> {
        let cli = Cli::try_parse_from([&["test"], flags].concat()).map_err(|error| error.to_string())?;
        cli.server.config(AdminDefault::Loopback)
    }

    #[test]
    fn without_flags_the_documented_defaults_hold() {
        let config = config(&[]).expect("defaults are valid");
        assert_eq!(config.listen.to_string(), "[::]:8080");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
        assert_eq!(Health::ALL.map(|health| config.answers.code(health).as_u16()), [200, 200, 503, 503]);
        assert_eq!(config.health_path.as_deref(), Some("/__health"));
        assert_eq!(config.details, Details::Summary);
        assert!(config.tls.is_none() && config.access_log_skip.is_empty());
    }

    #[test]
    fn a_wrong_flag_is_refused_with_its_name_and_the_mend() {
        for (flags, part) in [
            (["--listen", "8080"].as_slice(), "want ADDRESS:PORT"),
            (&["--listen", "localhost:8080"], "want ADDRESS:PORT"),
            (&["--listen", ":70000"], "want ADDRESS:PORT"),
            (&["--listen", ":1", "--admin-listen", "[::]:1"], "give each a port"),
            (&["--envoy-listen", ":8080"], "--envoy-listen is [::]:8080 like another"),
            (&["--envoy-listen", "127.0.0.1:8081"], "give each a port"),
            (&["--envoy-listen", "8083"], "want ADDRESS:PORT"),
            (&["--tls-cert", "c.pem"], "--tls-key"),
            (&["--tls-key", "k.pem"], "--tls-cert"),
            (&["--healthy-code", "199"], "--healthy-code"),
            (&["--unknown-code", "600"], "--unknown-code"),
            (&["--details", "some"], "--details"),
            (&["--health-path", "alive"], "begins with '/'"),
            (&["--health-path", "/"], "already tells"),
            (&["--health-path", "/healthz/"], "already tells"),
            (&["--health-path", "/healthz/shop"], "already tells"),
            (&["--health-path", "/a{b}"], "only letters"),
            (&["--health-path", "/a//b"], "no empty part"),
            (&["--access-log-skip", "healthz"], "--access-log-skip"),
            (&["--healthy-body", &"x".repeat(1025)], "at most 1024"),
        ] {
            let error = config(flags).expect_err(part);
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }

    #[test]
    fn near_misses_are_accepted() {
        let config = config(&[
            "--listen",
            ":0",
            "--admin-listen",
            "127.0.0.1:0",
            "--envoy-listen",
            "127.0.0.1:0",
            "--healthy-code",
            "299",
            "--unknown-code",
            "599",
            "--health-path",
            "/healthzz/",
            "--access-log-skip",
            "/healthz/,/livez",
            "--healthy-body",
            &"x".repeat(1024),
        ])
        .expect("all is valid");
        assert_eq!(config.health_path.as_deref(), Some("/healthzz"));
        assert_eq!(config.access_log_skip, ["/healthz", "/livez"]);
    }

    #[test]
    fn a_custom_body_follows_the_code() {
        let flags = ["--healthy-body", "UP", "--unhealthy-body", "DOWN", "--unknown-code", "200"];
        let answers = config(&flags).expect("all is valid").answers;
        assert_eq!(Health::ALL.map(|health| answers.body(health)), [Some("UP"), Some("UP"), Some("DOWN"), Some("UP")]);
    }
}

//! `healthcheck-operator probe`: one probe, now, from here.

mod files;
mod place;
mod tls;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use self::tls::{Files, TlsArgs};
use super::{
    Exit,
    output::Output,
    print::{found, print},
};
use crate::{
    api,
    check::{
        Attempt, Dial, GrpcProbe, Handshake, HeaderSource, HttpHeader, HttpProbe, HttpVersion, ObjectKey, Outcome,
        Probe, ProbeKind, Reason, Redirects, Report, Scheme, ScriptProbe, StatusRange, TcpProbe, Text,
    },
    probe::{Lane as _, Prober, Settings},
};

/// Probe something once, from here: prints `healthy`, or `unhealthy; <why>`, or `unknown; <why>`
#[derive(Args, Debug)]
#[command(
    after_help = "Exit codes: 0 healthy (of -f: degraded too), 1 unhealthy, 2 usage, 3 could not tell.",
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true
)]
pub struct ProbeArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    files: files::FileArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Connect: that somebody listens is enough
    Tcp(TcpArgs),
    /// Make one HTTP request and look at its status
    Http(HttpArgs),
    /// Ask a gRPC server whether it serves (grpc.health.v1)
    Grpc(GrpcArgs),
    /// Run a program: exit code 0 is healthy
    Script(ScriptArgs),
}

#[derive(Args, Debug)]
struct Common {
    /// Total for the attempt: resolve, connect, TLS, request, response
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    timeout: api::Duration,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args, Debug)]
struct TcpArgs {
    /// Where to connect: name:port, 10.0.0.1:5432 or [::1]:5432
    #[arg(value_name = "HOST:PORT", value_parser = place::host_and_port)]
    place: Dial,
    /// Complete the handshake, so that the target accepts the connection
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct HttpArgs {
    /// GET, HEAD, POST, PUT or OPTIONS
    #[arg(value_parser = place::method)]
    method: Text,
    /// http:// or https://, a host, and what else a URL has
    #[arg(value_parser = place::url)]
    url: place::Place,
    /// The statuses that are healthy: codes and ranges, such as 200,300-399
    #[arg(value_name = "STATUS", value_delimiter = ',', required = true, value_parser = place::status)]
    statuses: Vec<StatusRange>,
    /// A header to send, `Name: value` (may be repeated)
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = place::header)]
    headers: Vec<(String, String)>,
    #[command(flatten)]
    trust: TlsArgs,
    /// The HTTP that is spoken; auto is what the TLS handshake agrees on, and 2 without TLS is h2c by prior knowledge
    #[arg(long, value_enum, default_value_t)]
    http_version: Version,
    /// Follow at most three redirects that stay on the host
    #[arg(long)]
    follow_redirects: bool,
    #[command(flatten)]
    common: Common,
}

/// Which HTTP is spoken.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default)]
enum Version {
    #[default]
    Auto,
    #[value(name = "1.1")]
    Http11,
    #[value(name = "2")]
    Http2,
}

impl From<Version> for HttpVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::Auto => Self::Auto,
            Version::Http11 => Self::Http11,
            Version::Http2 => Self::Http2,
        }
    }
}

#[derive(Args, Debug)]
struct GrpcArgs {
    /// Where to connect: name:port, 10.0.0.1:50051 or [::1]:50051
    #[arg(value_name = "HOST:PORT", value_parser = place::host_and_port)]
    place: Dial,
    /// The service to ask for; without it the server as a whole
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Make a TLS handshake first; so do the flags about certificates
    #[arg(long)]
    tls: bool,
    #[command(flatten)]
    trust: TlsArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct ScriptArgs {
    #[command(flatten)]
    common: Common,
    /// The program and its arguments, after `--`
    #[arg(value_name = "CMD", required = true, last = true)]
    command: Vec<String>,
}

/// Makes the one attempt and prints how it ended.
///
/// # Errors
/// A file that a flag names cannot be read, or the runtime cannot start.
pub fn run(args: &ProbeArgs) -> anyhow::Result<Exit> {
    let Some(what) = &args.what else {
        return files::run(&args.files);
    };
    let (job, common) = match what {
        What::Tcp(args) => (tcp(args), &args.common),
        What::Http(args) => (http(args)?, &args.common),
        What::Grpc(args) => (grpc(args)?, &args.common),
        What::Script(args) => (script(args), &args.common),
    };
    anyhow::ensure!(common.timeout.as_millis() > 0, "--timeout must be longer than nothing, such as 2s");
    let probe = Probe { timeout: common.timeout.to_std(), kind: job.kind };
    let attempt = Attempt {
        check: ObjectKey::new("cli", "probe"),
        target: "probe".into(),
        dial: job.dial,
        probe: Arc::new(probe),
        known: vec![],
        kept: None,
    };
    let probing = Probing::start(job.files)?;
    let report = probing.runtime.block_on(probing.prober.attempt(attempt));
    probing.end();
    print(&describe(&report, &job.about, common.output)?)?;
    Ok(Exit::told(healthy(&report.outcome)))
}

/// What probes are made with.
struct Probing {
    runtime: Runtime,
    prober: Arc<Prober>,
}

impl Probing {
    fn start(files: Files) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let prober = Prober::new(Settings { references: Arc::new(files), ..Settings::standalone() });
        Ok(Self { runtime, prober: Arc::new(prober) })
    }

    /// What a script left to the runtime to reap must not keep the answer waiting.
    fn end(self) {
        self.runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

/// One probe, ready to be made.
struct Job {
    /// What a message that does not say so itself is about.
    about: String,
    dial: Option<Dial>,
    kind: ProbeKind,
    files: Files,
}

fn tcp(args: &TcpArgs) -> Job {
    let handshake = if args.full { Handshake::Full } else { Handshake::HalfOpen };
    Job {
        about: format!("dial tcp {}", place::shown(&args.place)),
        dial: Some(args.place.clone()),
        kind: ProbeKind::Tcp(TcpProbe { handshake, ..TcpProbe::default() }),
        files: Files::default(),
    }
}

fn grpc(args: &GrpcArgs) -> anyhow::Result<Job> {
    let mut files = Files::default();
    let tls = args.trust.read(&mut files)?;
    let tls = (args.tls || args.trust.given().is_some()).then_some(tls);
    Ok(Job {
        about: format!("grpc {}", place::shown(&args.place)),
        dial: Some(args.place.clone()),
        kind: ProbeKind::Grpc(GrpcProbe { service: args.service.as_str().into(), tls, ..GrpcProbe::default() }),
        files,
    })
}

fn http(args: &HttpArgs) -> anyhow::Result<Job> {
    let mut files = Files::default();
    let unused = args.trust.given().filter(|flag| *flag != "--insecure" && args.url.scheme != Scheme::Https);
    anyhow::ensure!(unused.is_none(), "{} is only used with an https:// URL", unused.unwrap_or_default());
    let tls = args.trust.read(&mut files)?;
    let headers = args.headers.iter().map(|(name, value)| HttpHeader {
        name: name.as_str().into(),
        source: HeaderSource::Value(value.as_str().into()),
        append: true,
    });
    let probe = HttpProbe {
        scheme: args.url.scheme,
        path: args.url.target.as_str().into(),
        method: args.method.clone(),
        headers: headers.collect(),
        expected_statuses: args.statuses.clone(),
        redirects: if args.follow_redirects { Redirects::SameHost } else { Redirects::None },
        version: args.http_version.into(),
        tls,
        ..HttpProbe::default()
    };
    Ok(Job {
        about: format!("{} {}", args.method, args.url.shown),
        dial: Some(args.url.dial.clone()),
        kind: ProbeKind::Http(probe),
        files,
    })
}

fn script(args: &ScriptArgs) -> Job {
    let command = args.command.iter().map(|part| part.as_str().into()).collect();
    Job {
        about: String::new(),
        dial: None,
        kind: ProbeKind::Script(ScriptProbe { command, source: None, env: vec![] }),
        files: Files::default(),
    }
}

fn describe(report: &Report, about: &str, output: Output) -> anyhow::Result<String> {
    let why = why(&report.outcome, about);
    Ok(match output {
        Output::Text => format!("{}\n", found(healthy(&report.outcome), &why)),
        Output::Json => format!("{}\n", document(report, &why)),
        Output::Yaml => serde_saphyr::to_string(&document(report, &why))?,
    })
}

/// `None`: it could not be told.
const fn healthy(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Success => Some(true),
        Outcome::Failure { .. } => Some(false),
        Outcome::Neutral { .. } | Outcome::Local { .. } => None,
    }
}

/// As the admin listener answers: `healthy` and `error` are always there.
fn document(report: &Report, why: &str) -> serde_json::Value {
    let certificate = report.certificate_expires.and_then(|at| jiff::Timestamp::from_second(at).ok());
    serde_json::json!({
        "healthy": healthy(&report.outcome),
        "error": why,
        "outcome": report.outcome.as_str(),
        "reason": report.outcome.reason().map(Reason::as_str),
        "latencySeconds": report.latency.as_secs_f64(),
        "certificateExpires": certificate.map(|at| at.to_string()),
    })
}

/// The message; what was asked stands in front where no answer came that would say it.
fn why(outcome: &Outcome, about: &str) -> String {
    let answered = outcome.reason().is_some_and(|reason| reason.class() == Some(crate::check::Class::Http));
    match outcome.message() {
        message if about.is_empty() || message.is_empty() || answered => message.to_owned(),
        message => format!("{about}: {message}"),
    }
}

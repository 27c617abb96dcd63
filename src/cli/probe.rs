//! `healthcheck-operator probe`: one probe, now, from here.

mod place;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::future::BoxFuture;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{Exit, output::Output, print::print};
use crate::{
    api,
    check::{
        Attempt, Dial, GrpcProbe, Handshake, HeaderSource, HttpHeader, HttpProbe, ObjectKey, Outcome, Probe, ProbeKind,
        Reason, Redirects, Reference, ReferenceKind, Report, Scheme, ScriptProbe, StatusRange, TcpProbe, Tls, TlsMode,
    },
    probe::{Lane as _, Prober, ReferenceResult, References, Settings},
};

/// Probe something once, from here: prints `healthy`, or `unhealthy; <why>`, or `unknown; <why>`
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 healthy, 1 unhealthy, 2 usage, 3 could not tell.")]
pub struct ProbeArgs {
    #[command(subcommand)]
    what: What,
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
    method: Arc<str>,
    /// http:// or https://, a host, and what else a URL has
    #[arg(value_parser = place::url)]
    url: place::Place,
    /// The statuses that are healthy: codes and ranges, such as 200,300-399
    #[arg(value_name = "STATUS", value_delimiter = ',', required = true, value_parser = place::status)]
    statuses: Vec<StatusRange>,
    /// A header to send, `Name: value` (may be repeated)
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = place::header)]
    headers: Vec<(String, String)>,
    /// Take any certificate
    #[arg(long, conflicts_with = "ca_file")]
    insecure: bool,
    /// Certificates in PEM to trust instead of this machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
    /// Follow at most three redirects that stay on the host
    #[arg(long)]
    follow_redirects: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
struct GrpcArgs {
    /// Where to connect: name:port, 10.0.0.1:50051 or [::1]:50051
    #[arg(value_name = "HOST:PORT", value_parser = place::host_and_port)]
    place: Dial,
    /// The service to ask for; without it the server as a whole
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Make a TLS handshake first
    #[arg(long)]
    tls: bool,
    /// Make a TLS handshake first, and take any certificate
    #[arg(long, conflicts_with = "ca_file")]
    insecure: bool,
    /// Make a TLS handshake first, and trust these certificates in PEM instead of this machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<std::path::PathBuf>,
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
    let (job, common) = match &args.what {
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
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let prober = Prober::new(Settings { references: Arc::new(job.files), ..Settings::standalone() });
    let report = runtime.block_on(prober.attempt(attempt));
    // What a script left to the runtime to reap must not keep the answer waiting.
    runtime.shutdown_timeout(Duration::from_millis(100));
    print(&describe(&report, &job.about, common.output)?)?;
    Ok(match report.outcome {
        Outcome::Success => Exit::Ok,
        Outcome::Failure { .. } => Exit::Unhealthy,
        Outcome::Neutral { .. } | Outcome::Local { .. } => Exit::Unknown,
    })
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

/// The authorities of a `--ca-file`, and how a probe refers to them.
fn authorities(path: Option<&std::path::Path>, files: &mut Files) -> anyhow::Result<Option<Reference>> {
    let Some(path) = path else { return Ok(None) };
    let pem = std::fs::read(path).with_context(|| format!("--ca-file {}", path.display()))?;
    let readable = CertificateDer::pem_slice_iter(&pem).next().is_some_and(|first| first.is_ok());
    anyhow::ensure!(readable, "--ca-file {}: holds no certificate in PEM", path.display());
    files.ca = pem.into();
    let key = path.display().to_string().into();
    Ok(Some(Reference { kind: ReferenceKind::ConfigMap, name: "--ca-file".into(), key }))
}

fn grpc(args: &GrpcArgs) -> anyhow::Result<Job> {
    let mut files = Files::default();
    let ca = authorities(args.ca_file.as_deref(), &mut files)?;
    let mode = if args.insecure { TlsMode::SkipVerify } else { TlsMode::Verify };
    let encrypted = args.tls || args.insecure || ca.is_some();
    let tls = encrypted.then_some(Tls { mode, server_name: None, ca });
    Ok(Job {
        about: format!("grpc {}", place::shown(&args.place)),
        dial: Some(args.place.clone()),
        kind: ProbeKind::Grpc(GrpcProbe { service: args.service.as_str().into(), tls, ..GrpcProbe::default() }),
        files,
    })
}

fn http(args: &HttpArgs) -> anyhow::Result<Job> {
    let mut files = Files::default();
    let unused = args.ca_file.is_some() && args.url.scheme != Scheme::Https;
    anyhow::ensure!(!unused, "--ca-file is only used with an https:// URL");
    let ca = authorities(args.ca_file.as_deref(), &mut files)?;
    let mode = if args.insecure { TlsMode::SkipVerify } else { TlsMode::Verify };
    let headers = args.headers.iter().map(|(name, value)| HttpHeader {
        name: name.as_str().into(),
        source: HeaderSource::Value(value.as_str().into()),
        append: true,
    });
    let probe = HttpProbe {
        scheme: args.url.scheme,
        path: args.url.target.as_str().into(),
        method: Arc::clone(&args.method),
        headers: headers.collect(),
        expected_statuses: args.statuses.clone(),
        redirects: if args.follow_redirects { Redirects::SameHost } else { Redirects::None },
        tls: Tls { mode, server_name: None, ca },
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

/// The files that flags name, where a check would refer to a ConfigMap.
#[derive(Default)]
struct Files {
    ca: Bytes,
}

impl References for Files {
    fn get<'a>(&'a self, _namespace: &'a str, _reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        Box::pin(std::future::ready(Ok(self.ca.clone())))
    }
}

fn describe(report: &Report, about: &str, output: Output) -> anyhow::Result<String> {
    let why = why(&report.outcome, about);
    Ok(match output {
        Output::Text => match &report.outcome {
            Outcome::Success => "healthy\n".to_owned(),
            Outcome::Failure { .. } => format!("unhealthy; {why}\n"),
            Outcome::Neutral { .. } | Outcome::Local { .. } => format!("unknown; {why}\n"),
        },
        Output::Json => format!("{}\n", document(report, &why)),
        Output::Yaml => serde_saphyr::to_string(&document(report, &why))?,
    })
}

/// As the admin listener answers: `healthy` and `error` are always there.
fn document(report: &Report, why: &str) -> serde_json::Value {
    let healthy = match &report.outcome {
        Outcome::Success => Some(true),
        Outcome::Failure { .. } => Some(false),
        Outcome::Neutral { .. } | Outcome::Local { .. } => None,
    };
    let certificate = report.certificate_expires.and_then(|at| jiff::Timestamp::from_second(at).ok());
    serde_json::json!({
        "healthy": healthy,
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

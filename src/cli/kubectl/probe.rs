//! `kubectl healthcheck probe`: the operator probes now, from where it is.

use std::{io::Read as _, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::Body,
    config::{AuthInfo, Config},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ClusterArgs, forward::Forward, found::Cluster};
use crate::{
    cli::{
        Exit,
        exit::Failed,
        output::Output,
        print::{found, print},
    },
    cluster::{CallError, client},
    telemetry::Metrics,
};

/// The longest answer that is read, in bytes: 64 targets of 100 endpoints, each with an error.
const MAX_ANSWER: usize = 8 << 20;

#[derive(Args, Debug)]
#[command(after_help = "\
The operator reviews your token, as the API server would: you must be allowed to create healthchecks/probe. A kubeconfig with \
client certificates has no token to show; use --token-file, as in
  kubectl create token NAME | kubectl healthcheck probe web --token-file -")]
pub struct ProbeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The HealthCheck to probe
    #[arg(value_name = "NAME")]
    name: String,
    /// Only this target of it
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Where the operator's admin listener is [default: its Service, by `kubectl port-forward`]
    #[arg(long, value_name = "URL")]
    admin_url: Option<http::Uri>,
    /// Certificate authority of the admin listener, in PEM, where it speaks TLS
    #[arg(long, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// Namespace of the operator [default: looked for in all]
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "admin_url")]
    operator_namespace: Option<String>,
    /// A bearer token for the operator, `-` for standard input [default: that of the kubeconfig]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// What is read of an answer; the operator may be a newer one.
#[derive(Deserialize)]
struct Answer {
    healthy: Option<bool>,
    error: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    target: String,
    endpoint: String,
    healthy: Option<bool>,
    error: String,
}

pub async fn run(args: ProbeArgs) -> anyhow::Result<Exit> {
    let token = args.token_file.as_deref().map(read_token).transpose()?;
    let mut cluster = Cluster::open(&args.cluster).await?;
    // A forwarded port stays open as long as this is held.
    let (url, forward) = match &args.admin_url {
        Some(url) => (url.clone(), None),
        None => {
            let namespace = args.operator_namespace.as_deref();
            let forward = Forward::open(&cluster, &args.cluster.connection, namespace).await?;
            (forward.url(args.admin_ca.is_some())?, Some(forward))
        }
    };
    let config = &mut cluster.config;
    config.proxy_url = None;
    config.root_cert = None;
    config.auth_info = auth(std::mem::take(&mut config.auth_info), token);
    if let Some(path) = &args.admin_ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read --admin-ca '{}'", path.display()))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.ok().filter(|found| !found.is_empty());
        let certificates =
            certificates.with_context(|| format!("--admin-ca '{}' holds no certificate in PEM", path.display()))?;
        config.root_cert = Some(certificates.iter().map(|certificate| certificate.to_vec()).collect());
        config.tls_server_name = forward.as_ref().map(|forward| forward.server_name.clone());
    }
    config.cluster_url = url;
    let path = format!("/v1/healthchecks/{}/{}/probe", cluster.namespace, args.name);
    let (status, body) = post(config, &path, &json!({"target": args.target})).await?;
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|_| json!({"error": body.trim()}));
    if status != StatusCode::OK {
        return Err(refused(status, answer["error"].as_str().unwrap_or_default()));
    }
    let read: Answer = serde_json::from_value(answer.clone()).context("the operator's answer cannot be read")?;
    print(&match args.output {
        Output::Json => format!("{answer:#}\n"),
        Output::Yaml => serde_saphyr::to_string(&answer)?,
        Output::Text => text(&read),
    })?;
    Ok(Exit::told(read.healthy))
}

fn read_token(path: &std::path::Path) -> anyhow::Result<String> {
    let text = match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
    };
    let text = text.with_context(|| format!("cannot read --token-file '{}'", path.display()))?;
    let token = text.trim();
    anyhow::ensure!(!token.is_empty(), "--token-file '{}' is empty", path.display());
    Ok(token.to_owned())
}

/// Only what goes into a bearer token: the certificates are for the API server.
fn auth(own: AuthInfo, token: Option<String>) -> AuthInfo {
    match token {
        Some(token) => serde_json::from_value(json!({"token": token})).unwrap_or_default(),
        None => AuthInfo {
            token: own.token,
            token_file: own.token_file,
            auth_provider: own.auth_provider,
            exec: own.exec,
            ..AuthInfo::default()
        },
    }
}

async fn post(config: &Config, path: &str, question: &Value) -> anyhow::Result<(StatusCode, String)> {
    let client: Client = client(config, &Metrics::default())?;
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(question.to_string().into_bytes()))?;
    let asked = async {
        let response = client.send(request).await.map_err(|error| anyhow!("{}", CallError::from(error)))?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow!("{error}"))?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    asked.await.with_context(|| format!("cannot ask the operator at {}", config.cluster_url)).map_err(Failed::wrap)
}

fn refused(status: StatusCode, why: &str) -> anyhow::Error {
    match status {
        StatusCode::UNAUTHORIZED => {
            anyhow!("{why}; your kubeconfig shows no token that the operator could review: see --token-file")
        }
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => anyhow!("{why}"),
        _ => Failed::wrap(anyhow!("the operator answered {status}: {why}")),
    }
}

fn text(answer: &Answer) -> String {
    if answer.endpoints.is_empty() {
        return format!("{}\n", found(answer.healthy, &answer.error));
    }
    let line = |each: &Endpoint| {
        let place = if each.endpoint.is_empty() { String::new() } else { format!(" {}", each.endpoint) };
        format!("{}{place}: {}\n", each.target, found(each.healthy, &each.error))
    };
    answer.endpoints.iter().map(line).collect()
}

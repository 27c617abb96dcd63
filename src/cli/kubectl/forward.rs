//! A way to the operator's admin listener, by `kubectl port-forward`: kubectl is there, as it started us.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt as _, api::ListParams};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
};

use super::found::{Cluster, refused};
use crate::{
    cli::{controller::ConnectionArgs, exit::Failed},
    cluster::{CallError, call},
};

/// What the chart's objects have in common, whatever the release is called.
const OURS: &str = "app.kubernetes.io/part-of=healthcheck-operator";
const OPEN_WITHIN: Duration = Duration::from_secs(15);

/// Open as long as it lives.
pub struct Forward {
    /// What the listener's certificate would say.
    pub server_name: String,
    port: u16,
    _kubectl: Child,
}

impl Forward {
    /// Finds the operator's Service and opens a port of this machine that leads there.
    ///
    /// # Errors
    /// When there is none, or more than one, or kubectl cannot forward to it.
    pub async fn open(cluster: &Cluster, args: &ConnectionArgs, namespace: Option<&str>) -> anyhow::Result<Self> {
        let (namespace, service, port) = find(cluster, namespace).await?;
        let mut command = Command::new("kubectl");
        let connection = args.connection();
        if let Some(kubeconfig) = &connection.kubeconfig {
            command.arg("--kubeconfig").arg(kubeconfig);
        }
        if let Some(context) = &connection.context {
            command.arg("--context").arg(context);
        }
        command.args(["port-forward", "--address", "127.0.0.1", "--namespace", &namespace]);
        command.arg(format!("service/{service}")).arg(format!(":{port}"));
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut kubectl = child.context("cannot run kubectl; give the admin listener with --admin-url")?;
        let opened = tokio::time::timeout(OPEN_WITHIN, opened(&mut kubectl)).await;
        let port = opened
            .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", OPEN_WITHIN.as_secs())))
            .with_context(|| format!("cannot forward a port to service {namespace}/{service}"))
            .map_err(Failed::wrap)?;
        Ok(Self { server_name: format!("{service}.{namespace}.svc"), port, _kubectl: kubectl })
    }

    pub fn url(&self, tls: bool) -> anyhow::Result<Uri> {
        let scheme = if tls { "https" } else { "http" };
        Ok(format!("{scheme}://127.0.0.1:{}", self.port).parse()?)
    }
}

/// Namespace, name and port of the Service with the admin listener.
async fn find(cluster: &Cluster, namespace: Option<&str>) -> anyhow::Result<(String, String, i32)> {
    let api: Api<Service> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let services = match call(api.list(&ListParams::default().labels(OURS))).await {
        Ok(services) => services.items,
        Err(CallError::Forbidden(why)) => {
            return Err(anyhow!("{why}"))
                .context("cannot look for the operator; name its --operator-namespace, or its --admin-url");
        }
        Err(error) => return Err(refused(&error)),
    };
    let admin = |service: &Service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let port = ports.into_iter().flatten().find(|port| port.name.as_deref() == Some("admin"))?;
        Some((service.namespace().unwrap_or_default(), service.name_any(), port.port))
    };
    let mut found: Vec<_> = services.iter().filter_map(admin).collect();
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (Some(one), _) => {
            let names: Vec<_> =
                found.iter().chain([&one]).map(|(namespace, name, _)| format!("{namespace}/{name}")).collect();
            bail!(
                "there are several operators ({}); name one's --operator-namespace, or its --admin-url",
                names.join(", ")
            )
        }
        (None, _) => bail!(
            "no Service of an operator was found (label {OURS}); name its --operator-namespace, or its --admin-url"
        ),
    }
}

/// The port, once kubectl tells of it.
async fn opened(kubectl: &mut Child) -> anyhow::Result<u16> {
    let mut lines = BufReader::new(kubectl.stdout.take().context("no standard output")?).lines();
    while let Some(line) = lines.next_line().await? {
        // `Forwarding from 127.0.0.1:41231 -> 8081`
        let port =
            line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let Some(port) = port {
            // Whoever nobody listens to may stop.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(port);
        }
    }
    let mut why = String::new();
    kubectl.stderr.take().context("no standard error")?.read_to_string(&mut why).await?;
    Err(anyhow!("kubectl said: {}", why.trim()))
}

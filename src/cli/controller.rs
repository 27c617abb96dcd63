//! `controller`: the operator in a cluster.

use std::{env, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use kube::config::{InClusterError, KubeconfigError};
use tokio_util::sync::CancellationToken;

use super::{EngineArgs, Exit, exit::Failed, signals};
use crate::{
    api,
    cluster::{self, Connection, Features, Identity, Options, Selection},
    probe::{
        ScriptBackend,
        runner::{PemFiles, Place, Remote},
    },
    server::{AdminDefault, ServerArgs, ServerError},
};

/// A lease shorter than this is lost by an ordinary pause of the API server.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
/// Longer ones only make a takeover late.
const LONGEST_LEASE: Duration = Duration::from_secs(600);

/// Run the operator: watch HealthChecks in a cluster, probe, and write what was found
#[derive(Args, Debug)]
pub struct ControllerArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Namespace whose HealthChecks are watched (may be given many times) [default: all]
    #[arg(
        long, value_name = "NAMESPACE", value_delimiter = ',', value_parser = parse_name,
        env = "HEALTHCHECK_OPERATOR_WATCH_NAMESPACE"
    )]
    watch_namespace: Vec<String>,
    /// Watch only HealthChecks with these labels, as in team=shop,tier!=test
    #[arg(
        long, value_name = "SELECTOR", value_parser = parse_selector,
        env = "HEALTHCHECK_OPERATOR_LABEL_SELECTOR"
    )]
    label_selector: Option<String>,
    /// Run script probes, by the runner behind --runner-socket or --runner-address
    #[arg(long, env = "HEALTHCHECK_OPERATOR_ALLOW_SCRIPTS")]
    allow_scripts: bool,
    /// Socket of the runner
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/healthcheck-operator/runner.sock",
        env = "HEALTHCHECK_OPERATOR_RUNNER_SOCKET"
    )]
    runner_socket: PathBuf,
    /// Where a runner in another pod listens, instead of --runner-socket: the name its certificate bears, and a port
    #[arg(
        long, value_name = "HOST:PORT", requires_all = ["runner_ca", "runner_cert", "runner_key"],
        env = "HEALTHCHECK_OPERATOR_RUNNER_ADDRESS"
    )]
    runner_address: Option<Place>,
    /// Certificate authorities of that runner, in PEM; read again when they change, as are the two below
    #[arg(long, value_name = "FILE", requires = "runner_address", env = "HEALTHCHECK_OPERATOR_RUNNER_CA")]
    runner_ca: Option<PathBuf>,
    /// Certificate to show to that runner, in PEM
    #[arg(long, value_name = "FILE", requires = "runner_address", env = "HEALTHCHECK_OPERATOR_RUNNER_CERT")]
    runner_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "runner_address", env = "HEALTHCHECK_OPERATOR_RUNNER_KEY")]
    runner_key: Option<PathBuf>,
    /// Range that probes may dial although it is denied in a cluster, like 127.0.0.0/8 (may be given many times)
    #[arg(long, value_name = "CIDR", value_delimiter = ',', env = "HEALTHCHECK_OPERATOR_EGRESS_ALLOW")]
    egress_allow: Vec<IpNet>,
    /// How often a status is confirmed though nothing changed, 10s to 24h; longer by itself where there are many
    #[arg(
        long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration,
        env = "HEALTHCHECK_OPERATOR_STATUS_REFRESH"
    )]
    status_refresh: Duration,
    /// How long a replica that no longer renews its lease stays the active one, 3s to 10m
    #[arg(
        long, value_name = "DURATION", default_value = "15s", value_parser = parse_duration,
        env = "HEALTHCHECK_OPERATOR_LEASE_DURATION"
    )]
    lease_duration: Duration,
    /// How often the active replica renews its lease; at most four fifths of --lease-duration
    #[arg(
        long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration,
        env = "HEALTHCHECK_OPERATOR_LEASE_RENEW"
    )]
    lease_renew: Duration,
    /// Name of the lease, in the operator's own namespace (POD_NAMESPACE)
    #[arg(
        long, value_name = "NAME", default_value = "healthcheck-operator", value_parser = parse_name,
        env = "HEALTHCHECK_OPERATOR_LEASE_NAME"
    )]
    lease_name: String,
    /// Write no annotations on EndpointSlices
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_ANNOTATIONS")]
    disable_annotations: bool,
    /// Write no EndpointSlices: endpointSlice gates do nothing, and say so
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_ENDPOINT_SLICES")]
    disable_endpoint_slices: bool,
    /// Set no conditions on pods: podReadiness gates do nothing, and say so
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_POD_READINESS")]
    disable_pod_readiness: bool,
    /// Write no events
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_EVENTS")]
    disable_events: bool,
    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Which cluster, and as whom.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectionArgs {
    /// Kubeconfig file [default: $KUBECONFIG, the pod's service account, ~/.kube/config, in this order]
    #[arg(long, value_name = "FILE", env = "HEALTHCHECK_OPERATOR_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", env = "HEALTHCHECK_OPERATOR_CONTEXT")]
    context: Option<String>,
}

impl ConnectionArgs {
    /// The connection these flags name.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

impl ControllerArgs {
    /// What the flags ask for, checked against each other.
    fn options(&self) -> anyhow::Result<Options> {
        let lease = SHORTEST_LEASE..=LONGEST_LEASE;
        anyhow::ensure!(lease.contains(&self.lease_duration), "--lease-duration must be between 3s and 10m");
        anyhow::ensure!(
            self.lease_renew >= Duration::from_millis(500) && self.lease_renew * 5 <= self.lease_duration * 4,
            "--lease-renew must be at least 500ms and at most four fifths of --lease-duration, so that a renewal may fail once"
        );
        let refresh = Duration::from_secs(10)..=Duration::from_secs(24 * 3600);
        anyhow::ensure!(refresh.contains(&self.status_refresh), "--status-refresh must be between 10s and 24h");
        Ok(Options {
            connection: self.connection.connection(),
            identity: identity(&self.lease_name),
            selection: Selection { namespaces: self.namespaces(), labels: self.label_selector.clone() },
            refresh: self.status_refresh,
            lease_name: self.lease_name.clone(),
            lease_duration: self.lease_duration,
            lease_renew: self.lease_renew,
            scripts: self.scripts()?,
            egress_allow: self.egress_allow.clone(),
            annotations: !self.disable_annotations,
            gates: Features {
                endpoint_slices: !self.disable_endpoint_slices,
                pod_readiness: !self.disable_pod_readiness,
            },
            events: !self.disable_events,
            server: self.servers.config(AdminDefault::Everywhere).map_err(anyhow::Error::msg)?,
            limits: self.engine.limits(),
            kept_connections: EngineArgs::kept_connections(),
            fast_lane: self.engine.fast_lane(),
        })
    }

    /// Who runs scripts.
    fn scripts(&self) -> anyhow::Result<ScriptBackend> {
        if !self.allow_scripts {
            return Ok(ScriptBackend::Disabled);
        }
        let files = self.runner_ca.clone().zip(self.runner_cert.clone()).zip(self.runner_key.clone());
        let Some((place, ((authorities, certificate), key))) = self.runner_address.clone().zip(files) else {
            return Ok(ScriptBackend::Runner { socket: self.runner_socket.clone() });
        };
        let remote = Remote::new(place, PemFiles { authorities, certificate, key }).context("--runner-address")?;
        Ok(ScriptBackend::Remote(Arc::new(remote)))
    }

    fn namespaces(&self) -> Vec<String> {
        let mut namespaces = self.watch_namespace.clone();
        namespaces.sort();
        namespaces.dedup();
        namespaces
    }
}

/// Names from the chart's environment; outside a cluster the host's name.
fn identity(lease_name: &str) -> Identity {
    let of = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let pod = of("POD_NAME");
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    Identity {
        prober: pod.clone().unwrap_or_else(host),
        pod,
        namespace: of("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
        secret_reader: format!("{lease_name}-secret-reader"),
    }
}

/// Runs the operator until it is told to stop.
///
/// # Errors
/// What is wrong with a flag, a listener's address or the kubeconfig, in one line each; and what the cluster refused, or
/// broke down here, which is exit code 3.
pub async fn run(args: ControllerArgs) -> anyhow::Result<Exit> {
    let options = args.options()?;
    let stop = CancellationToken::new();
    let asked = signals::stop()?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        asked.await;
        tracing::info!("stopping");
        stopping.cancel();
    });
    match cluster::run(options, stop).await {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if is_usage(&error) => Err(error),
        Err(error) => Err(Failed::wrap(error)),
    }
}

/// Whether it is the kubeconfig or an address to listen on that is wrong; everything else came from the cluster, or is
/// a bug.
fn is_usage(error: &anyhow::Error) -> bool {
    // `kube::Error`: of a client that could not be built; calls have an error of our own.
    error.is::<ServerError>()
        || error.is::<KubeconfigError>()
        || error.is::<InClusterError>()
        || error.is::<kube::Error>()
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<api::Duration>().map(api::Duration::to_std).map_err(|error| error.to_string())
}

/// A name as Kubernetes has it (RFC 1123 label or subdomain).
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    if bytes.len() <= 253
        && bytes.iter().copied().all(plain)
        && edge(bytes.first().copied())
        && edge(bytes.last().copied())
    {
        return Ok(text.to_owned());
    }
    Err("want a name of lower-case letters, digits, '-' and '.', that begins and ends with a letter or digit"
        .to_owned())
}

fn parse_selector(text: &str) -> Result<String, String> {
    text.parse::<crate::check::PodSelector>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        controller: ControllerArgs,
    }

    fn options(flags: &[&str]) -> Result<Options, String> {
        let cli = Cli::try_parse_from([&["test"], flags].concat()).map_err(|error| error.to_string())?;
        cli.controller.options().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn without_flags_the_documented_defaults_hold() {
        let options = options(&[]).expect("defaults are valid");
        assert_eq!(options.refresh, Duration::from_secs(300));
        assert_eq!((options.lease_duration, options.lease_renew), (Duration::from_secs(15), Duration::from_secs(10)));
        assert_eq!(options.lease_name, "healthcheck-operator");
        assert!(matches!(options.scripts, ScriptBackend::Disabled) && options.annotations && options.events);
        assert!(options.gates.endpoint_slices && options.gates.pod_readiness);
        assert!(options.selection.namespaces.is_empty() && options.selection.labels.is_none());
    }

    #[test]
    fn a_wrong_flag_is_refused_with_its_name_and_the_mend() {
        for (flags, part) in [
            (["--lease-duration", "2s"].as_slice(), "between 3s and 10m"),
            (&["--lease-duration", "10s"], "four fifths"),
            (&["--lease-renew", "13s"], "four fifths"),
            (&["--lease-renew", "10"], "not a duration"),
            (&["--status-refresh", "9s"], "between 10s and 24h"),
            (&["--egress-allow", "loopback"], "--egress-allow"),
            (&["--watch-namespace", "Shop"], "lower-case"),
            (&["--watch-namespace", ""], "lower-case"),
            (&["--label-selector", "a in (b"], "--label-selector"),
            (&["--runner-address", "runner"], "HOST:PORT"),
            (&["--runner-address", "runner:8443", "--runner-ca", "ca", "--runner-cert", "cert"], "--runner-key"),
            (&["--runner-ca", "ca"], "--runner-address"),
            (
                &[
                    "--allow-scripts",
                    "--runner-address",
                    "runner:8443",
                    "--runner-ca",
                    "/no/ca",
                    "--runner-cert",
                    "/no/cert",
                    "--runner-key",
                    "/no/key",
                ],
                "/no/ca",
            ),
        ] {
            let error = options(flags).expect_err(part);
            assert!(error.contains(part), "{flags:?}: {error}");
        }
    }

    #[test]
    fn near_misses_are_accepted() {
        let options = options(&[
            "--lease-duration",
            "3s",
            "--lease-renew",
            "2400ms",
            "--status-refresh",
            "10s",
            "--watch-namespace",
            "b,a,b",
            "--label-selector",
            "a in (b),!c",
            "--egress-allow",
            "127.0.0.0/8,::1/128",
            "--allow-scripts",
        ])
        .expect("all is valid");
        assert_eq!(options.selection.namespaces, ["a", "b"]);
        assert_eq!(options.egress_allow.len(), 2);
        assert!(matches!(options.scripts, ScriptBackend::Runner { .. }));
    }
}

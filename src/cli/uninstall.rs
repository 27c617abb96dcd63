//! `uninstall`: lets go of whatever gates hold, before the operator goes.

use std::{env, time::Duration};

use clap::Args;

use super::{Exit, controller, print::print, print::told};
use crate::{
    cluster::{Features, Release, Report, Selection, client, release},
    telemetry::Metrics,
};

/// Let go of whatever gates hold, before the operator is taken away
///
/// No gate acts from then on, until the release is installed anew or upgraded. HealthChecks and EndpointSlices stay, with
/// every endpoint published as ready; conditions on pods become True.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 whatever was reached (what was not is said), 2 a flag is wrong.")]
pub struct UninstallArgs {
    #[command(flatten)]
    connection: controller::ConnectionArgs,
    /// Namespace whose HealthChecks were watched (may be given many times) [default: all]
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', env = "HEALTHCHECK_OPERATOR_WATCH_NAMESPACE")]
    watch_namespace: Vec<String>,
    /// Which HealthChecks were watched, by their labels, such as team=web [default: all]
    #[arg(long, value_name = "SELECTOR", env = "HEALTHCHECK_OPERATOR_LABEL_SELECTOR")]
    label_selector: Option<String>,
    /// Name of the operator's lease, in its own namespace (POD_NAMESPACE)
    #[arg(long, value_name = "NAME", default_value = "healthcheck-operator", env = "HEALTHCHECK_OPERATOR_LEASE_NAME")]
    lease_name: String,
    /// The operator wrote no EndpointSlices
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_ENDPOINT_SLICES")]
    disable_endpoint_slices: bool,
    /// The operator set no conditions on pods
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_POD_READINESS")]
    disable_pod_readiness: bool,
    /// Take the lease from whoever holds it, so that the next installation need not wait for it; a replica that lives on
    /// stands by for as long as the lease would have lasted
    #[arg(long)]
    free_lease: bool,
    /// How long it may take, 1s to 10m
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = parse_within)]
    within: Duration,
}

/// Releases, and prints what was done and what was not. Whoever uninstalls goes on in any case: a hook that fails would
/// keep the release from being taken away.
///
/// # Errors
/// When standard output cannot be written.
pub async fn run(args: UninstallArgs) -> anyhow::Result<Exit> {
    let what = Release {
        namespace: env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned()),
        lease: args.lease_name,
        selection: Selection { namespaces: args.watch_namespace, labels: args.label_selector },
        features: Features {
            endpoint_slices: !args.disable_endpoint_slices,
            pod_readiness: !args.disable_pod_readiness,
        },
        within: args.within,
        free_lease: args.free_lease,
    };
    let client = match args.connection.connection().load().await {
        Ok(config) => client(&config, &Metrics::default()),
        Err(error) => Err(error),
    };
    match client {
        Ok(client) => print(&said(&what, &release(&client, &what).await))?,
        Err(error) => print(&format!("[-] not released: anything: {}\n", told(&error)))?,
    }
    Ok(Exit::Ok)
}

fn said(what: &Release, report: &Report) -> String {
    let mut lines = vec![];
    if report.marked {
        lines.push(format!("[+] release marker set on lease {}/{}", what.namespace, what.lease));
    }
    lines.push(format!("[+] EndpointSlices published as ready: {}", report.slices.len()));
    lines.extend(report.slices.iter().map(|slice| format!("    {slice}")));
    lines.push(format!("[+] pods released: {}", report.pods.len()));
    lines.extend(report.pods.iter().map(|pod| format!("    {pod}")));
    if !report.waiting.is_empty() {
        lines.push("[!] these make pods that wait for a condition that nobody sets any more; take readinessGates out of their templates:".to_owned());
        lines.extend(report.waiting.iter().map(|maker| format!("    {maker}")));
    }
    lines.push(format!("[+] statuses that say so: {}", report.told));
    if report.freed {
        lines.push(format!("[+] lease freed: {}/{}", what.namespace, what.lease));
    }
    lines.extend(report.left.iter().map(|left| format!("[-] not released: {left}")));
    lines.join("\n") + "\n"
}

fn parse_within(text: &str) -> Result<Duration, String> {
    let within = text.parse::<crate::api::Duration>().map_err(|error| error.to_string())?.to_std();
    let bounds = Duration::from_secs(1)..=Duration::from_secs(600);
    if bounds.contains(&within) { Ok(within) } else { Err("want 1s to 10m".to_owned()) }
}

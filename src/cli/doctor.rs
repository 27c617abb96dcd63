//! `doctor`: whether the operator can do its work in this cluster, one line for each thing it needs.

use std::{env, time::Duration};

use clap::Args;
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, api::PostParams};

use super::{
    Exit,
    controller::ConnectionArgs,
    print::{print, told},
};
use crate::{
    cluster::{CallError, call, client},
    telemetry::Metrics,
};

const CRD: &str = "healthchecks.healthcheck-operator.dev";
const READYZ_WITHIN: Duration = Duration::from_secs(10);

/// Check whether the operator can do its work in this cluster
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes: 0 all is well, 1 something is missing, 2 a flag or the kubeconfig is wrong, 3 the API server did not answer.")]
pub struct DoctorArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Namespace whose HealthChecks are to be watched (may be given many times) [default: all]
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',', env = "HEALTHCHECK_OPERATOR_WATCH_NAMESPACE")]
    watch_namespace: Vec<String>,
    /// The operator writes no annotations on EndpointSlices
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_ANNOTATIONS")]
    disable_annotations: bool,
    /// The operator writes no EndpointSlices
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_ENDPOINT_SLICES")]
    disable_endpoint_slices: bool,
    /// The operator sets no conditions on pods
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_POD_READINESS")]
    disable_pod_readiness: bool,
    /// The operator writes no events
    #[arg(long, env = "HEALTHCHECK_OPERATOR_DISABLE_EVENTS")]
    disable_events: bool,
    /// http:// address of the operator's admin listener; its /readyz is asked too
    #[arg(long, value_name = "URL", value_parser = parse_url, env = "HEALTHCHECK_OPERATOR_ADMIN_URL")]
    admin_url: Option<reqwest::Url>,
}

/// What was found, as it is found.
#[derive(Debug, Default)]
struct Findings {
    bad: bool,
}

impl Findings {
    fn note(&mut self, what: &str, found: Result<String, String>) -> anyhow::Result<()> {
        print(&match found {
            Ok(detail) if detail.is_empty() => format!("[+] {what}\n"),
            Ok(detail) => format!("[+] {what}: {detail}\n"),
            Err(why) => {
                self.bad = true;
                format!("[-] {what}: {why}\n")
            }
        })
    }
}

/// A permission: API group, resource with subresource, verbs, and whether only in the operator's own namespace.
type Need = (&'static str, &'static str, &'static [&'static str], bool);

const ALWAYS: [Need; 10] = [
    ("healthcheck-operator.dev", "healthchecks", &["get", "list", "watch"], false),
    ("healthcheck-operator.dev", "healthchecks/status", &["patch"], false),
    ("discovery.k8s.io", "endpointslices", &["list", "watch"], false),
    ("", "pods", &["list", "watch"], false),
    ("", "services", &["list", "watch"], false),
    ("", "configmaps", &["get"], false),
    ("", "nodes", &["list", "watch"], false),
    ("coordination.k8s.io", "leases", &["get", "create", "update"], true),
    ("authentication.k8s.io", "tokenreviews", &["create"], false),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"], false),
];
const ANNOTATIONS: Need = ("discovery.k8s.io", "endpointslices", &["patch"], false);
const ENDPOINT_SLICES: Need = ("discovery.k8s.io", "endpointslices", &["create", "patch", "delete"], false);
const POD_READINESS: Need = ("", "pods/status", &["patch"], false);
const EVENTS: Need = ("events.k8s.io", "events", &["create", "patch"], false);
/// What is not in a namespace, whatever is watched.
const CLUSTER_SCOPED: [&str; 3] = ["nodes", "tokenreviews", "subjectaccessreviews"];

/// Looks, prints, and says by the exit code whether all is well.
///
/// # Errors
/// When the kubeconfig cannot be used.
pub async fn run(args: DoctorArgs) -> anyhow::Result<Exit> {
    let config = args.connection.connection().load().await?;
    let client = client(&config, &Metrics::default())?;
    let mut findings = Findings::default();
    let version = call(client.apiserver_version()).await;
    let reached = version.is_ok();
    let silent = version.as_ref().is_err_and(CallError::is_outage);
    let version = version.map(|version| version.git_version).map_err(|error| error.to_string());
    findings.note(&format!("API server {}", config.cluster_url), version)?;
    if reached {
        findings.note("CRD", crd(&client).await)?;
        permissions(&client, &args, &mut findings).await?;
    }
    if let Some(url) = &args.admin_url {
        findings.note("operator", readyz(url).await)?;
    }
    Ok(match findings.bad {
        // What it would have said of the rest, nobody knows.
        _ if silent => Exit::Unknown,
        true => Exit::Unhealthy,
        false => Exit::Ok,
    })
}

/// Whoever may not read CRDs can still see whether this one is served.
async fn crd(client: &Client) -> Result<String, String> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    match call(api.get(CRD)).await {
        Ok(crd) => {
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions.iter().any(|each| each.type_ == "Established" && each.status == "True");
            if established { Ok(CRD.to_owned()) } else { Err(format!("{CRD} is not established yet")) }
        }
        Err(CallError::Forbidden(_)) => {
            let served = call(client.list_api_group_resources(crate::api::API_VERSION)).await;
            let served = served.map_err(|error| missing(&error))?;
            let there = served.resources.iter().any(|resource| resource.name == "healthchecks");
            if there { Ok(CRD.to_owned()) } else { Err(missing(&CallError::NotFound(String::new()))) }
        }
        Err(error) => Err(missing(&error)),
    }
}

fn missing(error: &CallError) -> String {
    match error {
        CallError::NotFound(_) => {
            format!("{CRD} is not installed; set crds.enabled, or: healthcheck-operator crds | kubectl apply -f -")
        }
        other => other.to_string(),
    }
}

async fn permissions(client: &Client, args: &DoctorArgs, findings: &mut Findings) -> anyhow::Result<()> {
    let own = env::var("POD_NAMESPACE").unwrap_or_else(|_| "default".to_owned());
    let mut needs = ALWAYS.to_vec();
    if !args.disable_annotations {
        needs.push(ANNOTATIONS);
    }
    if !args.disable_endpoint_slices {
        needs.push(ENDPOINT_SLICES);
    }
    if !args.disable_pod_readiness {
        needs.push(POD_READINESS);
    }
    if !args.disable_events {
        needs.push(EVENTS);
    }
    for (group, resource, verbs, only_own) in needs {
        let everywhere = args.watch_namespace.is_empty() || CLUSTER_SCOPED.contains(&resource);
        let namespaces: Vec<&str> = match (only_own, everywhere) {
            (true, _) => vec![&own],
            (false, true) => vec![""],
            (false, false) => args.watch_namespace.iter().map(String::as_str).collect(),
        };
        for namespace in namespaces {
            let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
            let mut refused = vec![];
            for verb in verbs {
                if let Err(why) = may(client, group, resource, verb, namespace).await {
                    refused.push(why);
                }
            }
            let what = format!("may {} {resource}{place}", verbs.join(", "));
            let found = if refused.is_empty() { Ok(String::new()) } else { Err(refused.join("; ")) };
            findings.note(&what, found)?;
        }
    }
    Ok(())
}

async fn may(client: &Client, group: &str, resource: &str, verb: &str, namespace: &str) -> Result<(), String> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: some(group),
                resource: some(resource),
                subresource: some(subresource),
                verb: some(verb),
                namespace: some(namespace),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = call(api.create(&PostParams::default(), &review)).await.map_err(|error| error.to_string())?;
    if review.status.is_some_and(|status| status.allowed) {
        return Ok(());
    }
    Err(format!("{verb} is not granted; set rbac.create, or grant it"))
}

/// Asks the operator itself. Its certificate is not judged: it need not bear the name of the Service.
async fn readyz(url: &reqwest::Url) -> Result<String, String> {
    let why = |error: reqwest::Error| told(&error.into());
    let ready = url.join("/readyz?verbose").map_err(|error| format!("--admin-url: {error}"))?;
    let client = reqwest::Client::builder().no_proxy().timeout(READYZ_WITHIN).danger_accept_invalid_certs(true).build();
    let answer = client.map_err(why)?.get(ready).send().await.map_err(why)?;
    let status = answer.status();
    if status.is_success() {
        return Ok("ready".to_owned());
    }
    let body = answer.text().await.map_err(why)?;
    let bad: Vec<_> = body.lines().filter(|line| line.starts_with("[-]")).collect();
    Err(format!("/readyz answers {}: {}", status.as_u16(), bad.join("; ")))
}

fn parse_url(text: &str) -> Result<reqwest::Url, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("{error}; want http://HOST:PORT"))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("want http://HOST:PORT".to_owned()) }
}

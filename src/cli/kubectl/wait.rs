//! `kubectl healthcheck wait`: until HealthChecks have a verdict of their present spec.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use futures::future::try_join_all;
use kube::{ResourceExt as _, runtime::wait::await_condition};

use super::{
    ClusterArgs,
    found::{Cluster, health, key, why},
};
use crate::{
    check::Health,
    cli::{
        Exit,
        controller::parse_duration,
        exit::Failed,
        print::{complain, print},
    },
    cluster::Object,
};

/// What is waited for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "PascalCase")]
enum Verdict {
    Healthy,
    Degraded,
    Unhealthy,
    Unknown,
}

impl From<Verdict> for Health {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Healthy => Self::Healthy,
            Verdict::Degraded => Self::Degraded,
            Verdict::Unhealthy => Self::Unhealthy,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

#[derive(Args, Debug)]
pub struct WaitArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// HealthChecks to wait for, all of them
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_enum, value_name = "HEALTH", ignore_case = true, default_value = "Healthy")]
    verdict: Verdict,
    /// How long to wait, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
}

pub async fn run(args: WaitArgs) -> anyhow::Result<Exit> {
    let cluster = Cluster::open(&args.cluster).await?;
    // A name that is nobody's is told at once: it may be misspelled.
    cluster.named(&args.names).await?;
    let wanted = Health::from(args.verdict);
    let reached = |object: Option<&Object>| object.is_some_and(|object| is(object, wanted));
    let each = args.names.iter().map(|name| {
        let (api, reached) = (cluster.api(), &reached);
        async move {
            let found = await_condition(api, name, reached).await?;
            found.map(|object| print(&format!("{}: {}\n", key(&object), health(&object)))).transpose()
        }
    });
    match tokio::time::timeout(args.timeout, try_join_all(each)).await {
        Ok(Ok(_)) => Ok(Exit::Ok),
        Ok(Err(error)) => Err(Failed::wrap(error)),
        Err(_) => late(&cluster, &args, wanted).await,
    }
}

/// A verdict of an earlier spec is not what is waited for.
fn is(object: &Object, wanted: Health) -> bool {
    let current = object.status.as_ref().is_some_and(|status| status.observed_generation >= object.metadata.generation);
    current && health(object) == wanted
}

async fn late(cluster: &Cluster, args: &WaitArgs, wanted: Health) -> anyhow::Result<Exit> {
    let mut unmet = vec![];
    for object in cluster.named(&args.names).await? {
        if !is(&object, wanted) {
            let (name, why) = (object.name_any(), why(&object));
            let why = if why.is_empty() { why } else { format!(": {why}") };
            unmet.push(format!("{name} is {}{why}", health(&object)));
        }
    }
    let told = anyhow!("not {wanted} within {:?}: {}", args.timeout, unmet.join("; "));
    complain(&told);
    Ok(Exit::Unhealthy)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_verdict_of_an_earlier_spec_is_not_the_one_that_is_waited_for() {
        let object = |generation, observed| -> Object {
            let status = json!({"health": "Healthy", "observedGeneration": observed});
            serde_json::from_value(
                json!({"metadata": {"name": "a", "generation": generation}, "spec": {}, "status": status}),
            )
            .expect("readable")
        };
        assert!(is(&object(2, 2), Health::Healthy));
        assert!(!is(&object(2, 1), Health::Healthy) && !is(&object(2, 2), Health::Unhealthy));
    }
}

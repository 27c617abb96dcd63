//! `kubectl healthcheck status`: what is down first, since when and why.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    found::{Cluster, ago, health, is_suspended, key, why},
};
use crate::{
    api::status::{GateStatus, TargetStatus},
    check::Health,
    cli::{Exit, output::Output, print::print, table},
    cluster::Object,
};

/// In the order in which people want to see them.
const WORST_FIRST: [Health; 4] = [Health::Unhealthy, Health::Unknown, Health::Degraded, Health::Healthy];

#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// HealthChecks to tell all about [default: a line for each there is]
    #[arg(value_name = "NAME", conflicts_with_all = ["all_namespaces", "selector"])]
    names: Vec<String>,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Those whose labels match, such as team=shop
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub async fn run(args: StatusArgs) -> anyhow::Result<Exit> {
    let cluster = Cluster::open(&args.cluster).await?;
    let mut found = match args.names.is_empty() {
        true => cluster.all(args.all_namespaces, args.selector.as_deref()).await?,
        false => cluster.named(&args.names).await?,
    };
    let rank = |object: &Object| WORST_FIRST.iter().position(|word| *word == health(object));
    found.sort_by_key(|object| (is_suspended(object), rank(object), key(object)));
    let now = Timestamp::now();
    print(&match args.output {
        Output::Json => format!("{:#}\n", document(&found)),
        Output::Yaml => serde_saphyr::to_string(&document(&found))?,
        Output::Text if found.is_empty() => "no HealthCheck found\n".to_owned(),
        Output::Text if args.names.is_empty() => lines(&found, args.all_namespaces, now),
        Output::Text => found.iter().map(|object| whole(object, now)).collect::<Vec<_>>().join("\n"),
    })?;
    Ok(Exit::of(found.iter().filter(|object| !is_suspended(object)).map(health)))
}

fn document(found: &[Object]) -> Value {
    let item = |object: &Object| {
        let key = key(object);
        json!({
            "namespace": &*key.namespace, "name": &*key.name, "health": health(object).as_str(), "suspended": is_suspended(object),
            "message": why(object), "status": object.status,
        })
    };
    json!({"items": found.iter().map(item).collect::<Vec<_>>()})
}

fn lines(found: &[Object], everywhere: bool, now: Timestamp) -> String {
    let row = |object: &Object| {
        let (key, status) = (key(object), object.status.as_ref());
        let name = if everywhere { key.to_string() } else { key.name.to_string() };
        let summary = status.and_then(|status| status.summary.clone()).unwrap_or_default();
        let since = ago(status.and_then(|status| status.since.as_ref()), now);
        vec![name, health(object).to_string(), summary, since, why(object)]
    };
    table::render(&["NAME", "HEALTH", "TARGETS", "SINCE", "WHY"], &found.iter().map(row).collect::<Vec<_>>())
}

fn whole(object: &Object, now: Timestamp) -> String {
    let status = object.status.clone().unwrap_or_default();
    let mut text = format!("{}: {}", key(object), health(object));
    if let Some(summary) = &status.summary {
        text += &format!(" ({summary})");
    }
    if status.since.is_some() {
        text += &format!(" for {}", ago(status.since.as_ref(), now));
    }
    text.push('\n');
    let why = why(object);
    if !why.is_empty() {
        text += &format!("  {why}\n");
    }
    if let (Some(prober), Some(at)) = (&status.prober, &status.observed_at) {
        text += &format!("  confirmed {} ago by {prober}\n", ago(Some(at), now));
    }
    if !status.targets.is_empty() {
        let rows: Vec<_> = status.targets.iter().map(|target| target_row(target, now)).collect();
        text += "\n";
        text += &table::render(&["TARGET", "ENDPOINT", "STATE", "SINCE", "LATENCY", "WHY"], &rows);
    }
    if !status.gates.is_empty() {
        let rows: Vec<_> = status.gates.iter().map(|gate| gate_row(gate, now)).collect();
        text += "\n";
        text += &table::render(&["GATE", "EFFECTIVE", "READY", "SINCE", "WHY"], &rows);
    }
    text
}

fn target_row(target: &TargetStatus, now: Timestamp) -> Vec<String> {
    let why = [target.reason.as_deref(), target.message.as_deref()];
    vec![
        target.name.clone(),
        target.endpoint.clone().unwrap_or_default(),
        target.state.clone(),
        ago(target.since.as_ref(), now),
        target.latency.map(|latency| latency.to_string()).unwrap_or_default(),
        why.into_iter().flatten().collect::<Vec<_>>().join(": "),
    ]
}

fn gate_row(gate: &GateStatus, now: Timestamp) -> Vec<String> {
    vec![
        gate.name.clone(),
        gate.effective.clone(),
        format!("{} (of {} desired)", gate.published_ready, gate.desired_ready),
        ago(gate.since.as_ref(), now),
        gate.message.clone().unwrap_or_default(),
    ]
}

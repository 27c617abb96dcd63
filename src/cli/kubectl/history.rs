//! `kubectl healthcheck history`: the latest outages.

use std::cmp::Reverse;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ClusterArgs,
    found::{Cluster, key, lasted},
};
use crate::{
    api::status::Outage,
    check::ObjectKey,
    cli::{Exit, output::Output, print::print, table},
};

#[derive(Args, Debug)]
pub struct HistoryArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// HealthChecks to tell of [default: all of the namespace]
    #[arg(value_name = "NAME", conflicts_with = "all_namespaces")]
    names: Vec<String>,
    /// Those of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub async fn run(args: HistoryArgs) -> anyhow::Result<Exit> {
    let cluster = Cluster::open(&args.cluster).await?;
    let found = match args.names.is_empty() {
        true => cluster.all(args.all_namespaces, None).await?,
        false => cluster.named(&args.names).await?,
    };
    let of = |object: &crate::cluster::Object| {
        let outages = object.status.as_ref().map(|status| status.outages.clone()).unwrap_or_default();
        let key = key(object);
        outages.into_iter().map(move |outage| (key.clone(), outage)).collect::<Vec<_>>()
    };
    let mut outages: Vec<(ObjectKey, Outage)> = found.iter().flat_map(of).collect();
    outages.sort_by_key(|(key, outage)| (Reverse(outage.start.0), key.clone()));
    print(&match args.output {
        Output::Json => format!("{:#}\n", document(&outages)),
        Output::Yaml => serde_saphyr::to_string(&document(&outages))?,
        Output::Text if outages.is_empty() => "no outage is remembered\n".to_owned(),
        Output::Text => lines(&outages, args.all_namespaces, Timestamp::now()),
    })?;
    Ok(Exit::Ok)
}

fn document(outages: &[(ObjectKey, Outage)]) -> Value {
    let item = |(key, outage): &(ObjectKey, Outage)| json!({"namespace": &*key.namespace, "name": &*key.name, "outage": outage});
    json!({"items": outages.iter().map(item).collect::<Vec<_>>()})
}

fn lines(outages: &[(ObjectKey, Outage)], everywhere: bool, now: Timestamp) -> String {
    let row = |(key, outage): &(ObjectKey, Outage)| {
        let end = outage.end.as_ref().map_or(now, |end| end.0);
        let lasts = if outage.end.is_none() { " so far" } else { "" };
        vec![
            if everywhere { key.to_string() } else { key.name.to_string() },
            outage.start.0.to_string(),
            format!("{}{lasts}", lasted(end.duration_since(outage.start.0))),
            outage.reason.clone(),
            outage.targets.join(", "),
        ]
    };
    table::render(&["NAME", "BEGAN", "LASTED", "REASON", "TARGETS"], &outages.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_that_lasts_is_told_as_such() {
        let outage = |end| {
            serde_json::from_value(
                json!({"start": "2026-01-01T00:00:00Z", "end": end, "reason": "R", "targets": ["a", "b"]}),
            )
        };
        let of = |end: Value| (ObjectKey::new("shop", "web"), outage(end).expect("an outage"));
        let outages = [of(Value::Null), of(json!("2026-01-01T00:01:05Z"))];
        let now = "2026-01-01T00:10:00Z".parse().expect("a time");
        let expected = "NAME       BEGAN                  LASTED       REASON   TARGETS\n\
            shop/web   2026-01-01T00:00:00Z   10m so far   R        a, b\n\
            shop/web   2026-01-01T00:00:00Z   65s          R        a, b\n";
        assert_eq!(lines(&outages, true, now), expected);
    }
}

//! What is written to the API while nothing happens: counted in the API server's own audit log.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::stage::{Stage, stop, until};
use crate::common::{figures::Figures, scaled, table::Table, window};
use crate::support::{netns::fresh_address, targets::HttpTarget};

const CHECKS: usize = 100;
/// What is left to write after the last verdict is written by then, small changes are gathered for 5 s.
const SETTLE: Duration = Duration::from_secs(20);

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let namespace = stage.cluster.namespace("steady").await?;
    let target = HttpTarget::start_on((fresh_address(), 8080).into()).await?;
    let checks = scaled(CHECKS);
    for number in 0..checks {
        let spec = json!({
            // A path of its own: equal questions are asked once.
            "interval": "1s", "probe": { "http": { "path": format!("/{number}") } },
            "targets": [{ "name": "web", "host": target.ip(), "port": target.port() }],
        });
        stage.create(&namespace, &format!("check-{number}"), json!({}), spec).await?;
    }
    let operator = stage.operator(&namespace, &[])?;
    stage.ready(&operator).await?;
    until("every check Healthy in the API", async || {
        let list = stage.checks(&namespace).list(&kube::api::ListParams::default()).await?;
        let healthy =
            |object: &&kube::api::DynamicObject| object.data.pointer("/status/health") == Some(&"Healthy".into());
        Ok(list.items.iter().filter(healthy).count() == checks)
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    let (log, hits) = (stage.cluster.audit(), target.hits());
    let mark = log.mark()?;
    let window = window(60);
    tokio::time::sleep(window).await;
    let hits = target.hits() - hits;
    let mut writes = BTreeMap::new();
    for entry in log.writes_by(&stage.user(), mark)? {
        let what =
            if entry.subresource.is_empty() { entry.resource } else { entry.resource + "/" + &entry.subresource };
        *writes.entry(format!("{} {what}", entry.verb)).or_insert(0) += 1;
    }
    ensure!(hits > 0, "nothing was probed");
    let mut table = Table::new(["request", "count"]);
    table.row(["probes that reached the target".to_owned(), hits.to_string()]);
    let all: i32 = writes.values().sum();
    let lease: i32 = writes.iter().filter(|(what, _)| what.contains("leases")).map(|(_, count)| count).sum();
    let share = f64::from(all - lease) * 1000.0 / hits as f64;
    figures.reach("10", "API writes per 1,000 probes, steady, the Lease aside", share);
    for (what, count) in writes {
        table.row([what, count.to_string()]);
    }
    table.print(&format!("{checks} checks at 1 s, {} s in which nothing changed, default flags", window.as_secs()));
    stop(operator)
}

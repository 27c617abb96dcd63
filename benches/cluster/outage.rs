//! The API server is away for a moment, with 10,000 HealthChecks there: how soon the operator is current again, and what
//! that takes. It is current when it has answered an object that was made after the server was back.

use std::time::{Duration, Instant};

use kube::api::{DeleteParams, DynamicObject};
use serde_json::json;

use super::{
    herd::Herd,
    stage::{Stage, stop, until},
};
use crate::common::{
    figures::Figures,
    listener::Listener,
    operator::{IMAGE, Operator},
    scaled,
    table::Table,
    usage::Usage,
};
use crate::support::fault_proxy::FaultProxy;

const CHECKS: usize = 10_000;
/// How long everything is left alone before: what a start leaves behind is nothing of an outage's.
const SETTLE: Duration = Duration::from_secs(10);

pub async fn measure(stage: &Stage, figures: &mut Figures) -> anyhow::Result<()> {
    let port = Listener::start()?.port;
    let herd = Herd::make(stage, "outage", scaled(CHECKS), 1, port).await?;
    let columns = ["what", "back → current", "CPU", "RSS before", "peak", "lists"];
    let mut table = Table::new(columns);

    let proxy = FaultProxy::start(&stage.cluster).await?;
    let operator = stage.operator_by(&proxy.url(), &herd.namespace)?;
    let watched = Watched::begin(stage, &operator).await?;
    proxy.cut();
    watched.end(stage, &herd, "connections cut", &mut table, figures).await?;
    stop(operator)?;

    let operator = stage.operator_with(&herd.namespace, &[], &IMAGE)?;
    let watched = Watched::begin(stage, &operator).await?;
    stage.cluster.kill_api_server()?;
    stage.cluster.restart_api_server().await?;
    watched.end(stage, &herd, "API server restarted", &mut table, figures).await?;
    stop(operator)?;
    table.print(&format!("The API server is away for a moment ({} checks)", herd.checks));
    Ok(())
}

struct Watched<'a> {
    operator: &'a Operator,
    before: Usage,
    lists: f64,
}

impl<'a> Watched<'a> {
    async fn begin(stage: &Stage, operator: &'a Operator) -> anyhow::Result<Self> {
        stage.ready(operator).await?;
        tokio::time::sleep(SETTLE).await;
        Usage::forget_peak(operator.process().pid())?;
        Ok(Self { operator, before: operator.usage()?, lists: lists(operator)? })
    }

    /// To be called when the server answers again.
    async fn end(
        self,
        stage: &Stage,
        herd: &Herd,
        what: &str,
        table: &mut Table,
        figures: &mut Figures,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let spec = json!({
            "suspend": true, "interval": "10s", "probe": { "tcp": {} },
            "targets": [{ "name": "later", "host": "198.18.0.9", "port": 1 }],
        });
        // A server that has just begun may refuse still.
        until("the new check to be made", async || {
            Ok(stage.create(&herd.namespace, "later", json!({}), spec.clone()).await.is_ok())
        })
        .await?;
        let answered = |check: &DynamicObject| check.data.pointer("/status/health").is_some();
        let checks = stage.checks(&herd.namespace);
        until("the new check to be answered", async || Ok(checks.get("later").await.is_ok_and(|it| answered(&it))))
            .await?;
        let current = begun.elapsed().as_secs_f64();
        // A list may come later than that: the peak and the work are those of the whole minute's beginning.
        tokio::time::sleep(SETTLE).await;
        let after = self.operator.usage()?;
        let cpu = (after.cpu - self.before.cpu).as_secs_f64();
        let lists = lists(self.operator)? - self.lists;
        table.row([
            what.to_owned(),
            format!("{current:.2} s"),
            format!("{cpu:.2} s"),
            format!("{:.1} MB", self.before.resident as f64 / 1e6),
            format!("{:.1} MB", after.peak as f64 / 1e6),
            format!("{lists}"),
        ]);
        figures.note(format!("{what}: back → current"), current, "s");
        figures.note(format!("{what}: CPU"), cpu, "s");
        figures.note(format!("{what}: peak memory"), after.peak as f64 / 1e6, "MB");
        checks.delete("later", &DeleteParams::default()).await?;
        Ok(())
    }
}

fn lists(operator: &Operator) -> anyhow::Result<f64> {
    let metrics = operator.metrics()?;
    Ok(metrics.sum("healthcheck_operator_api_requests_total", "verb=\"list\""))
}

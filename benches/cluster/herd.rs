//! Many HealthChecks that have lived for a while: each with the status that an operator has written.
//!
//! An operator writes 50 statuses a second, so 10,000 of them would take the benchmark minutes. It writes that of the
//! first check alone; those of the others are the same but for their addresses, in the operator's own name.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::stage::{Stage, stop, until};
use crate::common::manifests::address;

/// Where every target listens.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 64, 1);
/// Creations at once.
const AT_ONCE: usize = 32;

/// Checks `check-0`, `check-1` and so on in a namespace of their own, every tenth with the label `bench=few`.
pub struct Herd {
    pub namespace: String,
    pub checks: usize,
    /// TCP targets in each check, each at an address of its own.
    pub targets: usize,
    /// How long it took to make them.
    pub took: Duration,
}

impl Herd {
    /// Makes `checks` of them, whose targets listen on `port`, probed every ten seconds.
    pub async fn make(stage: &Stage, name: &str, checks: usize, targets: usize, port: u16) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let namespace = stage.cluster.namespace(name).await?;
        let mut herd = Self { namespace, checks, targets, took: Duration::ZERO };
        let labels = |number: usize| json!({ "bench": if number.is_multiple_of(10) { "few" } else { "many" } });
        stage.create(&herd.namespace, "check-0", labels(0), herd.spec(0, port)).await?;
        let sample = herd.sample(stage).await?;
        let herd_ref = &herd;
        futures::stream::iter(1..checks)
            .map(|number| {
                let sample = &sample;
                async move {
                    let name = format!("check-{number}");
                    stage.create(&herd_ref.namespace, &name, labels(number), herd_ref.spec(number, port)).await?;
                    let status = json!({ "status": herd_ref.of_another(sample, number) });
                    let params =
                        PatchParams { field_manager: Some("healthcheck-operator".into()), ..Default::default() };
                    stage.checks(&herd_ref.namespace).patch_status(&name, &params, &Patch::Merge(&status)).await?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        herd.took = begun.elapsed();
        Ok(herd)
    }

    pub fn endpoints(&self) -> usize {
        self.checks * self.targets
    }

    /// What an operator writes of the first check.
    async fn sample(&self, stage: &Stage) -> anyhow::Result<Value> {
        let operator = stage.operator(&self.namespace, &[])?;
        let mut status = Value::Null;
        until("the first status", async || {
            let check = stage.checks(&self.namespace).get("check-0").await?;
            status = check.data.get("status").cloned().unwrap_or_default();
            Ok(status["health"] == "Healthy")
        })
        .await?;
        // What is gathered after the verdict is in it too.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let check = stage.checks(&self.namespace).get("check-0").await?;
        stop(operator)?;
        check.data.get("status").cloned().context("no status")
    }

    fn spec(&self, number: usize, port: u16) -> Value {
        let target =
            |index: usize| json!({ "name": format!("db-{index}"), "host": self.address(number, index), "port": port });
        json!({
            "interval": "10s", "timeout": "1s", "probe": { "tcp": {} },
            "targets": (0..self.targets).map(target).collect::<Vec<_>>(),
        })
    }

    fn address(&self, number: usize, index: usize) -> Ipv4Addr {
        address(FIRST, number * self.targets + index)
    }

    /// `sample` with the addresses of another check, of now.
    fn of_another(&self, sample: &Value, number: usize) -> Value {
        let mut status = sample.clone();
        status["observedAt"] = json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        for (index, row) in status["targets"].as_array_mut().into_iter().flatten().enumerate() {
            let port = row["endpoint"].as_str().and_then(|it| it.rsplit_once(':')).map_or("", |(_, port)| port);
            row["endpoint"] = json!(format!("{}:{port}", self.address(number, index)));
        }
        status
    }
}

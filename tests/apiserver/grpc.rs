//! The gRPC probe against a real server: etcd, which serves grpc.health.v1 by Go's own implementation.

use std::sync::Arc;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{Stage, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.trial("grpc::a_real_server_is_asked_by_its_protocol", etcd)]
}

async fn etcd(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "grpc").await?;
    let etcd = stage.cluster.etcd_address()?;
    let _operator = stage.operator("hco-0").await?;
    let spec = |grpc: Value| {
        json!({
            "interval": "200ms", "failureThreshold": 2,
            "targets": [target("a", etcd)], "probe": {"grpc": grpc},
        })
    };
    stage.apply("serves", spec(json!({}))).await?;
    let check = stage.wait_health("serves", "Healthy").await?;
    ensure!(check.status.as_ref().is_some_and(|status| status.probes.as_deref() == Some("grpc")), "{:?}", check.status);
    for (name, grpc, reason) in [
        ("unknown", json!({"service": "nothing.Here"}), "GrpcServiceUnknown"),
        ("encrypted", json!({"tls": {"mode": "SkipVerify"}}), "ConnectionClosed"),
    ] {
        stage.apply(name, spec(grpc)).await?;
        let check = stage.wait_health(name, "Unhealthy").await?;
        let rows: Vec<_> = check.status.iter().flat_map(|status| &status.targets).map(|row| &row.reason).collect();
        ensure!(rows == [&Some(reason.to_owned())], "{name}: {:?}", check.status);
    }
    Ok(())
}

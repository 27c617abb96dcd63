//! Two replicas: one writes, and the other takes over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use libtest_mimic::Trial;

use crate::stage::{SOON, Stage, fast, health, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("leader::a_killed_leader_is_followed", killed),
        suite.trial("leader::a_leader_that_is_told_to_stop_hands_over", stopped),
        suite.trial("leader::a_leader_woken_from_a_stop_writes_nothing", woken),
    ]
}

/// Two operators and a check, whose verdict the first one writes.
struct Pair {
    stage: Stage,
    web: HttpTarget,
    leader: Operator,
    standby: Operator,
}

impl Pair {
    async fn new(cluster: Arc<ControlPlane>, test: &str) -> anyhow::Result<Self> {
        let stage = Stage::new(cluster, test).await?;
        let web = HttpTarget::start().await?;
        let leader = stage.operator("hco-0").await?;
        stage.apply("web", fast(&[target("a", web.address())])).await?;
        stage.wait_health("web", "Healthy").await?;
        let standby = stage.operator("hco-1").await?;
        Ok(Self { stage, web, leader, standby })
    }

    async fn holder(&self) -> anyhow::Result<String> {
        let api: Api<Lease> = Api::namespaced(self.stage.cluster.client(), &self.stage.namespace);
        let lease = api.get("healthcheck-operator").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        Ok(holder.split('_').next().unwrap_or_default().to_owned())
    }

    /// Waits until the status is confirmed by `prober`.
    async fn wait_prober(&self, prober: &str) -> anyhow::Result<()> {
        let of = |status: &healthcheck_operator::api::HealthCheckStatus| status.prober.as_deref() == Some(prober);
        let what = format!("{prober} to own the check");
        self.stage.wait("web", &what, |check| check.status.as_ref().is_some_and(of)).await?;
        Ok(())
    }
}

async fn killed(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let pair = Pair::new(cluster, "killed").await?;
    ensure!(pair.holder().await? == "hco-0");
    // The standby answers too, from what the leader wrote.
    pair.standby.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    pair.web.set_status(500);
    pair.standby.wait_get("/healthz", SOON, |answer| answer.status == 503).await?;
    let record = pair.stage.record().await?;
    let begun = Instant::now();
    pair.leader.process().kill()?;
    pair.wait_prober("hco-1").await?;
    println!("taken over {:.1} s after kill -9", begun.elapsed().as_secs_f32());
    ensure!(pair.holder().await? == "hco-1");
    pair.web.wait_hits(5, SOON).await?;
    ensure!(record.history("web", health)? == ["Unhealthy"], "a takeover is no transition");
    pair.web.set_status(200);
    pair.stage.wait_health("web", "Healthy").await?;
    Ok(())
}

async fn stopped(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let pair = Pair::new(cluster, "stopped").await?;
    let record = pair.stage.record().await?;
    let begun = Instant::now();
    let status = pair.leader.process().stop()?;
    let gone = begun.elapsed();
    ensure!(status.success(), "{status}: {}", pair.leader.process().log_tail());
    wait_until("the lease to change hands", SOON, || async {
        let holder = pair.holder().await?;
        ensure!(holder == "hco-1", "{holder}");
        anyhow::Ok(())
    })
    .await?;
    println!("ended {:.2} s, handed over {:.2} s after SIGTERM", gone.as_secs_f32(), begun.elapsed().as_secs_f32());
    pair.wait_prober("hco-1").await?;
    ensure!(record.history("web", health)? == ["Healthy"], "a handover is no transition");
    Ok(())
}

async fn woken(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let pair = Pair::new(cluster, "woken").await?;
    pair.leader.process().freeze()?;
    pair.web.set_status(500);
    pair.wait_prober("hco-1").await?;
    pair.stage.wait_health("web", "Unhealthy").await?;
    let record = pair.stage.record().await?;
    pair.leader.process().thaw()?;
    // It sees that it leads no more, and mirrors what the other one writes.
    wait_until("the former leader to stand by", SOON, || async {
        let metrics = pair.leader.admin_get("/metrics").await?.body;
        ensure!(metrics.contains("healthcheck_operator_leader 0"), "still leading");
        anyhow::Ok(())
    })
    .await?;
    pair.web.wait_hits(10, SOON).await?;
    ensure!(record.history("web", health)? == ["Unhealthy"], "{:?}", record.history("web", health)?);
    let owners = record.history("web", |check| check.status.as_ref().and_then(|status| status.prober.clone()))?;
    ensure!(owners == [Some("hco-1".to_owned())], "{owners:?}");
    pair.web.set_status(200);
    pair.stage.wait_health("web", "Healthy").await?;
    pair.leader.wait_get("/healthz", Duration::from_secs(30), |answer| answer.status == 200).await?;
    Ok(())
}

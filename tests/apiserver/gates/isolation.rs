//! What gates do while our own side is cut off.

use super::*;
use crate::support::fault_proxy::FaultProxy;
use crate::support::operator::Operator;

/// The operator behind a proxy that can cut it off from the API server.
async fn behind(shop: &Shop, proxy: &FaultProxy) -> anyhow::Result<Operator> {
    shop.stage.serve(shop.stage.command("hco-0", Some(&proxy.url()))?).await
}

async fn wait_metric(operator: &Operator, what: &str, part: &[&str]) -> anyhow::Result<()> {
    wait_until(what, SOON, || async {
        let metrics = operator.admin_get("/metrics").await?.body;
        ensure!(metrics.lines().any(|line| part.iter().all(|part| line.contains(part))), "{part:?}");
        anyhow::Ok(())
    })
    .await
}

async fn wait_frozen(operator: &Operator) -> anyhow::Result<()> {
    wait_metric(operator, "the gate to freeze", &["healthcheck_gate_effective", r#"rule="Frozen"} 1"#]).await
}

pub async fn isolated(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "isolated", 2).await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let operator = behind(&shop, &proxy).await?;
    shop.stage.apply(CHECK, shop.spec(json!({"whenBelow": "FailClosed"}))).await?;
    shop.wait_settled().await?;
    let record = shop.record().await?;
    let all = |status: u16| shop.hosts.iter().for_each(|host| host.set_status(status));
    for api_first in [true, false] {
        if api_first {
            proxy.close().await;
            wait_frozen(&operator).await?;
            all(500);
        } else {
            // Verdicts are decided before anybody knows that the API server is away too.
            all(500);
            proxy.close().await;
            wait_frozen(&operator).await?;
        }
        let uncounted = ["healthcheck_operator_probes_total", r#"reason="ProberIsolated""#];
        wait_metric(&operator, "failures not to be counted", &uncounted).await?;
        shop.live().await?;
        all(200);
        proxy.reopen().await?;
        shop.wait_settled().await?;
    }
    shop.live().await?;
    for host in &shop.hosts {
        let history = history(&record, host.ip())?;
        ensure!(history == [true], "{history:?}");
    }
    Ok(())
}

pub async fn api_away(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "gateaway", 3).await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let operator = behind(&shop, &proxy).await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_settled().await?;
    let (slices, checks) = (shop.record().await?, shop.stage.record().await?);
    proxy.close().await;
    wait_frozen(&operator).await?;
    shop.hosts[1].set_status(500);
    let verdict = format!("/healthz/{}/{CHECK}", shop.stage.namespace);
    operator.wait_get(&verdict, SOON, |answer| answer.status == 503).await?;
    shop.live().await?;
    ensure!(history(&slices, shop.hosts[1].ip())? == [true], "nothing can be written");
    proxy.reopen().await?;
    shop.wait_published(&[true, false, true]).await?;
    shop.stage.wait_health(CHECK, "Unhealthy").await?;
    let told = checks.history(CHECK, |check| condition(check, "GatesApplied"))?;
    ensure!(told == ["True/Enforced"], "{told:?}");
    Ok(())
}

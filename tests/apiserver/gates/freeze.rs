//! A loss that is too large to be the hosts' own, and a restart in the midst of it.

use super::*;

/// A check of other hosts: one check that loses everything is left to its gate's floor.
const OTHERS: &str = "others";

/// Slow enough that a busy machine sees all failures within two intervals, and none is a verdict before that.
fn steady(mut spec: Value) -> Value {
    spec["interval"] = json!("1s");
    spec["unhealthyInterval"] = json!("1s");
    spec["failureThreshold"] = json!(3);
    spec
}

pub async fn restarted(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "cutrestart", 3).await?;
    let mut others = vec![];
    for _ in 0..3 {
        others.push(HttpTarget::start_on((fresh_address(), PORT).into()).await?);
    }
    let operator = shop.stage.operator("hco-0").await?;
    let targets: Vec<_> = (0..).zip(&others).map(|(at, host)| target(&format!("o{at}"), host.address())).collect();
    shop.stage.apply(OTHERS, steady(fast(&targets))).await?;
    shop.stage.apply(CHECK, steady(shop.spec(json!({})))).await?;
    shop.wait_settled().await?;
    shop.stage.wait_health(OTHERS, "Healthy").await?;
    let (record, mark) = (shop.record().await?, shop.mark()?);
    let lost = || shop.hosts[..2].iter().chain(&others);
    lost().for_each(|host| host.set_status(500));
    let frozen = |check: &HealthCheck| {
        let unhealthy = check.status.iter().flat_map(|status| &status.targets).filter(|row| row.state == "Unhealthy");
        gate(check)["effective"] == "Frozen" && unhealthy.count() == 2
    };
    shop.stage.wait(CHECK, "the gate to freeze, though two are down", frozen).await?;
    shop.stage.wait_health(OTHERS, "Unhealthy").await?;
    operator.process().kill()?;
    for pod in ["hco-1", "hco-2"] {
        let operator = shop.stage.operator(pod).await?;
        // Its own probes fail, more often than a verdict and the start of a gate take.
        for host in lost() {
            host.wait_hits(10, SOON).await?;
        }
        let check = shop.stage.get(CHECK).await?;
        ensure!(frozen(&check), "{pod}: {}", json!(check.status));
        ensure!(shop.writes(mark)?.is_empty(), "{pod}: {:?}", shop.writes(mark)?);
        if pod == "hco-1" {
            operator.process().kill()?;
            continue;
        }
        lost().for_each(|host| host.set_status(200));
        shop.wait_settled().await?;
        ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
        for host in &shop.hosts {
            let history = history(&record, host.ip())?;
            ensure!(history == [true], "{history:?}");
        }
        // What it froze for is over.
        shop.hosts[1].set_status(500);
        shop.wait_published(&[true, false, true]).await?;
    }
    Ok(())
}

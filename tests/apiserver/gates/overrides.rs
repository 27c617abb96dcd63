//! What an operator says by hand, in place of a verdict.

use std::time::Duration;

use super::*;

pub async fn overrides(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "override", 2).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_published(&[true, true]).await?;
    let say = async |words: &str| {
        let annotation = format!("healthcheck-operator.dev/override={words}");
        shop.stage.kubectl(&["annotate", "--overwrite", "healthcheck", CHECK, &annotation]).await
    };
    // One ends by itself.
    let until = jiff::Timestamp::now() + Duration::from_secs(10);
    say(&format!("t0=Unhealthy until {until}")).await?;
    shop.wait_published(&[false, true]).await?;
    let check = shop.wait_condition(CHECK, "True/Held").await?;
    ensure!(crate::stage::health(&check) == "Healthy", "the verdict stays the truth");
    shop.wait_published(&[true, true]).await?;
    ensure!(jiff::Timestamp::now() >= until, "not before its end");
    shop.wait_condition(CHECK, "True/Enforced").await?;
    // What cannot be read is told, and the rest holds.
    say("t0=Unhealthy until tomorrow; t1=Unhealthy until 2100-01-01T00:00:00Z").await?;
    let check = shop.wait_condition(CHECK, "False/InvalidOverride").await?;
    let told = message(&check, "GatesApplied");
    ensure!(told.contains("'tomorrow'") && told.contains("RFC 3339"), "{told}");
    shop.wait_published(&[true, false]).await?;
    wait_until("the event", SOON, || async {
        let events = shop.stage.events(CHECK).await?;
        ensure!(events.iter().any(|(reason, _)| reason == "InvalidOverride"), "{events:?}");
        anyhow::Ok(())
    })
    .await?;
    // For all, against the verdict.
    say("*=Healthy until 2100-01-01T00:00:00Z").await?;
    shop.wait_published(&[true, true]).await?;
    shop.hosts[0].set_status(500);
    shop.stage.wait_health(CHECK, "Unhealthy").await?;
    shop.live().await?;
    ensure!(shop.published().await?.into_values().all(|ready| ready), "{:?}", shop.published().await?);
    shop.stage.kubectl(&["annotate", "healthcheck", CHECK, "healthcheck-operator.dev/override-"]).await?;
    shop.wait_published(&[false, true]).await?;
    shop.wait_condition(CHECK, "True/Enforced").await?;
    Ok(())
}

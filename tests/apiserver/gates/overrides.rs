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
    ensure!(
        message(&check, "GatesApplied").contains(&format!("overridden as Unhealthy until {until:.0}")),
        "{check:?}"
    );
    let check =
        shop.stage.wait(CHECK, "the word in place of the verdict", |check| row(check, "t0").0 == "Unhealthy").await?;
    let (_, reason, told) = row(&check, "t0");
    ensure!(reason == "Overridden" && told.ends_with("measured: Healthy"), "{reason}: {told}");
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
    let lies = |check: &HealthCheck| row(check, "t0").2.contains("measured: Unhealthy: unexpected status code");
    let check = shop.stage.wait(CHECK, "what is measured to be told", lies).await?;
    ensure!(crate::stage::health(&check) == "Healthy" && row(&check, "t0").0 == "Healthy", "{check:?}");
    shop.live().await?;
    ensure!(shop.published().await?.into_values().all(|ready| ready), "{:?}", shop.published().await?);
    shop.stage.kubectl(&["annotate", "healthcheck", CHECK, "healthcheck-operator.dev/override-"]).await?;
    shop.wait_published(&[false, true]).await?;
    shop.wait_condition(CHECK, "True/Enforced").await?;
    Ok(())
}

/// State, reason and message of a target.
fn row(check: &HealthCheck, target: &str) -> (String, String, String) {
    let status = json!(check.status);
    let found = status["targets"].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == target)).cloned();
    let text = |key: &str| found.as_ref().and_then(|row| row[key].as_str()).unwrap_or_default().to_owned();
    (text("state"), text("reason"), text("message"))
}

/// Without a gate: what is shown follows the word, what cannot be read is told by `Ready`, and each fault by an event.
pub async fn without_gates(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "said").await?;
    let web = HttpTarget::start().await?;
    let operator = stage.operator("hco-0").await?;
    let asked = async |status: u16| {
        wait_until(&format!("/healthz to say {status}"), SOON, || async {
            let path = format!("/healthz/{}/web", stage.namespace);
            let answer = operator.get(&path).await?;
            ensure!(answer.status == status, "{} {}", answer.status, answer.body);
            anyhow::Ok(())
        })
        .await
    };
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    asked(200).await?;
    let say = async |words: &str| {
        let annotation = format!("healthcheck-operator.dev/override={words}");
        stage.kubectl(&["annotate", "--overwrite", "healthcheck", "web", &annotation]).await
    };
    say("a=Unhealthy until 2100-01-01T00:00:00Z").await?;
    stage.wait_health("web", "Unhealthy").await?;
    asked(503).await?;
    // One fault after the other, each told at once: nobody looks at the one before.
    for fault in ["tomorrow", "next week", "never"] {
        say(&format!("a=Healthy until {fault}")).await?;
        let told = |check: &HealthCheck| message(check, "Ready").contains(&format!("'{fault}'"));
        let check = stage.wait("web", &format!("'{fault}' to be told"), told).await?;
        ensure!(condition(&check, "Ready") == "True/Accepted", "{check:?}");
    }
    stage.wait_health("web", "Healthy").await?;
    asked(200).await?;
    wait_until("an event of each", SOON, || async {
        let notes = notes(&stage, "web", "InvalidOverride").await?;
        ensure!(notes.len() == 3, "{notes:?}");
        let all = ["tomorrow", "next week", "never"].iter().zip(&notes).all(|(fault, note)| note.contains(fault));
        ensure!(all, "{notes:?}");
        anyhow::Ok(())
    })
    .await?;
    stage.kubectl(&["annotate", "healthcheck", "web", "healthcheck-operator.dev/override-"]).await?;
    stage.wait("web", "no more to be told", |check| message(check, "Ready").is_empty()).await.map(drop)
}

/// The notes of the events of one reason, oldest first.
async fn notes(stage: &Stage, check: &str, reason: &str) -> anyhow::Result<Vec<String>> {
    use k8s_openapi::api::events::v1::Event;
    let api: Api<Event> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let mut events = api.list(&kube::api::ListParams::default()).await?.items;
    events.retain(|event| {
        event.reason.as_deref() == Some(reason)
            && event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(check))
    });
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    Ok(events.into_iter().filter_map(|event| event.note).collect())
}

/// Each event says what was true at its time, and a healthy check begins without an alarm.
pub async fn events(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "events", 2).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({"minReady": 2}))).await?;
    shop.wait_settled().await?;
    for sick in 0..2 {
        shop.hosts[sick].set_status(500);
        shop.wait_condition(CHECK, "True/FailOpen").await?;
        shop.hosts[sick].set_status(200);
        shop.wait_condition(CHECK, "True/Enforced").await?;
    }
    wait_until("the events", SOON, || async {
        let notes = notes(&shop.stage, CHECK, "GateFailOpen").await?;
        ensure!(notes.len() == 2, "one for each loss, and none at the start: {notes:?}");
        let names = |sick: usize| notes[sick].contains(&format!("{}:{PORT} (unhealthy", shop.hosts[sick].ip()));
        ensure!((0..2).all(names), "{notes:?}");
        anyhow::Ok(())
    })
    .await
}

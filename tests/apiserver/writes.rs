//! What is written to the API, and what is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::stage::{SOON, Stage, condition, fast, health, lasting, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::fault_proxy::{Fault, FaultProxy, Match};
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// How long nothing may be written but the lease.
const QUIET: Duration = Duration::from_secs(60);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("writes::none_in_a_minute_of_steady_state", steady),
        suite.trial("writes::a_restart_changes_nothing", restart),
        suite.trial("writes::a_late_write_of_a_former_owner_loses", late),
        suite.trial("writes::a_status_edited_by_hand_is_put_right", edited),
        suite.trial("writes::refused_and_lost_answers_are_made_good", refused),
        suite.trial("writes::an_owner_of_an_older_epoch_takes_over", epochs),
    ]
}

async fn steady(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "steady").await?;
    let (well, sick) = (HttpTarget::start().await?, HttpTarget::start().await?);
    sick.set_status(500);
    let _operator = stage.operator("hco-0").await?;
    stage.apply("well", fast(&[target("a", well.address())])).await?;
    stage.apply("sick", fast(&[target("a", sick.address())])).await?;
    stage.wait_health("well", "Healthy").await?;
    stage.wait_health("sick", "Unhealthy").await?;
    // The first small changes are gathered for a few seconds.
    let settled = wait_until("the last change to be written", SOON, || async {
        let before = cluster.audit().mark()?;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let writes = cluster.audit().writes_by(&stage.user(), before)?;
        ensure!(writes.iter().all(|entry| entry.resource == "leases"), "{} writes", writes.len());
        anyhow::Ok(cluster.audit().mark()?)
    })
    .await?;
    let begun = Instant::now();
    while begun.elapsed() < QUIET {
        // Life goes on.
        well.wait_hits(5, SOON).await?;
        sick.wait_hits(5, SOON).await?;
    }
    let writes = cluster.audit().writes_by(&stage.user(), settled)?;
    let others: Vec<_> = writes.iter().filter(|entry| entry.resource != "leases").map(|entry| &entry.raw).collect();
    ensure!(others.is_empty(), "{others:?}");
    ensure!(writes.len() >= 2, "the lease is renewed meanwhile, and this log would have shown the rest");
    Ok(())
}

async fn restart(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "restart").await?;
    let (well, sick) = (HttpTarget::start().await?, HttpTarget::start().await?);
    sick.set_status(500);
    let operator = stage.operator("hco-0").await?;
    stage.apply("well", fast(&[target("a", well.address())])).await?;
    stage.apply("sick", fast(&[target("a", sick.address()), target("b", well.address())])).await?;
    stage
        .apply(
            "both",
            json!({"targets": [
                {"name": "well", "healthCheck": {"name": "well"}}, {"name": "sick", "healthCheck": {"name": "sick"}},
            ]}),
        )
        .await?;
    stage.wait_health("well", "Healthy").await?;
    stage.wait_health("sick", "Unhealthy").await?;
    stage.wait_health("both", "Unhealthy").await?;
    operator.process().stop()?;
    let names = ["well", "sick", "both"];
    let mut before = vec![];
    for name in names {
        before.push((lasting(&stage.get(name).await?)?, stage.events(name).await?));
    }
    let record = stage.record().await?;
    // Another pod, as after a roll-out.
    let _operator = stage.operator("hco-1").await?;
    for name in names {
        let what = format!("{name} to be claimed");
        stage
            .wait(name, &what, |check| {
                check.status.as_ref().and_then(|status| status.prober.as_deref()) == Some("hco-1")
            })
            .await?;
    }
    well.wait_hits(10, SOON).await?;
    sick.wait_hits(10, SOON).await?;
    for (name, (status, events)) in names.into_iter().zip(before) {
        let now = stage.get(name).await?;
        ensure!(lasting(&now)? == status, "{name}: {} became {}", status, json!(now.status));
        ensure!(stage.events(name).await? == events, "an event of {name}");
        ensure!(record.history(name, health)?.len() == 1, "{name}: {:?}", record.history(name, health)?);
    }
    Ok(())
}

async fn late(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "late").await?;
    let web = HttpTarget::start().await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let former = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    // Its next word is on the way, and so slow that its author dies meanwhile.
    let hold = proxy.inject(Match::verb("patch").resource("healthchecks").subresource("status"), Fault::Hold);
    web.set_status(500);
    wait_until("the write to be held", SOON, || {
        let held = hold.hits();
        std::future::ready(if held > 0 { Ok(()) } else { Err("none yet") })
    })
    .await?;
    former.process().kill()?;
    web.set_status(200);
    let _heir = stage.operator("hco-0").await?;
    stage
        .wait("web", "the heir to own it", |check| {
            check
                .status
                .as_ref()
                .is_some_and(|status| status.epoch == Some(2) && status.health.as_deref() == Some("Healthy"))
        })
        .await?;
    let record = stage.record().await?;
    let mark = cluster.audit().mark()?;
    hold.lift();
    wait_until("the late write to arrive and be refused", SOON, || async {
        let patches = cluster.audit().writes_by(&stage.user(), mark)?;
        ensure!(
            patches.iter().any(|entry| entry.subresource == "status" && entry.code == 422),
            "{} writes",
            patches.len()
        );
        anyhow::Ok(())
    })
    .await?;
    web.wait_hits(10, SOON).await?;
    ensure!(record.history("web", health)? == ["Healthy"], "{:?}", record.history("web", health)?);
    Ok(())
}

async fn edited(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "edited").await?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let lie = json!({"status": {"health": "Unhealthy", "summary": "0/9"}});
    stage.checks().patch_status("web", &PatchParams::default(), &Patch::Merge(lie)).await?;
    let check = stage.wait_health("web", "Healthy").await?;
    ensure!(check.status.and_then(|status| status.summary).as_deref() == Some("1/1"));
    Ok(())
}

async fn refused(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster.clone(), "refused").await?;
    let web = HttpTarget::start().await?;
    let proxy = FaultProxy::start(&cluster).await?;
    let _operator = stage.serve(stage.command("hco-0", Some(&proxy.url()))?).await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    let status = || Match::verb("patch").resource("healthchecks").subresource("status");
    let faults = [
        Fault::Answer { status: 429, retry_after: Some(1) },
        Fault::Answer { status: 500, retry_after: None },
        Fault::Answer { status: 409, retry_after: None },
        Fault::Cut,
        // Carried out, but we cannot know: the same again must do no harm.
        Fault::LoseAnswer,
    ];
    let mut wanted = ["Unhealthy", "Healthy"].into_iter().cycle();
    for fault in faults {
        let rule = proxy.inject_times(3, status(), fault.clone());
        let next = wanted.next().unwrap_or_default();
        web.set_status(if next == "Healthy" { 200 } else { 500 });
        stage.wait_health("web", next).await?;
        wait_until("the fault to have struck", SOON, || {
            let hits = rule.hits();
            std::future::ready(if hits > 0 { Ok(()) } else { Err(format!("{fault:?}")) })
        })
        .await?;
    }
    Ok(())
}

async fn epochs(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "epochs").await?;
    let web = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    stage.apply("web", fast(&[target("a", web.address())])).await?;
    stage.wait_health("web", "Healthy").await?;
    // Somebody claims it who does not hold the lease.
    let claim = json!({"status": {"epoch": 41, "prober": "impostor"}});
    stage.checks().patch_status("web", &PatchParams::default(), &Patch::Merge(claim)).await?;
    web.set_status(500);
    let check = stage
        .wait("web", "the holder of the lease to own it again", |check| {
            check.status.as_ref().is_some_and(|status| {
                status.prober.as_deref() == Some("hco-0") && status.health.as_deref() == Some("Unhealthy")
            })
        })
        .await?;
    ensure!(check.status.as_ref().and_then(|status| status.epoch) == Some(42), "{:?}", check.status);
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    Ok(())
}

//! `/__health` of the built binary: what beats, and that nothing hangs on its being served.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::checks::{Files, SOON, check, healthy, quick_http, standalone};
use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

async fn agents(operator: &Operator) -> anyhow::Result<Value> {
    let answer = operator.get("/__health").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body)?;
    ensure!(body["status"] == "ok" && body.get("stopped").is_none(), "{body}");
    Ok(body["agents"].clone())
}

fn beat(agents: &Value, name: &str) -> anyhow::Result<jiff::Timestamp> {
    let beat = agents[name].as_str().with_context(|| format!("no beat of {name}: {agents}"))?;
    Ok(beat.parse()?)
}

#[tokio::test]
async fn every_loop_and_check_beats_on() -> anyhow::Result<()> {
    let web = HttpTarget::start().await?;
    let paused = check("paused", "  suspend: true\n  targets: [{name: s, probe: {script: {command: ['true']}}}]");
    let files = Files::with(&[quick_http("web", web.port()), paused]);
    let operator = healthy(files.path()).await?;
    let before = agents(&operator).await?;
    ensure!(before.get("shop/paused").is_none(), "nobody looks at it: {before}");
    wait_until("both to beat again", SOON, || async {
        let now = agents(&operator).await?;
        for name in ["engine", "shop/web"] {
            ensure!(beat(&now, name)? > beat(&before, name)?, "{name}: {now}");
        }
        anyhow::Ok(())
    })
    .await
}

/// KrakenD's agents stalled once nobody served their health.
#[tokio::test]
async fn nothing_stalls_where_it_is_switched_off() -> anyhow::Result<()> {
    let web = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", web.port())]);
    let operator = standalone(files.path()).arg("--disable-health").serve()?;
    operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    ensure!(operator.get("/__health").await?.status == 404);
    for status in [500, 200, 500] {
        web.wait_hits(5, SOON).await?;
        web.set_status(status);
        let wanted = if status == 200 { 200 } else { 503 };
        operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == wanted).await?;
    }
    let ready = operator.admin_get("/readyz?verbose").await?;
    ensure!(ready.status == 200 && ready.body.contains("[+]loop-engine ok"), "{ready:?}");
    Ok(())
}

//! A PostgreSQL primary and its standby outside the cluster, behind one Service.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;

use crate::gated::Gated;
use crate::hosts::Host;
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic::{Question, Traffic};
use crate::verdict::{self, State, WATCHED};

const POSTGRES: u16 = 5432;
/// Answers 200 on a primary and 503 on a standby, as the usual managers of clusters do.
const ROLE: u16 = 8008;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("databases::a_promotion_moves_the_traffic", promotion)]
}

async fn promotion(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let (primary, standby) = (room.host("pg-a").await?, room.host("pg-b").await?);
    primary.serve(&["postgres"]).await?;
    primary.act("run", &["psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "CREATE TABLE orders ()"]).await?;
    standby.serve(&["postgres", &primary.ip.to_string()]).await?;

    let hosts = [primary.clone(), standby.clone()];
    let target = |host: &Host| json!({"name": host.name, "host": host.ip, "port": POSTGRES});
    let role = json!({"http": {"port": ROLE, "path": "/primary", "expectedStatuses": [200]}});
    let spec = verdict::quick(role, &hosts.iter().map(target).collect::<Vec<_>>());
    let gated = Gated::new(&room, "orders-db", &hosts, spec, json!({"whenBelow": "FailStatic"})).await?;
    let settled = gated.settled(&[true, false]).await?;
    gated.effective("Enforced").await?;

    let traffic = Traffic::ask(&room.node, gated.address, Question::Insert).await?;
    traffic.more(50).await?;
    let begun = Instant::now();
    primary.kill().await?;
    // There is no primary for the moment: the gate keeps what it said last.
    gated.verdict(&primary, State::Unhealthy, begun).await?;
    gated.effective("FailStatic").await?;
    gated.published.unchanged(begun)?;
    standby.act("promote", &[]).await?;
    let verdict = gated.verdict(&standby, State::Healthy, begun).await?;
    gated.says(&[false, true]).await?;
    traffic.until("requests after the verdict", verdict + WATCHED, |seen| seen.len() >= 100).await?;
    let report = traffic.stop("PostgreSQL promoted").await?;
    let answers = report.answers(verdict + WATCHED);
    ensure!(answers.keys().eq([standby.ip.to_string().as_str()].iter()), "answers of {answers:?}");
    report.over_by(begun, verdict)?;
    gated.effective("Enforced").await?;
    let seen = gated.published.history(standby.ip, settled)?;
    ensure!(seen == [false, true].map(Some), "{} was {seen:?}", standby.name);
    Ok(())
}

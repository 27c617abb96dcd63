//! Databases outside the cluster behind one Service: a primary, and what takes over from it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use libtest_mimic::Trial;
use serde_json::json;

use crate::gated::Gated;
use crate::hosts::Host;
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic::{Question, Traffic};
use crate::verdict::{self, State, WATCHED};

const POSTGRES: u16 = 5432;
const REDIS: u16 = 6379;
/// Answers 200 on a primary and 503 on a standby, as the usual managers of clusters do.
const ROLE: u16 = 8008;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.show("databases::a_promotion_moves_the_traffic", promotion),
        suite.show("databases::redis_is_asked_for_its_role", failover),
    ]
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

    let traffic = Traffic::ask(gated.address, Question::Insert).await?;
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

/// The master is asked to become a replica, and its replica to become the master, while clients write.
async fn failover(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = [room.host("redis-a").await?, room.host("redis-b").await?];
    for host in &hosts {
        host.serve(&["redis"]).await?;
    }
    let [former, next] = &hosts;
    replicate(next, Some(former)).await?;
    let target = |host: &Host| json!({"name": host.name, "host": host.ip, "port": REDIS});
    let blocks = ["INFO replication\r\nQUIT\r\n", "role:master"].map(|block| STANDARD.encode(block));
    let role = json!({"tcp": {"send": blocks[0], "receive": [blocks[1]]}});
    let spec = verdict::quick(role, &hosts.iter().map(target).collect::<Vec<_>>());
    let gated = Gated::new(&room, "cache", &hosts, spec, json!({"whenBelow": "FailStatic"})).await?;
    let settled = gated.settled(&[true, false]).await?;

    let traffic = Traffic::ask(gated.address, Question::Set).await?;
    traffic.more(50).await?;
    let begun = Instant::now();
    replicate(next, None).await?;
    replicate(former, Some(next)).await?;
    let verdict = gated.verdict(next, State::Healthy, begun).await?;
    let verdict = verdict.max(gated.verdict(former, State::Unhealthy, begun).await?);
    gated.says(&[false, true]).await?;
    traffic.until("requests after the verdicts", verdict + WATCHED, |seen| seen.len() >= 100).await?;
    let report = traffic.stop("Redis failed over").await?;
    let answers = report.answers(verdict + WATCHED);
    ensure!(answers.keys().eq([next.ip.to_string().as_str()].iter()), "answers of {answers:?}");
    report.over_by(begun, verdict)?;
    let seen = gated.published.history(next.ip, settled)?;
    ensure!(seen == [false, true].map(Some), "{} was {seen:?}", next.name);
    Ok(())
}

/// Makes `host` a replica of another, or a master.
async fn replicate(host: &Host, of: Option<&Host>) -> anyhow::Result<()> {
    let of = of.map_or_else(|| ["NO".to_owned(), "ONE".to_owned()], |of| [of.ip.to_string(), REDIS.to_string()]);
    let said = host.act("run", &["redis-cli", "REPLICAOF", &of[0], &of[1]]).await?;
    ensure!(said.trim() == "OK", "REPLICAOF: {said}");
    Ok(())
}

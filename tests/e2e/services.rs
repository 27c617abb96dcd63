//! Outside hosts behind a Service without a selector, as kube-proxy sends to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::json;

use crate::gated::{self, Gated};
use crate::hosts::Host;
use crate::pace::Pace;
use crate::published::Ready;
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic;
use crate::verdict::{State, WATCHED};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.show("services::a_host_that_dies_gets_no_requests_until_it_is_back", one),
        suite.show("services::several_that_die_at_once_are_gone_at_once", several),
        suite.show("services::when_all_die_the_policy_decides", all),
    ]
}

async fn one(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a", "b", "c"]).await?;
    let gated = Gated::new(&room, "backends", &hosts, gated::spec(&hosts), json!({})).await?;
    let settled = gated.settled(&[true, true, true]).await?;
    let sick = &hosts[1];
    for fault in ["500", "dropped", "killed"] {
        let traffic = gated.traffic().await?;
        let pace = Pace::watch(&room.node, &room.namespace, &gated.name).await?;
        let begun = Instant::now();
        sick.break_by(fault).await?;
        let verdict = gated.verdict(sick, State::Unhealthy, begun).await?;
        let written = gated.published.turned(sick.ip, false, begun).await?;
        traffic.until("requests after the verdict", verdict + WATCHED, |seen| seen.len() >= 100).await?;
        pace.tell(fault, sick, begun, written)?;
        let mended = Instant::now();
        sick.mend(fault).await?;
        let back = gated.published.turned(sick.ip, true, mended).await?;
        traffic.answered_by(&sick.name).await?;
        traffic.until("requests after the return", back + WATCHED, |seen| seen.len() >= 100).await?;
        let report = traffic.stop(&format!("kube-proxy: {fault}")).await?;
        report.over_by(begun, verdict)?;
    }
    let seen = gated.published.history(sick.ip, settled)?;
    ensure!(seen == [true, false, true, false, true, false, true].map(Some), "{} was {seen:?}", sick.name);
    never_withheld(&gated, &[&hosts[0], &hosts[2]], settled)
}

/// Three of five, each in a way of its own. kube-proxy writes its rules once a second at most: what does not go with the
/// first change waits for that long.
async fn several(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a", "b", "c", "d", "e"]).await?;
    let gated = Gated::new(&room, "many-backends", &hosts, gated::spec(&hosts), json!({})).await?;
    let settled = gated.settled(&[true; 5]).await?;
    let traffic = gated.traffic().await?;
    let (begun, dying) = (Instant::now(), [(&hosts[0], "500"), (&hosts[1], "killed"), (&hosts[2], "dropped")]);
    futures::future::try_join_all(dying.map(|(host, fault)| host.break_by(fault))).await?;
    let mut verdict = begun;
    for (host, _) in dying {
        verdict = verdict.max(gated.verdict(host, State::Unhealthy, begun).await?);
    }
    gated.says(&[false, false, false, true, true]).await?;
    traffic.until("requests after the verdicts", verdict + WATCHED, |seen| seen.len() >= 100).await?;
    let mended = Instant::now();
    futures::future::try_join_all(dying.map(|(host, fault)| host.mend(fault))).await?;
    for (host, _) in dying {
        gated.published.turned(host.ip, true, mended).await?;
        traffic.answered_by(&host.name).await?;
    }
    traffic.more(100).await?;
    let report = traffic.stop("kube-proxy: three of five at once").await?;
    report.over_by(begun, verdict)?;
    for (host, _) in dying {
        let seen = gated.published.history(host.ip, settled)?;
        ensure!(seen == [true, false, true].map(Some), "{} was {seen:?}", host.name);
    }
    never_withheld(&gated, &[&hosts[3], &hosts[4]], settled)
}

fn never_withheld(gated: &Gated, hosts: &[&Host], since: Instant) -> anyhow::Result<()> {
    for host in hosts {
        let seen = gated.published.history(host.ip, since)?;
        ensure!(seen == [Some(true)], "{} was {seen:?}", host.name);
    }
    Ok(())
}

/// What a policy publishes when the hosts die one after another.
struct Policy {
    name: &'static str,
    gated: Gated,
    /// When none is left.
    last: [bool; 3],
}

async fn all(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a", "b", "c"]).await?;
    let mut policies = Vec::new();
    for (name, last) in [("FailOpen", [true; 3]), ("FailStatic", [true, false, false]), ("FailClosed", [false; 3])] {
        let service = name.to_lowercase();
        let gated = Gated::new(&room, &service, &hosts, gated::spec(&hosts), json!({"whenBelow": name})).await?;
        policies.push(Policy { name, gated, last });
    }
    let settled = say(&policies, |_| [true; 3], |_| "Enforced").await?;

    // One after another, as slowly as what is no disaster of the prober itself: that would freeze the gates.
    for (index, left) in [(2, [true, true, false]), (1, [true, false, false])] {
        die(&hosts[index]).await?;
        say(&policies, |_| left, |_| "Enforced").await?;
        hosts[index].probed(3 * 8).await?;
    }
    die(&hosts[0]).await?;
    say(&policies, |policy| policy.last, |policy| policy.name).await?;
    let decided = Instant::now();
    for policy in &policies {
        policy.gated.probed_on().await?;
        policy.gated.published.unchanged(decided)?;
        let check = policy.gated.effective(policy.name).await?;
        let gate = check.status.context("no status")?.gate;
        ensure!(gate.as_deref() == Some(&*format!("{}: {}", policy.gated.name, policy.name)), "{gate:?}");
        println!("  {}: {}", policy.name, summary(&policy.gated.hosts, &policy.gated.published.now()?));
    }
    asked(&policies).await?;

    // The first is back before the others: so those that published it never had a reason to withhold it.
    hosts[0].mend("500").await?;
    say(&policies, |_| [true, false, false], |_| "Enforced").await?;
    for host in &hosts[1..] {
        host.mend("500").await?;
    }
    say(&policies, |_| [true; 3], |_| "Enforced").await?;
    for policy in &policies {
        let traffic = policy.gated.traffic().await?;
        traffic.more(100).await?;
        traffic.stop(&format!("{}: all are back", policy.name)).await?.lossless()?;
        if policy.last[0] {
            never_withheld(&policy.gated, &[&hosts[0]], settled)?;
        }
    }
    Ok(())
}

/// Its answer to a probe and to a client is 500 from now on.
async fn die(host: &Host) -> anyhow::Result<()> {
    host.break_by("500").await
}

async fn say(
    policies: &[Policy],
    ready: impl Fn(&Policy) -> [bool; 3],
    effective: impl Fn(&Policy) -> &'static str,
) -> anyhow::Result<Instant> {
    for policy in policies {
        policy.gated.settled(&ready(policy)).await?;
        policy.gated.effective(effective(policy)).await?;
    }
    Ok(Instant::now())
}

/// Clients reach those that are published, and nobody else, though all of them are sick.
async fn asked(policies: &[Policy]) -> anyhow::Result<()> {
    for policy in policies {
        let asked = traffic::asked(policy.gated.address, 60).await;
        let wanted = policy.gated.hosts.iter().zip(policy.last).filter(|(_, ready)| *ready);
        let wanted: BTreeSet<_> = wanted.map(|(host, _)| host.name.clone()).collect();
        ensure!(asked == wanted, "{} sends to {asked:?}, not to {wanted:?}", policy.name);
    }
    Ok(())
}

fn summary(hosts: &[Host], ready: &Ready) -> String {
    let of = |host: &Host| match ready.get(&host.ip) {
        Some(true) => format!("{} ready", host.name),
        Some(false) => format!("{} not ready", host.name),
        None => format!("{} absent", host.name),
    };
    hosts.iter().map(of).collect::<Vec<_>>().join(", ")
}

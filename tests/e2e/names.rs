//! A target that is a DNS name whose address changes.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use crate::gated::Gated;
use crate::hosts::{HTTP_PORT, PROBED};
use crate::room::Room;
use crate::shell::signal;
use crate::suite::Suite;
use crate::traffic::GRACE;
use crate::verdict;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.show("names::a_name_is_followed_to_its_new_address", moved),
        suite.show("names::of_two_addresses_the_one_that_dies_leaves_the_service", apart),
    ]
}

/// The name stays healthy, since one address that answers is enough; the other is published by its own verdict.
async fn apart(room: Arc<Room>) -> anyhow::Result<()> {
    room.operator(&[]).await?;
    let hosts = room.http_hosts(&["well", "sick", "late"]).await?;
    let (well, sick, late) = (&hosts[0], &hosts[1], &hosts[2]);
    let name = format!("pair-{}", well.name);
    room.node.script("name", &[&name, &well.ip.to_string(), &sick.ip.to_string()]).await?;
    let target = json!({"name": "pair", "host": format!("{name}.outside.test"), "port": HTTP_PORT});
    let probe = json!({"http": {"path": PROBED, "expectedStatuses": [200]}});
    let gated = Gated::new(&room, "by-names", &hosts, verdict::quick(probe, &[target]), json!({})).await?;
    gated.published.wait(&[(well.ip, true), (sick.ip, true)].into()).await?;
    let traffic = gated.traffic().await?;
    traffic.answered_by(&sick.name).await?;

    let died = Instant::now();
    sick.break_by("killed").await?;
    let withheld = gated.published.wait(&[(well.ip, true), (sick.ip, false)].into()).await?;
    traffic.more(150).await?;
    let check = room.health("by-names", "Healthy").await?;
    ensure!(check.status.and_then(|status| status.summary).as_deref() == Some("1/1"), "one target");
    sick.mend("killed").await?;
    gated.published.wait(&[(well.ip, true), (sick.ip, true)].into()).await?;
    traffic.answered_by(&sick.name).await?;

    // One that does not answer joins the name, and is never let in.
    late.break_by("500").await?;
    let ips = [well, sick, late].map(|host| host.ip.to_string());
    room.node.script("name", &[&name, &ips[0], &ips[1], &ips[2]]).await?;
    gated.published.wait(&[(well.ip, true), (sick.ip, true), (late.ip, false)].into()).await?;
    traffic.more(100).await?;
    let report = traffic.stop("a name with two addresses, of which one dies").await?;
    report.over_by(died, withheld)?;
    let said = gated.published.all()?;
    ensure!(said.iter().all(|(_, said)| said.get(&late.ip) != Some(&true)), "never ready: {said:?}");
    room.node.script("name", &[&name]).await.map(|_| ())
}

async fn moved(room: Arc<Room>) -> anyhow::Result<()> {
    let release = room.operator(&[]).await?;
    let hosts = room.http_hosts(&["old", "new"]).await?;
    let (old, new) = (&hosts[0], &hosts[1]);
    // No host is called so.
    let name = format!("service-{}", old.name);
    room.node.script("name", &[&name, &old.ip.to_string()]).await?;
    let target = json!({"name": "service", "host": format!("{name}.outside.test"), "port": HTTP_PORT});
    let probe = json!({"http": {"path": PROBED, "expectedStatuses": [200]}});
    let gated = Gated::new(&room, "by-name", &hosts, verdict::quick(probe, &[target]), json!({})).await?;
    gated.published.wait(&[(old.ip, true)].into()).await?;
    let traffic = gated.traffic().await?;
    let settled = Instant::now();

    // The resolver says nothing for a while, and whoever leads is killed meanwhile: what is known stays.
    let resolver = resolver(&room).await?;
    signal(resolver, Signal::STOP)?;
    // Longer than any answer is kept: the probes go on where the name led to.
    let silent = async {
        traffic.more(600).await?;
        let (holder, leader) = (release.holder().await?, release.leader().await?);
        let processes = release.processes().await?;
        let (_, process) = processes.iter().find(|(pod, _)| *pod == leader).context("no process of the leader")?;
        signal(*process, Signal::KILL)?;
        release.held_by_another(&holder).await?;
        let before = old.hits_of(PROBED).await?;
        traffic.more(300).await?;
        let now = old.hits_of(PROBED).await?;
        ensure!(now > before, "no probe more");
        anyhow::Ok(())
    };
    let silent = silent.await;
    signal(resolver, Signal::CONT)?;
    silent?;
    old.probed(3).await?;
    gated.published.unchanged(settled)?;

    let begun = Instant::now();
    room.node.script("name", &[&name, &new.ip.to_string()]).await?;
    let written = gated.published.wait(&[(new.ip, true)].into()).await?;
    println!("  the slice followed the name after {:.2} s", written.saturating_duration_since(begun).as_secs_f64());
    traffic.answered_by(&new.name).await?;
    new.probed(3).await?;
    traffic.more(150).await?;
    let report = traffic.stop("a name whose address changes").await?;
    let answers = report.answers(written + GRACE);
    ensure!(!answers.contains_key(&*old.name), "answers of {answers:?}");
    report.lossless()?;
    // At no time nobody was published.
    let said = gated.published.all()?;
    let said: Vec<_> = said.iter().skip_while(|(_, said)| !said.values().any(|ready| *ready)).collect();
    ensure!(said.iter().all(|(_, said)| said.values().any(|ready| *ready)), "{said:?}");
    room.node.script("name", &[&name]).await.map(|_| ())
}

/// The process of CoreDNS.
async fn resolver(room: &Room) -> anyhow::Result<u32> {
    let pods: Api<Pod> = Api::namespaced(room.client.clone(), "kube-system");
    let all = pods.list(&ListParams::default().labels("k8s-app=kube-dns")).await?.items;
    let name = all.into_iter().next().and_then(|pod| pod.metadata.name).context("no pod of CoreDNS")?;
    Ok(room.node.script("pid", &["kube-system", &name]).await?.trim().parse()?)
}

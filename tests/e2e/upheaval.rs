//! What happens to the operator, and to nothing that is behind a gate.
//!
//! Two hosts are well and one is sick all the time: an endpoint that were withheld or admitted for a moment would be
//! seen in the watch of the slices, and the sick one by the clients too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::json;

use crate::gated::{self, Gated};
use crate::hosts::{HTTP_PORT, Host};
use crate::release::Release;
use crate::room::{Room, SOON};
use crate::shell::signal;
use crate::suite::Suite;
use crate::support::wait::wait_until;
use crate::verdict::State;

/// How long everything is stopped.
const ASLEEP: Duration = Duration::from_secs(60);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.show("upheaval::the_operator_is_killed_upgraded_and_drained", replaced),
        suite.show("upheaval::the_operator_is_cut_off_and_stopped", cut_off),
    ]
}

struct Scene {
    room: Arc<Room>,
    release: Release,
    gated: Gated,
    /// What another check watches.
    _others: Vec<Host>,
    since: Instant,
}

impl Scene {
    async fn new(room: Arc<Room>) -> anyhow::Result<Self> {
        // Who is stopped for a minute does not answer the kubelet either, and is not to be restarted.
        let release = room.operator(&["--set", "livenessProbe.failureThreshold=30"]).await?;
        let hosts = room.http_hosts(&["a", "b", "sick"]).await?;
        hosts[2].answer("500").await?;
        let mut spec = gated::spec(&hosts);
        spec["failureThreshold"] = json!(3);
        // With the default policy: a prober that believed itself would publish the sick one too.
        let gated = Gated::new(&room, "backends", &hosts, spec.clone(), json!({})).await?;
        // A loss of everything is the prober's own only if another check has it too, of hosts of its own.
        let others = room.http_hosts(&["c", "d"]).await?;
        let targets = others.iter().map(|host| json!({"name": host.name, "host": host.ip, "port": HTTP_PORT}));
        spec["targets"] = targets.collect();
        room.check("others", spec).await?;
        room.health("others", "Healthy").await?;
        gated.settled(&[true, true, false]).await?;
        gated.effective("Enforced").await?;
        Ok(Self { room, release, gated, _others: others, since: Instant::now() })
    }

    /// Does something while clients send requests; none of them fails, and no endpoint changes.
    async fn while_asked<F: Future<Output = anyhow::Result<()>>>(&self, title: &str, what: F) -> anyhow::Result<()> {
        let (begun, traffic) = (Instant::now(), self.gated.traffic().await?);
        what.await.with_context(|| String::from(title))?;
        // Probed by whoever is there now, and what that one says of it is written.
        self.gated.probed_on().await?;
        traffic.more(150).await?;
        println!("  {title} took {:.1} s", begun.elapsed().as_secs_f64());
        traffic.stop(title).await?.lossless()?;
        self.gated.published.unchanged(self.since).with_context(|| String::from(title))
    }

    /// After all of it a host that dies is withheld, and one that is back is admitted: nothing was merely asleep.
    async fn works(&self) -> anyhow::Result<()> {
        self.gated.effective("Enforced").await?;
        let begun = Instant::now();
        self.gated.hosts[0].break_by("500").await?;
        self.gated.verdict(&self.gated.hosts[0], State::Unhealthy, begun).await?;
        self.gated.says(&[false, true, false]).await?;
        self.gated.hosts[0].mend("500").await?;
        self.gated.says(&[true, true, false]).await.map(|_| ())
    }

    async fn processes(&self) -> anyhow::Result<(String, u32, Vec<u32>)> {
        let (holder, leader) = (self.release.holder().await?, self.release.leader().await?);
        let all = self.release.processes().await?;
        let of = all.iter().find(|(pod, _)| *pod == leader).with_context(|| format!("{leader} is none of {all:?}"))?.1;
        let others = all.iter().map(|(_, process)| *process).filter(|process| *process != of).collect();
        Ok((holder, of, others))
    }

    async fn killed(&self) -> anyhow::Result<()> {
        let (holder, leader, _) = self.processes().await?;
        signal(leader, Signal::KILL)?;
        self.release.held_by_another(&holder).await
    }

    async fn upgraded(&self) -> anyhow::Result<()> {
        let before = self.release.holder().await?;
        let values = ["--set", "livenessProbe.failureThreshold=30", "--set", "logFormat=json"];
        self.release.upgrade(&self.room.own_values(&values)).await?;
        self.release.held_by_another(&before).await
    }

    /// The chart's budget lets one go at a time, so a drain waits for the other's successor, which needs the node back.
    async fn drained(&self) -> anyhow::Result<()> {
        let (node, before) = (self.room.node.fact("NODE"), self.release.pod_names().await?);
        let selector = format!("--pod-selector=app.kubernetes.io/instance={}", self.release.name);
        let drain = ["drain", node, &selector, "--delete-emptydir-data", "--timeout=120s"];
        let uncordon = async {
            let gone = wait_until("the first pod to be evicted", SOON, || async {
                let left = self.release.pod_names().await?;
                ensure!(before.iter().any(|pod| !left.contains(pod)), "{left:?}");
                anyhow::Ok(())
            })
            .await;
            // In any case: other shows need the node.
            self.room.node.kubectl(&["uncordon", node]).await?;
            gone
        };
        let (drained, uncordoned) = tokio::join!(self.room.node.kubectl(&drain), uncordon);
        drained?;
        uncordoned?;
        let left = self.release.pod_names().await?;
        ensure!(!left.iter().any(|pod| before.contains(pod)), "{left:?} are left of {before:?}");
        self.release.ready().await?;
        self.release.taken_over(&before).await
    }

    /// The API server does not hear the operator for longer than its lease holds.
    async fn without_api_server(&self) -> anyhow::Result<()> {
        let pods = self.release.addresses().await?;
        let rule =
            format!("chain in {{ type filter hook input priority 0; ip saddr {{ {pods} }} tcp dport 6443 drop; }}");
        let renewed = self.release.renewed().await?;
        self.cut(&rule, async {
            // Two a second.
            self.gated.hosts[2].probed(44).await?;
            self.gated.probed_on().await?;
            let now = self.release.renewed().await?;
            ensure!(now == renewed, "the lease was renewed at {now:?}, though the API server was cut off");
            Ok(())
        })
        .await?;
        wait_until("the lease to be renewed", SOON, || async {
            let now = self.release.renewed().await?;
            ensure!(now != renewed, "{now:?}");
            anyhow::Ok(())
        })
        .await
    }

    /// No probe arrives anywhere.
    async fn without_targets(&self) -> anyhow::Result<()> {
        let pods = self.release.addresses().await?;
        let lan = self.room.node.fact("LAN_CIDR");
        let rule = format!(
            "chain through {{ type filter hook forward priority 0; ip saddr {{ {pods} }} ip daddr {lan} drop; }}"
        );
        let begun = Instant::now();
        self.cut(&rule, async {
            for host in &self.gated.hosts[..2] {
                self.gated.verdict(host, State::Unhealthy, begun).await?;
            }
            self.gated.effective("Frozen").await.map(|_| ())
        })
        .await?;
        self.room.health("others", "Healthy").await?;
        self.gated.effective("Enforced").await.map(|_| ())
    }

    /// Whatever comes of `what`, the node's firewall is then as it was.
    async fn cut<F: Future<Output = anyhow::Result<()>>>(&self, rule: &str, what: F) -> anyhow::Result<()> {
        let node = &self.room.node;
        node.script("enter", &["nft", &format!("table inet cut {{ {rule}\n}}")]).await?;
        let done = what.await;
        node.script("enter", &["nft", "delete table inet cut"]).await?;
        done
    }

    /// The holder of the lease is stopped, the other takes over and is stopped as well, and both wake up.
    async fn stopped(&self) -> anyhow::Result<()> {
        let (holder, leader, others) = self.processes().await?;
        let begun = Instant::now();
        signal(leader, Signal::STOP)?;
        let asleep = async {
            self.release.held_by_another(&holder).await?;
            self.gated.probed_on().await?;
            for other in &others {
                signal(*other, Signal::STOP)?;
            }
            tokio::time::sleep_until((begun + ASLEEP).into()).await;
            self.release.renewed().await
        };
        let renewed = asleep.await;
        for process in [leader].iter().chain(&others) {
            signal(*process, Signal::CONT)?;
        }
        let renewed = renewed?;
        wait_until("the lease to be renewed", SOON, || async {
            let now = self.release.renewed().await?;
            ensure!(now != renewed, "{now:?}");
            anyhow::Ok(())
        })
        .await
    }
}

async fn replaced(room: Arc<Room>) -> anyhow::Result<()> {
    let scene = Scene::new(room).await?;
    scene.while_asked("operator killed -9", scene.killed()).await?;
    scene.while_asked("operator upgraded", scene.upgraded()).await?;
    scene.while_asked("operator drained", scene.drained()).await?;
    scene.works().await
}

async fn cut_off(room: Arc<Room>) -> anyhow::Result<()> {
    let scene = Scene::new(room).await?;
    scene.while_asked("operator cut off from the API server", scene.without_api_server()).await?;
    scene.while_asked("operator cut off from the targets", scene.without_targets()).await?;
    scene.while_asked("operator stopped for a minute", scene.stopped()).await?;
    scene.works().await
}

//! Each fault of the fault proxy, as a Kubernetes client meets it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use libtest_mimic::Trial;

use crate::harness::{config_map, refused_with};
use crate::suite::Suite;
use crate::support::control_plane::{ControlPlane, client_for};
use crate::support::fault_proxy::{Fault, FaultProxy, Match};
use crate::support::wait::wait_until;

const SOON: Duration = Duration::from_secs(30);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("faults::requests_are_refused", refused),
        suite.trial("faults::connections_are_cut", cut),
        suite.trial("faults::an_answer_is_lost_but_the_write_is_not", lost_answer),
        suite.trial("faults::a_held_write_lands_late", held),
        suite.trial("faults::requests_are_delayed", delayed),
        suite.trial("faults::events_are_repeated_dropped_and_held", events),
        suite.trial("faults::a_watch_expires", expires),
        suite.trial("faults::a_closed_proxy_refuses", closed),
    ]
}

/// A proxy of the trial's own, and ConfigMaps seen through it and past it.
struct Setting {
    proxy: FaultProxy,
    through: Api<ConfigMap>,
    past: Api<ConfigMap>,
}

impl Setting {
    async fn new(cluster: &ControlPlane) -> anyhow::Result<Self> {
        let namespace = cluster.namespace("faults").await?;
        let token = cluster.service_account(&namespace, "client").await?;
        cluster.bind(&namespace, "client", "cluster-admin").await?;
        let proxy = FaultProxy::start(cluster).await?;
        let through = Api::namespaced(client_for(&proxy.url(), None, &token).await?, &namespace);
        let setting = Self { proxy, through, past: Api::namespaced(cluster.client(), &namespace) };
        wait_until("the grant to hold", SOON, async || setting.through.list(&ListParams::default()).await).await?;
        Ok(setting)
    }

    async fn create(&self, name: &str) -> kube::Result<ConfigMap> {
        self.through.create(&PostParams::default(), &config_map(name)).await
    }

    async fn create_past(&self, name: &str) -> kube::Result<ConfigMap> {
        self.past.create(&PostParams::default(), &config_map(name)).await
    }

    /// Watches from now on.
    async fn watch(&self) -> anyhow::Result<Watching> {
        let list = self.past.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.context("a list without a version")?;
        // The API server sends a watch's head at once, so this returns before the first event.
        let stream = self.through.watch(&WatchParams::default().disable_bookmarks(), &version).await?;
        Ok(Watching(Box::pin(stream)))
    }
}

struct Watching(Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<ConfigMap>>>>>);

impl Watching {
    /// The next event: `ADDED name`, `ERROR code`, or `end`, which kube's client also makes of a
    /// connection that breaks in the middle.
    async fn next(&mut self) -> anyhow::Result<String> {
        let event = tokio::time::timeout(SOON, self.0.next()).await.context("no event came")?;
        Ok(match event {
            Some(Ok(WatchEvent::Added(map))) => format!("ADDED {}", map.metadata.name.unwrap_or_default()),
            Some(Ok(WatchEvent::Error(status))) => format!("ERROR {}", status.code),
            Some(Ok(other)) => format!("{other:?}"),
            Some(Err(error)) => error.to_string(),
            None => String::from("end"),
        })
    }

    async fn expect(&mut self, wanted: &str) -> anyhow::Result<()> {
        let seen = self.next().await?;
        ensure!(seen == wanted, "{seen:?} came, wanted {wanted:?}");
        Ok(())
    }
}

async fn refused(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    for status in [429, 500, 503] {
        let fault = Fault::Answer { status, retry_after: Some(7) };
        let rule = setting.proxy.inject_times(1, Match::verb("list").resource("configmaps"), fault);
        let url = format!("{}/api/v1/configmaps", setting.proxy.url());
        let answer = reqwest::get(url).await?;
        ensure!(answer.status() == status, "{answer:?}");
        ensure!(answer.headers().get("retry-after").is_some_and(|after| after == "7"), "{answer:?}");
        // Once was all: the next one gets through.
        setting.through.list(&ListParams::default()).await?;
        ensure!(rule.hits() == 1, "{} hits", rule.hits());
    }
    let rule = setting.proxy.inject(Match::verb("create"), Fault::Answer { status: 503, retry_after: None });
    let code = refused_with(setting.create("refused").await)?;
    ensure!(code == 503, "{code}");
    setting.through.list(&ListParams::default()).await.context("a request that does not match")?;
    rule.lift();
    setting.create("accepted").await?;
    let creates = setting.proxy.count(&Match::verb("create").resource("configmaps"));
    ensure!(creates == 2, "{creates} creates counted, wanted 2");
    Ok(())
}

async fn cut(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let mut watching = setting.watch().await?;
    let rule = setting.proxy.inject(Match::any().resource("configmaps"), Fault::Cut);
    watching.expect("end").await?;
    let asked = setting.create("cut").await;
    ensure!(matches!(asked, Err(ref error) if !matches!(error, kube::Error::Api(_))), "{asked:?}");
    rule.lift();
    let absent = setting.past.get_opt("cut").await?;
    ensure!(absent.is_none(), "a request that was cut was carried out");
    let mut watching = setting.watch().await?;
    setting.proxy.cut();
    watching.expect("end").await?;
    setting.create("whole").await?;
    Ok(())
}

async fn lost_answer(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let _rule = setting.proxy.inject_times(1, Match::verb("create"), Fault::LoseAnswer);
    let asked = setting.create("written").await;
    ensure!(asked.is_err(), "{asked:?}");
    setting.past.get("written").await.context("the write whose answer was lost")?;
    Ok(())
}

async fn held(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let rule = setting.proxy.inject(Match::verb("create"), Fault::Hold);
    let asked = tokio::time::timeout(Duration::from_secs(1), setting.create("late")).await;
    ensure!(asked.is_err(), "a held request was answered: {asked:?}");
    ensure!(rule.hits() == 1 && setting.past.get_opt("late").await?.is_none(), "not held");
    rule.lift();
    wait_until("the write to land", SOON, || setting.past.get("late")).await?;
    Ok(())
}

async fn delayed(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let rule = setting.proxy.inject(Match::verb("get"), Fault::Delay(Duration::from_secs(2)));
    let asked = tokio::time::timeout(Duration::from_secs(1), setting.through.get_opt("any")).await;
    ensure!(asked.is_err(), "a delayed request was answered at once: {asked:?}");
    setting.through.get_opt("any").await.context("a delayed request is answered in the end")?;
    ensure!(rule.hits() == 2, "{} hits", rule.hits());
    Ok(())
}

async fn events(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let mut watching = setting.watch().await?;
    let watches = || Match::verb("watch").resource("configmaps");
    setting.create_past("once").await?;
    watching.expect("ADDED once").await?;

    let rule = setting.proxy.inject_times(1, watches(), Fault::RepeatEvents);
    setting.create_past("twice").await?;
    watching.expect("ADDED twice").await?;
    watching.expect("ADDED twice").await?;
    rule.lift();

    let rule = setting.proxy.inject_times(1, watches(), Fault::DropEvents);
    setting.create_past("dropped").await?;
    setting.create_past("after").await?;
    watching.expect("ADDED after").await?;
    ensure!(rule.hits() == 1, "{} hits", rule.hits());
    rule.lift();

    let rule = setting.proxy.inject(watches(), Fault::Hold);
    setting.create_past("held").await?;
    wait_until("the event to be held", SOON, || {
        std::future::ready(if rule.hits() == 1 { Ok(()) } else { Err(rule.hits()) })
    })
    .await?;
    let early = tokio::time::timeout(Duration::from_millis(300), watching.next()).await;
    ensure!(early.is_err(), "a held event came: {early:?}");
    rule.lift();
    watching.expect("ADDED held").await
}

async fn expires(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let mut watching = setting.watch().await?;
    let rule = setting.proxy.inject_times(2, Match::verb("watch"), Fault::GoneEvent);
    watching.expect("ERROR 410").await?;
    watching.expect("end").await?;
    let mut again = setting.watch().await?;
    again.expect("ERROR 410").await?;
    let mut third = setting.watch().await?;
    setting.create_past("after").await?;
    third.expect("ADDED after").await?;
    rule.lift();

    let _rule = setting.proxy.inject(Match::verb("watch"), Fault::Gone);
    let refused = setting.through.watch(&WatchParams::default(), "0").await.map(|_| ());
    let code = refused_with(refused)?;
    ensure!(code == 410, "{code}");
    Ok(())
}

async fn closed(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let setting = Setting::new(&cluster).await?;
    let mut watching = setting.watch().await?;
    setting.proxy.close().await;
    watching.expect("end").await?;
    ensure!(setting.through.get_opt("any").await.is_err(), "a closed proxy answered");
    setting.proxy.reopen().await?;
    setting.through.get_opt("any").await.context("after the proxy is open again")?;
    Ok(())
}

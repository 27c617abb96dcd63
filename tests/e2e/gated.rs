//! Outside hosts behind a Service without a selector, with a gate that publishes them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use healthcheck_operator::api::HealthCheck;
use serde_json::{Value, json};

use crate::hosts::{HTTP_PORT, Host, PROBED};
use crate::published::{Published, Ready};
use crate::room::{Room, SOON};
use crate::support::recorder::Recorder;
use crate::support::wait::wait_until;
use crate::traffic::{Traffic, asked};
use crate::verdict::{self, State};

/// The port of the Services, which is none of the hosts'.
pub const PORT: u16 = 80;
/// Requests by which each of a few hosts is met, but for once in a million times.
const ENOUGH: usize = 40;

/// See the module's own words. The check, its gate's Service and the gate have one name.
pub struct Gated {
    pub room: Arc<Room>,
    pub name: String,
    pub hosts: Vec<Host>,
    pub checks: Recorder<HealthCheck>,
    pub published: Published,
    /// Of the Service.
    pub address: SocketAddr,
}

/// A check of the HTTP target on each host that asks for a path of its own, so that its requests can be told from a
/// client's.
pub fn spec(hosts: &[Host]) -> Value {
    let target = |host: &Host| json!({"name": host.name, "host": host.ip, "port": HTTP_PORT});
    let targets: Vec<_> = hosts.iter().map(target).collect();
    verdict::quick(json!({"http": {"path": PROBED, "expectedStatuses": [200]}}), &targets)
}

/// With one gate, on a Service, that says `more`.
pub fn with_gate(mut spec: Value, service: &str, more: &Value) -> Value {
    let mut gate = json!({"name": service, "endpointSlice": {"service": service, "port": "traffic"}});
    if let (Some(gate), Some(more)) = (gate.as_object_mut(), more.as_object()) {
        gate.extend(more.clone());
    }
    let gates = spec["gates"].as_array().cloned().unwrap_or_default();
    spec["gates"] = gates.into_iter().chain([gate]).collect();
    spec
}

impl Gated {
    /// The Service, and a check of `hosts` as `spec` says, with a gate that says `more`.
    ///
    /// # Errors
    /// When the API server does not take them.
    pub async fn new(room: &Arc<Room>, name: &str, hosts: &[Host], spec: Value, more: Value) -> anyhow::Result<Self> {
        let (checks, published) = (room.record().await?, Published::watch(room, name).await?);
        room.service(name, json!({"ports": [{"name": "traffic", "port": PORT}]})).await?;
        room.check(name, with_gate(spec, name, &more)).await?;
        let address = (room.service_ip(name).await?, PORT).into();
        let (room, name) = (Arc::clone(room), name.to_owned());
        Ok(Self { room, name, hosts: hosts.to_vec(), checks, published, address })
    }

    /// Each host and whether it is to be ready, in order.
    pub fn ready(&self, ready: &[bool]) -> Ready {
        self.hosts.iter().map(|host| host.ip).zip(ready.iter().copied()).collect()
    }

    /// Waits until exactly these hosts are published as ready, in order.
    ///
    /// # Errors
    /// After [`SOON`], with what is published.
    pub async fn says(&self, ready: &[bool]) -> anyhow::Result<Instant> {
        self.published.wait(&self.ready(ready)).await
    }

    /// The same when every host has a verdict: before it has, what is published follows from who was probed first.
    ///
    /// # Errors
    /// As [`Gated::says`].
    pub async fn settled(&self, ready: &[bool]) -> anyhow::Result<Instant> {
        wait_until(&format!("verdicts about all of {}", self.name), SOON, || async {
            for host in &self.hosts {
                let states = verdict::states(&self.checks, &self.name, &host.name)?;
                ensure!(states.last().is_some_and(|(_, state)| *state != State::Unknown), "{}: {states:?}", host.name);
            }
            anyhow::Ok(())
        })
        .await?;
        self.says(ready).await?;
        Ok(Instant::now())
    }

    /// A client of the Service; every host that is published as ready has answered it, and none that is not any more:
    /// kube-proxy follows a slice up to a second later.
    ///
    /// # Errors
    /// When one does not answer, or one goes on that should not.
    pub async fn traffic(&self) -> anyhow::Result<Traffic> {
        let ready = self.published.now()?;
        let withheld =
            |name: &String| self.hosts.iter().any(|host| host.name == *name && ready.get(&host.ip) != Some(&true));
        wait_until(&format!("requests to {} to follow its slices", self.name), SOON, || async {
            let answered = asked(self.address, ENOUGH).await;
            ensure!(!answered.iter().any(withheld), "{answered:?}");
            anyhow::Ok(())
        })
        .await?;
        let traffic = Traffic::start(self.address).await?;
        for host in self.hosts.iter().filter(|host| ready.get(&host.ip) == Some(&true)) {
            traffic.answered_by(&host.name).await?;
        }
        Ok(traffic)
    }

    /// Waits until the verdict about a host was written after `since`, and returns when.
    ///
    /// # Errors
    /// After [`SOON`], with its states.
    pub async fn verdict(&self, host: &Host, state: State, since: Instant) -> anyhow::Result<Instant> {
        verdict::seen(&self.checks, &self.name, &host.name, state, since).await
    }

    /// Waits until the status says that the gate does `effective`, and the condition too.
    ///
    /// # Errors
    /// After [`SOON`], with the status.
    pub async fn effective(&self, effective: &str) -> anyhow::Result<HealthCheck> {
        wait_until(&format!("the gate of {} to be {effective}", self.name), SOON, || async {
            let check = self.room.api::<HealthCheck>().get(&self.name).await?;
            let status = check.status.clone().context("no status")?;
            let condition = status.conditions.iter().find(|condition| condition.type_ == "GatesApplied");
            let told = condition.is_some_and(|condition| condition.status == "True" && condition.reason == effective);
            let gate = status.gates.iter().find(|gate| gate.name == self.name);
            let shown = gate.is_some_and(|gate| gate.effective == effective);
            ensure!(told && shown, "condition {condition:?}, gate {gate:?}");
            anyhow::Ok(check)
        })
        .await
    }

    /// Waits until every host was probed some times more: life goes on.
    ///
    /// # Errors
    /// After [`SOON`], with the hits.
    pub async fn probed_on(&self) -> anyhow::Result<()> {
        for host in &self.hosts {
            host.probed(3).await?;
        }
        Ok(())
    }
}

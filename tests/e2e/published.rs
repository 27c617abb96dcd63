//! What the EndpointSlices of a Service say, and everything they ever said.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use crate::room::{Room, SOON};
use crate::support::recorder::{Change, Recorder};
use crate::support::wait::wait_until;

/// Whether an address is ready; what is not on a slice is not in the map.
pub type Ready = BTreeMap<IpAddr, bool>;

/// A watch of the slices of one Service.
pub struct Published {
    service: String,
    slices: Recorder<EndpointSlice>,
}

impl Published {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the slices cannot be listed.
    pub async fn watch(room: &Room, service: &str) -> anyhow::Result<Self> {
        let slices = Recorder::start(room.api()).await?;
        Ok(Self { service: service.to_owned(), slices })
    }

    /// What the slices said in turn, each with the moment it was heard here, without repetitions. A slice that is
    /// written anew with the same endpoints changes nothing for those who read it.
    ///
    /// # Errors
    /// When the recording has a gap.
    pub fn all(&self) -> anyhow::Result<Vec<(Instant, Ready)>> {
        let mut there: HashMap<String, EndpointSlice> = HashMap::new();
        let mut said: Vec<(Instant, Ready)> = Vec::new();
        for (heard, change) in self.slices.timed()? {
            let (Change::Now(slice) | Change::Gone(slice)) = &change;
            if slice.labels().get("kubernetes.io/service-name") != Some(&self.service) {
                continue;
            }
            match change {
                Change::Now(slice) => there.insert(slice.name_any(), slice),
                Change::Gone(slice) => there.remove(&slice.name_any()),
            };
            let now = ready(there.values())?;
            if said.last().is_none_or(|(_, last)| *last != now) {
                said.push((heard, now));
            }
        }
        Ok(said)
    }

    /// What they say now.
    ///
    /// # Errors
    /// As [`Published::all`].
    pub fn now(&self) -> anyhow::Result<Ready> {
        Ok(self.all()?.pop().map(|(_, ready)| ready).unwrap_or_default())
    }

    /// Waits until they say `wanted`, and returns since when they do.
    ///
    /// # Errors
    /// After [`SOON`], with what they say.
    pub async fn wait(&self, wanted: &Ready) -> anyhow::Result<Instant> {
        wait_until(&format!("the slices of {} to say {wanted:?}", self.service), SOON, || async {
            let last = self.all()?.pop().context("no slice")?;
            ensure!(last.1 == *wanted, "{:?}", last.1);
            anyhow::Ok(last.0)
        })
        .await
    }

    /// Waits until an address turned ready, or not, after `since`, and returns when.
    ///
    /// # Errors
    /// After [`SOON`], with what the slices said.
    pub async fn turned(&self, address: IpAddr, ready: bool, since: Instant) -> anyhow::Result<Instant> {
        wait_until(&format!("{address} to be ready: {ready}"), SOON, || async {
            let all = self.all()?;
            let found = all.iter().find(|(heard, said)| *heard >= since && said.get(&address) == Some(&ready));
            found.map(|(heard, _)| *heard).with_context(|| format!("{:?}", all.last()))
        })
        .await
    }

    /// Whether an address was ready at `since` and then, in turn: `[Some(true), Some(false)]`; `None`: it was on no slice.
    ///
    /// # Errors
    /// As [`Published::all`].
    pub fn history(&self, address: IpAddr, since: Instant) -> anyhow::Result<Vec<Option<bool>>> {
        let all = self.all()?;
        let first = all.iter().rposition(|(heard, _)| *heard <= since).unwrap_or_default();
        let mut history: Vec<_> = all[first..].iter().map(|(_, said)| said.get(&address).copied()).collect();
        history.dedup();
        Ok(history)
    }

    /// Since `since` nothing changed for those who read the slices, not for a moment.
    ///
    /// # Errors
    /// With what they said.
    pub fn unchanged(&self, since: Instant) -> anyhow::Result<()> {
        let all = self.all()?;
        let later: Vec<_> = all.iter().filter(|(heard, _)| *heard > since).map(|(_, said)| said).collect();
        let before = all.iter().rfind(|(heard, _)| *heard <= since).map(|(_, said)| said);
        ensure!(later.is_empty(), "the slices of {} said {before:?}, and then {later:?}", self.service);
        Ok(())
    }
}

/// Every address of the slices; one that is on two of them is an error of whoever wrote them.
fn ready<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> anyhow::Result<Ready> {
    let mut all = Ready::new();
    for endpoint in slices.flat_map(|slice| &slice.endpoints) {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        for address in &endpoint.addresses {
            let twice = all.insert(address.parse()?, conditions.ready.unwrap_or(true));
            ensure!(twice.is_none(), "{address} is on two slices");
        }
    }
    Ok(all)
}

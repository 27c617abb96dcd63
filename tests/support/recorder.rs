//! Everything that happened to some objects, in order: a watch that misses nothing.
//!
//! Polling sees the states that last; a flip between two looks is seen only here.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::StreamExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::wait::wait_until;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object was there at the start, was made, or changed to this.
    Now(K),
    /// The object is gone; this is how it last was.
    Gone(K),
}

/// Changes with the moment each arrived, or why there is a gap.
type Tape<K> = Mutex<anyhow::Result<Vec<(Instant, Change<K>)>>>;

/// A recording that goes on until it is dropped.
pub struct Recorder<K> {
    changes: Arc<Tape<K>>,
    watching: JoinHandle<()>,
}

impl<K> Drop for Recorder<K> {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl<K> Recorder<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Records from now on, beginning with the objects that are there. Hand in an API of the
    /// cluster's own client, not one through a fault proxy.
    ///
    /// # Errors
    /// When the objects cannot be listed.
    pub async fn start(api: Api<K>) -> anyhow::Result<Self> {
        let list = api.list(&ListParams::default()).await?;
        let mut version = list.metadata.resource_version.context("a list without a version")?;
        let first = list.items.into_iter().map(|object| (Instant::now(), Change::Now(object))).collect();
        let changes = Arc::new(Mutex::new(Ok(first)));
        let shared = Arc::clone(&changes);
        let watching = tokio::spawn(async move {
            // A watch that ends is opened again where it ended; only an expired version may leave
            // a gap, and that spoils the recording.
            while let Ok(()) = watch(&api, &mut version, &shared).await.map_err(|gap| {
                *lock(&shared) = Err(gap);
            }) {}
        });
        Ok(Self { changes, watching })
    }

    /// All changes so far, oldest first.
    ///
    /// # Errors
    /// When the recording has a gap, and so proves nothing.
    pub fn changes(&self) -> anyhow::Result<Vec<Change<K>>> {
        Ok(self.timed()?.into_iter().map(|(_, change)| change).collect())
    }

    /// The same, each with the moment it arrived here: some milliseconds after it was written.
    ///
    /// # Errors
    /// As [`Recorder::changes`].
    pub fn timed(&self) -> anyhow::Result<Vec<(Instant, Change<K>)>> {
        match &*lock(&self.changes) {
            Ok(changes) => Ok(changes.clone()),
            Err(gap) => anyhow::bail!("the recording has a gap: {gap:#}"),
        }
    }

    /// What `view` makes of each state that one object went through, without repetitions:
    /// `["Unknown", "Healthy", "Unhealthy"]`.
    ///
    /// # Errors
    /// As [`Recorder::changes`].
    pub fn history<T: PartialEq>(&self, name: &str, view: impl Fn(&K) -> T) -> anyhow::Result<Vec<T>> {
        let mut states = Vec::new();
        for change in self.changes()? {
            if let Change::Now(object) = change
                && object.name_any() == name
            {
                states.push(view(&object));
            }
        }
        states.dedup();
        Ok(states)
    }

    /// Waits until an object has come to a state that `good` likes, now or before.
    ///
    /// # Errors
    /// After `bound`, with its last state.
    pub async fn wait(&self, name: &str, bound: Duration, good: impl Fn(&K) -> bool) -> anyhow::Result<K> {
        let what = format!("{name} to come to a certain state");
        wait_until(&what, bound, || async {
            let changes = self.changes()?;
            let states: Vec<K> = changes
                .into_iter()
                .filter_map(|change| match change {
                    Change::Now(object) if object.name_any() == name => Some(object),
                    _ => None,
                })
                .collect();
            let last = format!("{:?}", states.last());
            states.into_iter().find(|object| good(object)).with_context(|| last)
        })
        .await
    }
}

/// One watch until it ends; an error is a gap.
async fn watch<K>(api: &Api<K>, version: &mut String, changes: &Tape<K>) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let Ok(stream) = api.watch(&WatchParams::default(), version).await else {
        // The API server may be stopped: it will come back.
        tokio::time::sleep(Duration::from_millis(100)).await;
        return Ok(());
    };
    let mut stream = std::pin::pin!(stream);
    while let Some(Ok(event)) = stream.next().await {
        let change = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => Change::Now(object),
            WatchEvent::Deleted(object) => Change::Gone(object),
            WatchEvent::Bookmark(bookmark) => {
                *version = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) if status.code == 410 => {
                *version = unchanged(api, changes).await.with_context(|| status.message.clone())?;
                return Ok(());
            }
            WatchEvent::Error(status) => anyhow::bail!("{}", status.message),
        };
        let (Change::Now(object) | Change::Gone(object)) = &change;
        *version = object.resource_version().context("an object without a version")?;
        if let Ok(changes) = &mut *lock(changes) {
            changes.push((Instant::now(), change));
        }
    }
    Ok(())
}

/// The version of now, where nothing has happened since the last change: the API server forgets what was before when a
/// CRD changes, and then there is nothing to miss.
async fn unchanged<K>(api: &Api<K>, changes: &Tape<K>) -> anyhow::Result<String>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let list = api.list(&ListParams::default()).await?;
    let mut known = BTreeMap::new();
    if let Ok(changes) = &*lock(changes) {
        for (_, change) in changes {
            match change {
                Change::Now(object) => known.insert(object.uid(), object.resource_version()),
                Change::Gone(object) => known.remove(&object.uid()),
            };
        }
    }
    let there: BTreeMap<_, _> = list.items.iter().map(|object| (object.uid(), object.resource_version())).collect();
    ensure!(there == known, "and things have happened since");
    list.metadata.resource_version.context("a list without a version")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! What the API shows of many HealthChecks, and when it began to; and what the operator's log says of the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::common::operator::Operator;

/// Has `note` look at all that is there, and at every change from now on.
pub async fn follow<K>(api: Api<K>, note: impl Fn(&K) + Send + 'static) -> anyhow::Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let list = api.list(&ListParams::default()).await?;
    list.items.iter().for_each(&note);
    let mut version = list.metadata.resource_version.context("a list without a version")?;
    tokio::spawn(async move {
        // The API server ends a watch now and then; it goes on where it ended. Were it to fail for good, what is waited
        // for would not come.
        while let Ok(stream) = api.watch(&WatchParams::default().timeout(290), &version).await {
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                let (WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object)) = &event
                else {
                    break;
                };
                version = object.resource_version().unwrap_or(version);
                if !matches!(event, WatchEvent::Deleted(_)) {
                    note(object);
                }
            }
        }
    });
    Ok(())
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a status says.
#[derive(Clone, Debug)]
pub struct Shown {
    pub at: Timestamp,
    pub health: String,
    pub unhealthy: u64,
}

/// What each status says, by the name of its check: all that the watch has brought, in order. Cheap to clone.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<BTreeMap<String, Vec<Shown>>>>);

impl Seen {
    /// Notes every change of health or counts from now on.
    pub async fn watch(api: Api<DynamicObject>) -> anyhow::Result<Self> {
        let seen = Self::default();
        let noted = seen.clone();
        follow(api, move |object| noted.note(object)).await?;
        Ok(seen)
    }

    fn note(&self, object: &DynamicObject) {
        let at = Timestamp::now();
        let part = |pointer: &str| object.data.pointer(pointer);
        let health = part("/status/health").and_then(Value::as_str).unwrap_or_default().to_owned();
        let unhealthy = part("/status/counts/unhealthy").and_then(Value::as_u64).unwrap_or_default();
        let mut all = lock(&self.0);
        let shown = all.entry(object.name_any()).or_default();
        if shown.last().is_none_or(|last| last.health != health || last.unhealthy != unhealthy) {
            shown.push(Shown { at, health, unhealthy });
        }
    }

    /// How many checks say now what `good` asks.
    pub fn count(&self, good: impl Fn(&Shown) -> bool) -> usize {
        let all = lock(&self.0);
        all.values().filter(|shown| shown.last().is_some_and(&good)).count()
    }

    /// When the last of the checks began to say what it says now.
    pub fn latest(&self, of: impl Fn(&str) -> bool) -> Option<Timestamp> {
        let all = lock(&self.0);
        all.iter().filter(|(name, _)| of(name)).filter_map(|(_, shown)| shown.last()).map(|last| last.at).max()
    }

    /// Milliseconds from the verdict to its status, of each of the `verdicts`.
    ///
    /// # Errors
    /// When one of them was never shown.
    pub fn after(&self, verdicts: &[Verdict]) -> anyhow::Result<Vec<f64>> {
        let all = lock(&self.0);
        verdicts
            .iter()
            .map(|verdict| {
                let shown = all.get(&verdict.check).context("a check that nobody saw")?;
                let first = shown.iter().find(|shown| shown.at >= verdict.at && shown.health == verdict.health);
                let first = first.with_context(|| format!("the API never showed {verdict:?}"))?;
                Ok(first.at.duration_since(verdict.at).as_secs_f64() * 1e3)
            })
            .collect()
    }
}

/// A change on the board, by the operator's log.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub at: Timestamp,
    pub check: String,
    pub health: String,
}

/// Every verdict that the operator has logged (it must log JSON), in order.
///
/// # Errors
/// When a line of it cannot be read.
pub fn verdicts(operator: &Operator) -> anyhow::Result<Vec<Verdict>> {
    let mut verdicts = vec![];
    for line in operator.process().output().lines().filter(|line| line.contains("health changed")) {
        let line: Value = serde_json::from_str(line)?;
        let text = |name: &str| line[name].as_str().with_context(|| format!("no {name} in {line}"));
        let check = text("check")?.rsplit('/').next().unwrap_or_default().to_owned();
        verdicts.push(Verdict { at: text("timestamp")?.parse()?, check, health: text("to")?.to_owned() });
    }
    Ok(verdicts)
}

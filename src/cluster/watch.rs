//! The one way objects are watched.
//!
//! Every watch backs off after an error (for seconds, not half a minute: who returns from an outage should not stay deaf
//! for longer than it lasted), drops what nobody reads (`managedFields`) before anything is kept, begins
//! anew when the server no longer has its version (also when it says so as an HTTP 410), lists anew every ten minutes,
//! and ends a stream on which nothing at all arrived for too long.

use std::{fmt::Debug, time::Duration};

use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, time::Instant};

use super::client::CallError;
use crate::telemetry::{Metrics, metrics::WatchLabels};

/// How long the server keeps one watch open, in seconds: a connection that died in silence is noticed soon after.
const WATCH_SECONDS: u32 = 190;
/// How often everything is listed anew: a missed event costs at most this.
const RELIST: Duration = Duration::from_secs(600);
/// No stream needs longer from one sign of life to the next, a list of many pages included.
const SILENCE: Duration = Duration::from_secs(240);

/// How long a watch waits after its first error in a row, and after its hundredth.
const PAUSES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(5));

/// Doubles from error to error, with a part left to chance.
struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        Some(pause / 2 + chance(pause / 2))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.0 = PAUSES.0;
    }
}

/// What a watch tells.
#[derive(Debug)]
pub enum Told<T> {
    /// A list begins: what it does not hold is gone.
    Begin,
    /// An object that is there now.
    Is(T),
    /// An object that is gone.
    Gone(T),
    /// The list has ended.
    Complete,
    /// Nothing is known at present; the watch goes on trying.
    Failed(CallError),
}

/// Tells `sender` of everything under `api`, as `keep` sees it, until nobody listens. `keep` returns `None` for what
/// is of no interest.
pub async fn watch<K, T, I>(
    kind: &'static str,
    api: Api<K>,
    labels: Option<String>,
    metrics: Metrics,
    keep: impl Fn(K) -> Option<T>,
    wrap: impl Fn(Told<T>) -> I,
    sender: mpsc::Sender<I>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
    config.label_selector = labels;
    let last_event = metrics.watch_last_event.get_or_create_owned(&WatchLabels { kind });
    loop {
        // With a little of it left to chance, so that watches do not list in step.
        let relist = Instant::now() + RELIST + chance(RELIST / 10);
        let stream = watcher::watcher(api.clone(), config.clone()).backoff(Patience::default());
        let mut stream = std::pin::pin!(stream);
        let mut listing = false;
        loop {
            // Never in the middle of a list.
            let limit = if listing { Instant::now() + SILENCE } else { relist.min(Instant::now() + SILENCE) };
            let Ok(next) = tokio::time::timeout_at(limit, stream.next()).await else { break };
            let Some(event) = next else { break };
            let mut gone = false;
            let told = match event {
                Ok(event) => {
                    last_event.set(Timestamp::now().as_second());
                    listing = match &event {
                        Event::Init | Event::InitApply(_) => true,
                        Event::InitDone => false,
                        Event::Apply(_) | Event::Delete(_) => listing,
                    };
                    told(event, &keep)
                }
                Err(error) => {
                    gone = is_gone(&error);
                    let error = call_error(&error);
                    tracing::debug!(kind, %error, "watch failed; trying again");
                    Some(Told::Failed(error))
                }
            };
            if let Some(told) = told
                && sender.send(wrap(told)).await.is_err()
            {
                return;
            }
            if gone {
                // The version we had is no more: only a new list helps.
                tokio::time::sleep(Duration::from_millis(100) + chance(Duration::from_millis(400))).await;
                break;
            }
        }
    }
}

fn told<K: Resource, T>(event: Event<K>, keep: impl Fn(K) -> Option<T>) -> Option<Told<T>> {
    let trim = |mut object: K| {
        object.managed_fields_mut().clear();
        keep(object)
    };
    match event {
        Event::Init => Some(Told::Begin),
        Event::InitApply(object) | Event::Apply(object) => trim(object).map(Told::Is),
        Event::Delete(object) => trim(object).map(Told::Gone),
        Event::InitDone => Some(Told::Complete),
    }
}

fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 410,
        // The watcher would begin anew by itself, but only after backing off.
        watcher::Error::WatchError(status) => status.code == 410,
        _ => false,
    }
}

fn call_error(error: &watcher::Error) -> CallError {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error.into(),
        watcher::Error::WatchError(status) => CallError::Server(status.message.clone()),
        other => CallError::Other(other.to_string()),
    }
}

/// A random share of `span`.
fn chance(span: Duration) -> Duration {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hasher is seeded at random, which is all the chance this needs.
    let word = RandomState::new().hash_one(0u8);
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more precision")]
    let share = word as f64 / u64::MAX as f64;
    span.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew() {
        let mut patience = Patience::default();
        let pauses: Vec<_> = patience.by_ref().take(20).collect();
        assert!(pauses[0] >= PAUSES.0 / 2 && pauses[0] <= PAUSES.0, "{pauses:?}");
        assert!(pauses[19] >= PAUSES.1 / 2 && pauses[19] <= PAUSES.1, "{pauses:?}");
        patience.reset();
        assert!(patience.next().is_some_and(|pause| pause <= PAUSES.0));
    }

    #[test]
    fn a_version_that_is_gone_is_seen_whichever_way_it_is_told() {
        let status = || Box::new(kube::core::Status::failure("too old", "Expired").with_code(410));
        assert!(is_gone(&watcher::Error::WatchError(status())));
        assert!(is_gone(&watcher::Error::WatchStartFailed(kube::Error::Api(status()))));
        assert!(!is_gone(&watcher::Error::NoResourceVersion));
    }
}

//! A client that sends requests at a fixed pace, each over a connection of its own, and remembers every one.
//!
//! It runs in this process and reaches Services by way of the node, whose kube-proxy sends each connection on: as a
//! client outside the cluster does. Its clock is the one of the recorders, so what it saw can be put beside what was
//! written and when.

mod report;
mod request;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::room::SOON;
use crate::support::wait::wait_until;

pub use report::{GRACE, Report};
pub use request::Question;

/// Fifty requests a second: enough to tell 20 ms, little enough for two cores.
const PACE: Duration = Duration::from_millis(20);
/// A request that takes longer has failed. Dropped packets are failures only after this long. A little more than TCP's
/// first wait (1 s, RFC 6298): a packet that the machine's own network loses once is sent again, and nobody's failure.
pub const REQUEST_WITHIN: Duration = Duration::from_millis(1200);
/// A client that cannot keep up says so instead of growing.
const IN_FLIGHT: usize = 200;

/// One request.
#[derive(Clone, Debug)]
pub struct Record {
    pub begun: Instant,
    pub ended: Instant,
    /// Who answered, or why nobody did.
    pub result: Result<String, String>,
}

/// Requests that go on until they are stopped.
pub struct Traffic {
    records: Arc<Mutex<Vec<Record>>>,
    stop: oneshot::Sender<()>,
    sending: JoinHandle<()>,
}

impl Traffic {
    /// HTTP requests to an address, from now on; waits first until one is answered with 200.
    ///
    /// # Errors
    /// When none is answered within [`SOON`].
    pub async fn start(to: SocketAddr) -> anyhow::Result<Self> {
        Self::ask(to, Question::Http).await
    }

    /// The same with a question of another kind.
    ///
    /// # Errors
    /// When none is answered within [`SOON`].
    pub async fn ask(to: SocketAddr, question: Question) -> anyhow::Result<Self> {
        wait_until(&format!("an answer of {to}"), SOON, || question.ask(to, REQUEST_WITHIN)).await?;
        let records = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let sending = tokio::spawn(send(to, question, Arc::clone(&records), stopped));
        Ok(Self { records, stop, sending })
    }

    /// All requests that have ended so far, in the order in which they ended.
    pub fn so_far(&self) -> Vec<Record> {
        lock(&self.records).clone()
    }

    /// Waits until `good` holds for the requests that were begun after `since`.
    ///
    /// # Errors
    /// After [`SOON`], with the last of them.
    pub async fn until(&self, what: &str, since: Instant, good: impl Fn(&[Record]) -> bool) -> anyhow::Result<()> {
        wait_until(what, SOON, || {
            let mut seen = self.so_far();
            seen.retain(|record| record.begun >= since);
            std::future::ready(if good(&seen) { Ok(()) } else { Err(format!("{:?}", seen.last())) })
        })
        .await
    }

    /// Waits until so many requests begun from now on have ended: life goes on.
    ///
    /// # Errors
    /// As [`Traffic::until`].
    pub async fn more(&self, count: usize) -> anyhow::Result<()> {
        self.until("further requests", Instant::now(), |seen| seen.len() >= count).await
    }

    /// Waits until a request begun from now on was answered by `name`.
    ///
    /// # Errors
    /// As [`Traffic::until`].
    pub async fn answered_by(&self, name: &str) -> anyhow::Result<()> {
        let by = |record: &Record| record.result.as_deref() == Ok(name);
        self.until(&format!("an answer of {name}"), Instant::now(), |seen| seen.iter().any(by)).await
    }

    /// Stops, waits for what is under way and sums it up; the requests are kept in the run's directory, one a line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn stop(self, title: &str) -> anyhow::Result<Report> {
        let _ = self.stop.send(());
        self.sending.await?;
        let records = std::mem::take(&mut *lock(&self.records));
        Report::new(title, records)
    }
}

/// Who answers `count` requests, well or not.
pub async fn asked(to: SocketAddr, count: usize) -> BTreeSet<String> {
    let requests = (0..count).map(|_| tokio::time::timeout(REQUEST_WITHIN, request::who(to)));
    // Where a Service has no endpoints the node says so, but not to everyone who asks within a second.
    futures::future::join_all(requests).await.into_iter().flatten().flatten().collect()
}

async fn send(to: SocketAddr, question: Question, into: Arc<Mutex<Vec<Record>>>, mut stopped: oneshot::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut pace = tokio::time::interval(PACE);
    // A client that was late catches up by its pace, not by a burst.
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = pace.tick() => {}
            Some(_) = under_way.join_next() => continue,
        }
        let begun = Instant::now();
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            let result = Err(String::from("the client itself cannot keep up"));
            lock(&into).push(Record { begun, ended: begun, result });
            continue;
        };
        let into = Arc::clone(&into);
        under_way.spawn(async move {
            let result = question.ask(to, REQUEST_WITHIN).await.map_err(|error| format!("{error:#}"));
            lock(&into).push(Record { begun, ended: Instant::now(), result });
            drop(permit);
        });
    }
    while under_way.join_next().await.is_some() {}
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

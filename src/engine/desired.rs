//! What the engine is told to do: one check with all its endpoints, and what was known of it before.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    hearsay::{Fate, Observation},
    view::Outage,
};
use crate::check::{Check, Endpoint, EndpointState, Health, HealthReason, ObjectKey, Reason};

/// A check as it shall run from now on. Sent whole at every change; the engine finds the difference itself, so sending
/// the same again changes nothing.
#[derive(Clone, Debug)]
pub struct Desired {
    pub check: Arc<Check>,
    /// Every endpoint of every target that is not another check, in declared order. `healthCheck` targets are members by
    /// name and need no endpoint.
    pub endpoints: Vec<Endpoint>,
    /// What was last written of this check; only looked at when the engine does not know the check yet.
    pub prior: Option<Prior>,
}

/// What the status of a HealthCheck says from an earlier life.
#[derive(Clone, Debug)]
pub struct Prior {
    /// When it was last confirmed.
    pub observed_at: Timestamp,
    /// How old a confirmation may be, beyond `staleAfter`, to be adopted: the coarse refresh.
    pub refresh: std::time::Duration,
    /// Which generation of the spec it speaks of; what was asked in another one may have been another question.
    pub observed_generation: Option<i64>,
    pub health: Health,
    pub reason: HealthReason,
    pub message: String,
    pub since: Timestamp,
    /// How many members the status counted as unknown.
    pub unknown: u32,
    /// The rows of the status, worst first, at most a hundred.
    pub endpoints: Vec<PriorEndpoint>,
    pub outages: Vec<Outage>,
}

/// One row of the status.
#[derive(Clone, Debug)]
pub struct PriorEndpoint {
    pub target: String,
    pub label: String,
    pub state: EndpointState,
    pub since: Timestamp,
    pub reason: Option<Reason>,
    pub message: String,
    /// `state` is an operator's word, and no probe's.
    pub overridden: bool,
    /// Of a DNS name that was judged as a whole.
    pub addresses: Vec<PriorAddress>,
}

/// What was measured at one address of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriorAddress {
    pub ip: IpAddr,
    pub state: EndpointState,
    pub since: Timestamp,
}

/// What runs under a key now.
#[derive(Clone, Debug)]
pub struct Declared {
    pub check: Arc<Check>,
    /// Every endpoint, in declared order.
    pub endpoints: Vec<Endpoint>,
}

/// What the engine is asked.
#[derive(Debug)]
pub(super) enum Command {
    Upsert(Box<Desired>),
    Remove(ObjectKey),
    /// Answered with what runs under the key.
    Declared(ObjectKey, tokio::sync::oneshot::Sender<Option<Declared>>),
    /// Answered with what became of each report.
    Observe(Vec<Observation>, tokio::sync::oneshot::Sender<Vec<Fate>>),
    /// Answered once every command before it is on the board.
    Settle(tokio::sync::oneshot::Sender<()>),
}

/// Talks to a running engine. Cheap to clone. Commands sent after the engine stopped are dropped.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) commands: tokio::sync::mpsc::Sender<Command>,
    /// Cancelled when it has settled for the first time.
    pub(super) opened: CancellationToken,
}

impl Engine {
    /// Runs `desired` from now on, in place of what ran under its key.
    pub async fn upsert(&self, desired: Desired) {
        // An engine that is gone needs no telling.
        let _ = self.commands.send(Command::Upsert(Box::new(desired))).await;
    }

    /// Stops probing `key` and takes it off the board.
    pub async fn remove(&self, key: ObjectKey) {
        let _ = self.commands.send(Command::Remove(key)).await;
    }

    /// What runs under `key`; `None` where nothing does, or the engine has stopped.
    pub async fn declared(&self, key: &ObjectKey) -> Option<Declared> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.commands.send(Command::Declared(key.clone(), answer)).await.ok()?;
        answered.await.ok().flatten()
    }

    /// Takes in what a data plane has seen, in its order, and says what became of each report; `None` where the engine has
    /// stopped. The caller bounds how many there are at once: all of them are taken in within one turn of the loop.
    pub async fn observe(&self, reports: Vec<Observation>) -> Option<Vec<Fate>> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.commands.send(Command::Observe(reports, answer)).await.ok()?;
        answered.await.ok()
    }

    /// Waits until it has settled for the first time: until then checks may be missing, of which a report would be told that
    /// nobody knows them. For ever, where it stops before; cancel-safe.
    pub async fn opened(&self) {
        self.opened.cancelled().await;
    }

    /// Waits until everything sent before is on the board. Until it is called for the first time, with every check sent
    /// that there was to know at the start, the engine publishes nothing.
    pub async fn settle(&self) {
        let (done, settled) = tokio::sync::oneshot::channel();
        if self.commands.send(Command::Settle(done)).await.is_ok() {
            let _ = settled.await;
        }
    }
}

//! Everything that is written to HealthChecks and EndpointSlices goes through here: one queue, one rate, one question
//! whether the Lease is still held at the moment of sending.

mod confirm;
mod due;
mod record;
mod send;
#[cfg(test)]
mod tests;

pub use confirm::confirmed_within;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{record::Record, send::Ended};
use super::{
    client::CallError,
    events::News,
    gates::{
        GateEnded,
        report::GatesReport,
        write::{GateKey, GateWrite},
    },
    lease::Held,
    patch::SlicePatch,
    queue::{Urgency, WriteQueue},
    server_state::ServerState,
    status::Acceptance,
};
use crate::{
    check::{ObjectKey, Text},
    engine::{Board, CheckView, Subscription},
    telemetry::Beats,
};

/// The most writes of one replica in a second (`behaviour.md`, *Writing to the API*).
const WRITES_PER_SECOND: u32 = 50;
/// The most confirmations in a second; five is the limit for all of them together.
const REFRESHES_PER_SECOND: u32 = 4;
const TICK: Duration = Duration::from_secs(1);
/// How long a replica that is told to stop goes on writing what is left.
const FLUSH: Duration = Duration::from_millis(1000);

/// What the writer is told.
#[derive(Debug)]
pub enum Note {
    /// The object as the server has it.
    Seen(ObjectKey, Box<ServerState>),
    Accepted(ObjectKey, Acceptance),
    Gone(ObjectKey),
    /// The annotations of a slice are to change; `None`: they are as they should be.
    Slice(ObjectKey, Option<SlicePatch>),
    /// What the gates of a check do, and of which view of it they have taken in.
    Gates(ObjectKey, Box<GatesReport>, Arc<CheckView>),
    /// What a gate writes; `None`: nothing any more.
    Gate(GateKey, Option<Box<GateWrite>>),
}

/// What became of the annotations of a slice.
#[derive(Debug)]
pub struct Annotated {
    pub slice: ObjectKey,
    pub patch: SlicePatch,
    /// The slice's new version, or why there is none.
    pub result: Result<String, CallError>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum WriteKey {
    Status(ObjectKey),
    Slice(ObjectKey),
    Gate(GateKey),
}

/// What the writer works with.
pub struct Parts {
    pub client: Client,
    pub board: Arc<Board>,
    pub held: Held,
    pub prober: String,
    /// How often a status is confirmed; stretched when there are many.
    pub refresh: Duration,
    pub events: mpsc::Sender<News>,
    pub annotated: mpsc::UnboundedSender<Annotated>,
    pub gated: mpsc::UnboundedSender<GateEnded>,
    pub beats: Beats,
}

/// See the module's own words.
pub struct Writer {
    parts: Parts,
    queue: WriteQueue<WriteKey>,
    /// What each waiting key waits as.
    urgency: HashMap<WriteKey, Urgency>,
    /// In boxes: names are listed in order, and a tree that is filled in order is half empty.
    records: BTreeMap<ObjectKey, Box<Record>>,
    slices: HashMap<ObjectKey, SlicePatch>,
    gates: HashMap<GateKey, Box<GateWrite>>,
    /// Small changes that are being gathered.
    gathering: HashSet<ObjectKey>,
    flights: JoinSet<Ended>,
    /// What we may not write, and in which namespace: said once, until it is let through.
    refused: HashSet<(&'static str, Text)>,
}

impl Writer {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            queue: WriteQueue::new(WRITES_PER_SECOND, REFRESHES_PER_SECOND),
            urgency: HashMap::new(),
            records: BTreeMap::new(),
            slices: HashMap::new(),
            gates: HashMap::new(),
            gathering: HashSet::new(),
            flights: JoinSet::new(),
            refused: HashSet::new(),
        }
    }

    /// Writes until `stop`, and then what is left for a moment more.
    pub async fn run(mut self, mut notes: mpsc::Receiver<Note>, stop: CancellationToken) {
        let mut subscription = self.parts.board.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(256);
        while !stop.is_cancelled() {
            let wake = self.send();
            tokio::select! {
                () = stop.cancelled() => break,
                count = notes.recv_many(&mut batch, 256) => {
                    if count == 0 { break }
                    for note in batch.drain(..) { self.note(note) }
                }
                keys = subscription.changed() => for key in keys { self.consider(&key) },
                Some(ended) = self.flights.join_next() => self.ended(ended),
                _ = tick.tick() => self.tick(),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        let flushed = tokio::time::timeout(FLUSH, self.flush(&mut notes, &mut subscription)).await;
        if flushed.is_err() {
            tracing::warn!(left = self.queue.len(), "stopped before everything was written; the next owner writes it");
        }
        self.parts.beats.end("writer");
    }

    async fn flush(&mut self, notes: &mut mpsc::Receiver<Note>, subscription: &mut Subscription) {
        while let Ok(note) = notes.try_recv() {
            self.note(note);
        }
        if let Ok(keys) = tokio::time::timeout(Duration::from_millis(1), subscription.changed()).await {
            for key in keys {
                self.consider(&key);
            }
        }
        self.queue.hurry();
        // Small changes are part of the last word too; confirmations are not.
        for key in std::mem::take(&mut self.gathering) {
            self.push(WriteKey::Status(key), Urgency::Transition);
        }
        while self.urgency.values().any(|urgency| *urgency != Urgency::Refresh) || self.queue.in_flight() > 0 {
            let wake = self.send();
            tokio::select! {
                Some(ended) = self.flights.join_next() => self.ended(ended),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    fn push(&mut self, key: WriteKey, urgency: Urgency) {
        let known = self.urgency.entry(key.clone()).or_insert(urgency);
        *known = (*known).min(urgency);
        self.queue.push(key, urgency);
    }

    fn forget(&mut self, key: &WriteKey) {
        self.urgency.remove(key);
        self.queue.forget(key);
    }
}

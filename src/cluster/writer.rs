//! Everything that is written to HealthChecks and EndpointSlices goes through here: one queue, one rate, one question
//! whether the Lease is still held at the moment of sending.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{Api, Client};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    client::{CallError, call},
    events::Transition,
    lease::Held,
    patch::{SlicePatch, StatusChange, write_annotations, write_status},
    queue::{Next, Urgency, WriteQueue},
    server_state::ServerState,
    status::{Acceptance, Author, compose, fingerprint, headline, pending},
};
use crate::{
    api::{HealthCheck, HealthCheckStatus},
    check::{Health, ObjectKey},
    engine::{Board, CheckView, Subscription},
    telemetry::Beats,
};

/// The most writes of one replica in a second (`behaviour.md`, *Writing to the API*).
const WRITES_PER_SECOND: u32 = 50;
/// The most confirmations in a second; five is the limit for all of them together.
pub const REFRESHES_PER_SECOND: u32 = 4;
const IN_FLIGHT: usize = 8;
/// Small changes of one object are gathered for this long; a change of the verdict never waits.
const GATHER: Duration = Duration::from_secs(5);
/// How long after a write what the watch shows may still be older than it.
const ECHO: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_secs(1);
/// A new object about which nothing is decided after this says so (`api.md`: `Ready` and `Healthy` on first sight); most
/// are decided at once, and need no such write.
const UNDECIDED: Duration = Duration::from_secs(1);
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
}

#[derive(Debug)]
struct Record {
    /// As we last wrote it, or first saw it.
    known: ServerState,
    /// What the watch showed last, and when.
    seen: u64,
    seen_at: Instant,
    /// The server's epoch is of our own making.
    ours: bool,
    acceptance: Option<Acceptance>,
    born: Instant,
    /// When the last write was sent.
    sent: Option<Instant>,
    written: Option<Instant>,
    refresh: Instant,
}

impl Record {
    /// Whether the watch has shown what became of the last write: one that is deaf shows nothing to compare with.
    fn is_echoed(&self, now: Instant) -> bool {
        self.written.is_none_or(|at| now.duration_since(at) >= ECHO) && self.sent.is_none_or(|at| self.seen_at > at)
    }

    /// Whether it is without a status for longer than a decision takes.
    fn is_undecided(&self) -> bool {
        self.known.conditions.is_empty() && self.known.health.is_none() && self.born.elapsed() >= UNDECIDED
    }
}

struct Ended {
    key: WriteKey,
    urgency: Urgency,
    outcome: Outcome,
}

enum Outcome {
    Status {
        /// Of the object that was written to.
        uid: Arc<str>,
        status: Box<HealthCheckStatus>,
        claim: bool,
        result: Result<String, CallError>,
        now_there: Option<Box<ServerState>>,
    },
    Slice {
        patch: SlicePatch,
        result: Result<String, CallError>,
    },
}

/// What the writer works with.
pub struct Parts {
    pub client: Client,
    pub board: Arc<Board>,
    pub held: Held,
    pub prober: String,
    /// How often a status is confirmed; stretched when there are many.
    pub refresh: Duration,
    pub events: mpsc::Sender<Transition>,
    pub annotated: mpsc::UnboundedSender<Annotated>,
    pub beats: Beats,
}

/// See the module's own words.
pub struct Writer {
    parts: Parts,
    queue: WriteQueue<WriteKey>,
    /// What each waiting key waits as.
    urgency: HashMap<WriteKey, Urgency>,
    records: BTreeMap<ObjectKey, Record>,
    slices: HashMap<ObjectKey, SlicePatch>,
    /// Small changes that are being gathered.
    gathering: HashSet<ObjectKey>,
    flights: JoinSet<Ended>,
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
            gathering: HashSet::new(),
            flights: JoinSet::new(),
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

    fn note(&mut self, note: Note) {
        match note {
            Note::Seen(key, state) => self.seen(key, *state),
            Note::Accepted(key, acceptance) => {
                if let Some(record) = self.records.get_mut(&key)
                    && record.known.uid == acceptance.uid
                {
                    record.acceptance = Some(acceptance);
                    self.consider(&key);
                }
            }
            Note::Gone(key) => {
                self.records.remove(&key);
                self.gathering.remove(&key);
                self.forget(&WriteKey::Status(key));
            }
            Note::Slice(key, Some(patch)) => {
                self.slices.insert(key.clone(), patch);
                self.push(WriteKey::Slice(key), Urgency::Transition);
            }
            Note::Slice(key, None) => {
                self.slices.remove(&key);
                self.forget(&WriteKey::Slice(key));
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

    fn seen(&mut self, key: ObjectKey, state: ServerState) {
        let period = self.period();
        // Our own write may be seen before its answer is.
        let writing = self.queue.is_in_flight(&WriteKey::Status(key.clone()));
        match self.records.get_mut(&key) {
            Some(record) if record.known.uid == state.uid => {
                record.seen = state.fingerprint;
                record.seen_at = Instant::now();
                if state.epoch > record.known.epoch && !writing {
                    // Somebody claimed it after us. While the lease is ours that is not for long.
                    tracing::warn!(check = %key, prober = ?state.prober, "status claimed by another replica");
                    record.ours = false;
                    record.known = state;
                    self.consider(&key);
                }
            }
            _ => {
                let refresh = Instant::now() + spread(&state.uid, period);
                let record = Record {
                    seen: state.fingerprint,
                    seen_at: Instant::now(),
                    known: state,
                    ours: false,
                    acceptance: None,
                    born: Instant::now(),
                    sent: None,
                    written: None,
                    refresh,
                };
                self.records.insert(key, record);
            }
        }
    }

    /// How often each status is confirmed, so that all together stay below the limit.
    fn period(&self) -> Duration {
        refresh_period(self.parts.refresh, self.records.len())
    }

    /// The status `key` should have now; `None` where nothing is to be said yet.
    fn wanted(&self, key: &ObjectKey, record: &Record, now: Timestamp) -> Option<HealthCheckStatus> {
        let epoch = record.known.epoch.unwrap_or(0) + i64::from(!record.ours);
        let author = Author { prober: &self.parts.prober, epoch };
        match self.decided(key, record) {
            Some((view, acceptance)) => Some(compose(&view, acceptance, &record.known.conditions, author, now)),
            None => record.is_undecided().then(|| pending(record.known.generation, author, now)),
        }
    }

    /// What engine and acceptance say; `None` while they speak of different versions of `key`.
    fn decided<'a>(&self, key: &ObjectKey, record: &'a Record) -> Option<(Arc<CheckView>, &'a Acceptance)> {
        let acceptance = record.acceptance.as_ref()?;
        let view = self.parts.board.get(key)?;
        (*view.uid == *acceptance.uid && view.generation == acceptance.generation).then_some((view, acceptance))
    }

    /// Looks whether `key` has anything to be written.
    fn consider(&mut self, key: &ObjectKey) {
        let Some(record) = self.records.get(key) else { return };
        let Some(wanted) = self.wanted(key, record, Timestamp::now()) else { return };
        if headline(&wanted) != record.known.headline {
            self.gathering.remove(key);
            self.push(WriteKey::Status(key.clone()), Urgency::Transition);
        } else if fingerprint(&wanted) != record.known.fingerprint {
            if record.written.is_none_or(|at| at.elapsed() >= GATHER) {
                self.push(WriteKey::Status(key.clone()), Urgency::Change);
            } else {
                self.gathering.insert(key.clone());
            }
        }
        // What a former owner left as it should be is claimed in its turn: see `tick`.
    }

    fn tick(&mut self) {
        self.parts.beats.beat("writer", Duration::from_secs(30));
        let now = Instant::now();
        let mut look = vec![];
        let mut refresh = vec![];
        for (key, record) in &mut self.records {
            if record.is_echoed(now) && record.ours && record.seen != record.known.fingerprint {
                // Somebody else edited it: what is there is what we compare with.
                record.known.fingerprint = record.seen;
                look.push(key.clone());
            }
            if record.is_undecided() {
                look.push(key.clone());
            }
            let due = (record.refresh <= now || !record.ours) && record.acceptance.is_some();
            if due && !self.queue.is_in_flight(&WriteKey::Status(key.clone())) {
                refresh.push((record.known.observed_at, key.clone()));
            }
        }
        look.extend(std::mem::take(&mut self.gathering));
        for key in look {
            self.consider(&key);
        }
        // Nothing is confirmed that nobody looks after.
        if self.parts.board.is_current() {
            // Who has waited longest is the first to be doubted.
            refresh.sort_unstable();
            for (_, key) in refresh {
                self.push(WriteKey::Status(key), Urgency::Refresh);
            }
        }
    }

    /// Sends what may be sent, and says when to look again.
    fn send(&mut self) -> Instant {
        let now = Instant::now();
        if !self.parts.held.now() {
            // Nothing tells when a renewal succeeds again but looking.
            return now + Duration::from_millis(100);
        }
        while self.flights.len() < IN_FLIGHT {
            match self.queue.next(now) {
                Next::Write(key) => {
                    let urgency = self.urgency.remove(&key).unwrap_or(Urgency::Change);
                    self.launch(key, urgency);
                }
                Next::Wait(until) => return until,
                Next::Idle => break,
            }
        }
        now + TICK
    }

    fn launch(&mut self, key: WriteKey, urgency: Urgency) {
        match key {
            WriteKey::Slice(slice) => {
                let Some(patch) = self.slices.remove(&slice) else { return self.queue.done(&WriteKey::Slice(slice)) };
                let client = self.parts.client.clone();
                self.flights.spawn(async move {
                    let result = write_annotations(&client, &slice, &patch).await;
                    Ended { key: WriteKey::Slice(slice), urgency, outcome: Outcome::Slice { patch, result } }
                });
            }
            WriteKey::Status(check) if urgency == Urgency::Refresh && !self.parts.board.is_current() => {
                // Its turn comes again when somebody looks after the board.
                self.queue.done(&WriteKey::Status(check));
            }
            WriteKey::Status(check) => {
                let wanted = self.records.get(&check).and_then(|record| {
                    let status = self.wanted(&check, record, Timestamp::now())?;
                    let claim = !record.ours
                        && record.known.epoch.is_some()
                        && fingerprint(&status) == record.known.fingerprint;
                    Some((status, claim, record.known.clone()))
                });
                let Some((status, claim, known)) = wanted else { return self.queue.done(&WriteKey::Status(check)) };
                if let Some(record) = self.records.get_mut(&check) {
                    record.sent = Some(Instant::now());
                }
                let status = Box::new(status);
                let client = self.parts.client.clone();
                self.flights.spawn(async move {
                    let change =
                        if claim { StatusChange::Claim(status.clone()) } else { StatusChange::Whole(status.clone()) };
                    let result = write_status(&client, &check, &known, &change).await;
                    // Held back by the fence: look what is there now.
                    let now_there = match &result {
                        Err(CallError::Invalid(_) | CallError::Conflict(_)) => look(&client, &check).await,
                        _ => None,
                    };
                    let uid = known.uid;
                    let outcome = Outcome::Status { uid, status, claim, result, now_there };
                    Ended { key: WriteKey::Status(check), urgency, outcome }
                });
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        // A write that panicked would be a bug of ours; its key stays in flight and the refresh of others goes on.
        let Ok(Ended { key, urgency, outcome }) = ended else { return };
        match (key, outcome) {
            (WriteKey::Status(check), Outcome::Status { uid, status, claim, result, now_there }) => match result {
                // Another object has come by the name meanwhile: it has nothing to do with this answer.
                _ if self.records.get(&check).is_none_or(|record| record.known.uid != uid) => {
                    self.queue.done(&WriteKey::Status(check.clone()));
                    self.consider(&check);
                }
                Ok(version) => {
                    self.queue.done(&WriteKey::Status(check.clone()));
                    self.status_written(&check, &status, claim, version);
                }
                Err(error) => self.status_failed(check, urgency, &error, now_there),
            },
            (WriteKey::Slice(slice), Outcome::Slice { patch, result }) => {
                let key = WriteKey::Slice(slice.clone());
                match &result {
                    Err(error) if error.is_outage() => {
                        self.queue.unreachable(&key, Instant::now());
                        self.slices.entry(slice).or_insert(patch);
                        self.push(key, urgency);
                        return;
                    }
                    Err(CallError::Forbidden(message)) => {
                        tracing::warn!(%slice, "cannot annotate: {message}; grant patch on endpointslices, or start with --disable-annotations");
                        self.queue.failed(&key, Instant::now());
                    }
                    _ => self.queue.done(&key),
                }
                if self.parts.annotated.send(Annotated { slice, patch, result }).is_err() {
                    tracing::debug!("nobody waits for annotations any more");
                }
            }
            _ => {}
        }
    }

    fn status_written(&mut self, check: &ObjectKey, status: &HealthCheckStatus, claim: bool, version: String) {
        let period = self.period();
        let Some(record) = self.records.get_mut(check) else { return };
        let before = record.known.health;
        let now = Instant::now();
        if claim {
            record.known.epoch = status.epoch;
            record.known.prober.clone_from(&status.prober);
            record.known.resource_version = version;
        } else {
            record.known.wrote(status, version);
            record.written = Some(now);
        }
        record.ours = true;
        record.refresh = now + spread(&record.known.uid, period);
        let after = record.known.health;
        let uid = record.known.uid.clone();
        if after != before && (before.is_some() || after != Some(Health::Unknown)) {
            self.tell(check, &uid, after);
        }
        self.consider(check);
    }

    fn tell(&self, check: &ObjectKey, uid: &Arc<str>, health: Option<Health>) {
        let (Some(health), Some(view)) = (health, self.parts.board.get(check)) else { return };
        let transition = Transition { check: check.clone(), uid: uid.clone(), health, view };
        // Told in order, and bounded; no status waits for an event.
        if self.parts.events.try_send(transition).is_err() {
            tracing::warn!(%check, "too many transitions at once; the event of this one is left out");
        }
    }

    fn status_failed(
        &mut self,
        check: ObjectKey,
        urgency: Urgency,
        error: &CallError,
        now_there: Option<Box<ServerState>>,
    ) {
        let key = WriteKey::Status(check.clone());
        let now = Instant::now();
        if error.is_outage() {
            tracing::debug!(%check, %error, "status not written; trying again");
            self.queue.unreachable(&key, now);
            return self.push(key, urgency);
        }
        match error {
            CallError::NotFound(_) => {
                // The object is going, or the CRD is: the watch tells which.
                self.queue.failed(&key, now);
                return;
            }
            CallError::Invalid(_) | CallError::Conflict(_) => {
                tracing::debug!(%check, %error, "status held back; looking again");
            }
            other => tracing::warn!(%check, "cannot write the status: {other}"),
        }
        self.queue.failed(&key, now);
        let Some(record) = self.records.get_mut(&check) else { return };
        if let Some(state) = now_there {
            if state.uid != record.known.uid {
                // Another object of the same name: the watch brings it.
                return;
            }
            let lost = state.epoch != record.known.epoch;
            if !lost && record.known.epoch.is_some() {
                tracing::warn!(%check, "the status is refused: {error}");
            }
            record.ours &= !lost;
            record.seen = state.fingerprint;
            record.seen_at = now;
            record.known = *state;
        }
        self.push(key, urgency);
    }
}

/// The state of a check as it is now.
async fn look(client: &Client, key: &ObjectKey) -> Option<Box<ServerState>> {
    let api: Api<HealthCheck> = Api::namespaced(client.clone(), &key.namespace);
    let object = call(api.get(&key.name)).await.ok()?;
    Some(Box::new(ServerState::of(&object.metadata, object.status.as_ref())))
}

/// How often each of `count` statuses is confirmed: `refresh`, stretched so that all of them stay below the limit.
#[must_use]
pub fn refresh_period(refresh: Duration, count: usize) -> Duration {
    let all = Duration::from_secs(count as u64 / u64::from(REFRESHES_PER_SECOND));
    refresh.max(all)
}

/// Within what time each of `count` statuses is confirmed at the latest: when its turn has come, all the others may be
/// before it.
#[must_use]
pub fn confirmed_within(refresh: Duration, count: usize) -> Duration {
    2 * refresh_period(refresh, count)
}

/// A point of time in the later half of `period`, the same for the same object.
fn spread(uid: &str, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let share = (hasher.finish() % 1000) as u32;
    period / 2 + period * share / 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (Writer, Arc<Board>) {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
        });
        let board = Arc::new(Board::new());
        let parts = Parts {
            client: Client::new(service, "default"),
            board: board.clone(),
            held: Held::default(),
            prober: "p".to_owned(),
            refresh: Duration::from_secs(60),
            events: mpsc::channel(1).0,
            annotated: mpsc::unbounded_channel().0,
            beats: Beats::default(),
        };
        (Writer::new(parts), board)
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    /// `name` as a former owner left it, and accepted.
    fn take_over(writer: &mut Writer, name: &str, observed_at: i64) {
        let uid: Arc<str> = name.into();
        let observed_at = Timestamp::from_second(observed_at).ok();
        let state = ServerState { uid: uid.clone(), epoch: Some(3), observed_at, ..ServerState::default() };
        writer.note(Note::Seen(key(name), Box::new(state)));
        writer.note(Note::Accepted(key(name), Acceptance { uid, generation: 0, problems: vec![] }));
    }

    #[tokio::test]
    async fn nothing_is_confirmed_from_a_board_that_nobody_looks_after() {
        let (mut writer, board) = writer();
        take_over(&mut writer, "young", 20);
        take_over(&mut writer, "old", 10);
        writer.tick();
        assert_eq!(writer.queue.len(), 0);
        board.set_synced();
        writer.tick();
        assert_eq!(writer.queue.len(), 2);
        let first = writer.queue.next(Instant::now());
        assert_eq!(first, Next::Write(WriteKey::Status(key("old"))), "the oldest first");
        writer.urgency.remove(&WriteKey::Status(key("old")));
        writer.tick();
        assert!(!writer.urgency.contains_key(&WriteKey::Status(key("old"))), "under way already");
    }

    #[tokio::test]
    async fn an_answer_is_that_of_the_object_that_was_written_to() {
        let (mut writer, _board) = writer();
        take_over(&mut writer, "a", 10);
        let written = |uid: &str| Ended {
            key: WriteKey::Status(key("a")),
            urgency: Urgency::Transition,
            outcome: Outcome::Status {
                uid: uid.into(),
                status: Box::new(HealthCheckStatus { epoch: Some(4), ..HealthCheckStatus::default() }),
                claim: false,
                result: Ok("9".to_owned()),
                now_there: None,
            },
        };
        writer.ended(Ok(written("a former one")));
        let known = |writer: &Writer| (writer.records[&key("a")].known.epoch, writer.records[&key("a")].ours);
        assert_eq!(known(&writer), (Some(3), false));
        writer.ended(Ok(written("a")));
        assert_eq!(known(&writer), (Some(4), true));
        let (now, period) = (Instant::now(), Duration::from_secs(60));
        let refresh = writer.records[&key("a")].refresh;
        assert!(refresh > now && refresh <= now + period, "confirmed within its period");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_watch_proves_no_edit() {
        let (mut writer, _board) = writer();
        take_over(&mut writer, "a", 10);
        let (key, now) = (key("a"), Instant::now());
        if let Some(record) = writer.records.get_mut(&key) {
            (record.sent, record.written) = (Some(now + TICK), Some(now + TICK));
        }
        let later = now + Duration::from_secs(3600);
        assert!(!writer.records[&key].is_echoed(later), "nothing was shown since");
        tokio::time::advance(TICK * 2).await;
        let state = ServerState { uid: "a".into(), epoch: Some(3), ..ServerState::default() };
        writer.note(Note::Seen(key.clone(), Box::new(state)));
        assert!(writer.records[&key].is_echoed(later));
        assert!(!writer.records[&key].is_echoed(now + TICK), "it may be older than the write");
    }
}

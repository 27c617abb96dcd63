//! The loop: one wheel, one table of endpoints, one writer of the board.
//!
//! Every turn takes in what ended and what was commanded, moves the wheel to now, starts what is due, and publishes the
//! checks that changed. A probe in flight on the ordinary lane is the only thing that has a task of its own.
//!
//! With a fast lane the loop has a thread of its own, which sleeps in the lane's epoll set; without, it is a task.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{runtime::Handle, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    board::Board,
    desired::{Command, Declared, Engine},
    hearsay::Addresses,
    isolation::Isolation,
    mail::{Mail, Word},
    permits::Permits,
    pulse::Pulse,
    record::Flight,
    rounds::Ended,
    sharing::Sharing,
    stall::Stalls,
    stretch::{Late, Stretch},
    surroundings::Surroundings,
    table::Table,
    wheel::Wheel,
};
use crate::{
    check::{ObjectKey, Report},
    probe::{FastLane, Lane},
    telemetry::{Beats, Metrics, ProbeMeter},
};

/// The longest the loop sleeps: a stall of the whole process is then seen for what it is.
const TURN: Duration = Duration::from_millis(100);
/// How often the loop says that it lives, and clears up.
const HOUSEKEEPING: u64 = 1000;
/// So many rounds begin before the fast lane is looked at: whoever was asked first has answered by then, and the time that
/// it takes to ask the others is not told as its latency.
const AT_ONCE: usize = 16;
/// Not to look at the fast lane for so many milliseconds is to stand still.
const POLL_GAP: u64 = 20;
/// An endpoint that left and returns within this keeps its state.
pub(super) const GRACE: u64 = 10_000;

/// How much may run at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Probes in flight, in all.
    pub in_flight: usize,
    /// Probes in flight on one host.
    pub per_host: usize,
}

impl Limits {
    /// How many further addresses of names may be asked at once beside the probes in flight.
    #[must_use]
    pub fn spare(&self) -> usize {
        (self.in_flight / 4).max(16)
    }

    /// How many attempts may be made on demand at once beside the probes in flight.
    #[must_use]
    pub fn on_demand(&self) -> usize {
        (self.in_flight / 16).max(8)
    }
}

/// How long the end waits for the probes that it gave up. They need but a moment each.
const LET_GO: Duration = Duration::from_secs(2);

/// What the engine works with.
#[derive(Debug)]
pub struct Parts<L> {
    pub lane: Arc<L>,
    pub board: Arc<Board>,
    pub limits: Limits,
    pub surroundings: Surroundings,
    pub metrics: Metrics,
    pub beats: Beats,
}

/// Starts an engine on the current tokio runtime. It runs until `stop` is cancelled, and then gives up every probe in
/// flight; the board keeps what was last decided.
pub fn start<L: Lane>(parts: Parts<L>, stop: CancellationToken) -> (Engine, tokio::task::JoinHandle<()>) {
    let (commands, inbox) = mpsc::channel(1024);
    let (ended, endings) = mpsc::unbounded_channel();
    let opened = CancellationToken::new();
    let mail = Mail::new(inbox, endings, stop);
    let origin = Instant::now();
    let scheduler = Scheduler {
        fast: parts.lane.fast(),
        finished: vec![],
        untold: 0,
        begun: false,
        looked: false,
        due: vec![],
        awaited: vec![],
        lane: parts.lane,
        board: parts.board,
        meter: parts.metrics.probe_meter(),
        metrics: parts.metrics,
        beats: parts.beats,
        origin,
        wall: Timestamp::now(),
        wheel: Wheel::new(0),
        permits: Permits::new(parts.limits.in_flight.max(1), parts.limits.per_host.max(1)),
        sharing: Sharing::default(),
        table: Table::default(),
        pulse: Pulse::start(origin),
        poll_gaps: Stalls::new(POLL_GAP),
        stretch: Stretch::default(),
        late: Late::default(),
        isolation: Isolation::default(),
        surroundings: parts.surroundings,
        addresses: Addresses::default(),
        dirty: vec![],
        removed: vec![],
        settling: vec![],
        opened: false,
        told_open: opened.clone(),
        housekept: 0,
        ended,
    };
    (Engine { commands, opened }, scheduler.start(mail))
}

pub(super) struct Scheduler<L> {
    pub(super) lane: Arc<L>,
    pub(super) fast: Option<FastLane>,
    /// What ended on the fast lane and is not taken in yet.
    pub(super) finished: Vec<(u64, Report)>,
    /// How many of those are being taken in now and are still to come.
    pub(super) untold: usize,
    /// Something was dialed on the fast lane since it was last polled.
    pub(super) begun: bool,
    /// The fast lane was polled in this turn, so that no answer is there that a deadline must not forestall.
    pub(super) looked: bool,
    /// What the wheel names, in this turn.
    due: Vec<u32>,
    /// Those whose probe runs on the fast lane, of whom this turn had to do with: most began in it and have ended at its end,
    /// and need no deadline.
    pub(super) awaited: Vec<u32>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Metrics,
    pub(super) meter: ProbeMeter,
    beats: Beats,
    pub(super) origin: Instant,
    /// The time of day, when this turn began.
    pub(super) wall: Timestamp,
    pub(super) wheel: Wheel,
    pub(super) permits: Permits,
    pub(super) sharing: Sharing,
    pub(super) table: Table,
    /// How late the tasks of the ordinary lane are carried on.
    pub(super) pulse: Pulse,
    /// When nobody looked at the fast lane; to look is all that it takes to carry it on.
    pub(super) poll_gaps: Stalls,
    /// Of all rounds since `late` was last told.
    pub(super) stretch: Stretch,
    late: Late,
    pub(super) isolation: Isolation,
    pub(super) surroundings: Surroundings,
    /// Who may be meant by an address.
    pub(super) addresses: Addresses,
    pub(super) dirty: Vec<u32>,
    pub(super) removed: Vec<ObjectKey>,
    pub(super) settling: Vec<tokio::sync::oneshot::Sender<()>>,
    /// Nothing is judged or published before the first [`Engine::settle`]: until then checks may be missing that others
    /// are composed of, and a restart would look like a change.
    pub(super) opened: bool,
    /// Cancelled with the first of them.
    pub(super) told_open: CancellationToken,
    housekept: u64,
    /// Bounded by the permits: one message for each probe in flight.
    pub(super) ended: mpsc::UnboundedSender<Ended>,
}

impl<L: Lane> Scheduler<L> {
    fn start(mut self, mail: Mail) -> tokio::task::JoinHandle<()> {
        if self.fast.is_none() {
            return tokio::spawn(self.run(mail));
        }
        let runtime = Handle::current();
        let (here, there) = std::sync::mpsc::channel::<(Self, Mail)>();
        let (over, is_over) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _inside = runtime.enter();
            // Dropped at the end, however that comes about.
            let _over = over;
            if let Ok((scheduler, mail)) = there.recv() {
                scheduler.run_here(mail, &runtime);
            }
        });
        match thread {
            Ok(thread) => {
                // Taken by the thread, which waits for nothing else.
                let _ = here.send((self, mail));
                tokio::spawn(async move {
                    let _ = is_over.await;
                    if let Err(panic) = thread.join() {
                        std::panic::resume_unwind(panic);
                    }
                })
            }
            Err(error) => {
                tracing::warn!(%error, "no thread for the engine: every probe takes the ordinary lane");
                self.fast = None;
                tokio::spawn(self.run(mail))
            }
        }
    }

    /// The loop as a task.
    async fn run(mut self, mut mail: Mail) {
        loop {
            let wake = self.wake();
            tokio::select! {
                biased;
                word = mail.come() => if word == Word::Stop { break },
                () = tokio::time::sleep_until(wake) => {}
            }
            self.turn(&mut mail, wake);
        }
        self.end_all();
        mail.let_go(LET_GO).await;
    }

    /// The loop on the thread that calls it, which sleeps where the answers of the fast lane arrive: nobody need be woken
    /// to wake it.
    fn run_here(mut self, mut mail: Mail, runtime: &Handle) {
        let Some(bell) = self.fast.as_ref().map(FastLane::bell) else { return };
        let mut context = Context::from_waker(&bell);
        loop {
            let wake = self.wake();
            let until = match mail.poll(&mut context) {
                Poll::Ready(Word::Stop) => break,
                Poll::Ready(Word::Mail) => Instant::now(),
                Poll::Pending => wake,
            };
            if let Some(fast) = &mut self.fast {
                fast.wait(until, &mut self.finished);
            }
            // What came while it slept waits for the next turn, which the bell makes come at once.
            self.turn(&mut mail, wake);
        }
        self.end_all();
        runtime.block_on(mail.let_go(LET_GO));
    }

    /// Takes in what there is, and does what is due. It should have come at `wake`.
    fn turn(&mut self, mail: &mut Mail, wake: Instant) {
        let now = self.now();
        self.wall = Timestamp::now();
        self.poll_gaps.excuse(self.since_origin(wake));
        self.poll_gaps.came(now, now);
        self.look_at_our_side();
        for end in mail.ended.drain(..) {
            self.end(end, now);
        }
        self.looked = self.fast.is_some();
        self.take_in(now);
        for command in mail.commands.drain(..) {
            self.obey(command, now);
        }
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(now, &mut due);
        for (nth, id) in (1..).zip(due.drain(..)) {
            self.look_at(id, now);
            if nth % AT_ONCE == 0 {
                self.hear_out();
            }
        }
        self.due = due;
        self.collect();
        self.set_deadlines();
        self.publish();
        self.keep_house(now);
        let now = self.now();
        self.poll_gaps.came(now, now);
    }

    /// Gives up every probe in flight.
    fn end_all(mut self) {
        self.table.abort_all();
        self.beats.end("engine");
    }

    /// Milliseconds of the engine's clock.
    pub(super) fn now(&self) -> u64 {
        self.since_origin(Instant::now())
    }

    fn since_origin(&self, at: Instant) -> u64 {
        millis(at.duration_since(self.origin))
    }

    fn wake(&self) -> Instant {
        if self.begun || !self.finished.is_empty() {
            return Instant::now();
        }
        let latest = Instant::now() + TURN;
        self.wheel.next_turn().map_or(latest, |turn| (self.origin + Duration::from_millis(turn)).min(latest))
    }

    fn obey(&mut self, command: Command, now: u64) {
        match command {
            Command::Upsert(desired) => self.upsert(*desired, now),
            Command::Remove(key) => self.remove(&key),
            Command::Declared(key, answer) => {
                // Whoever asked has gone away.
                let _ = answer.send(self.table.declared(&key));
            }
            Command::Observe(batch, answer) => {
                // Whoever told us has gone away.
                let _ = answer.send(self.observe(&batch, now));
            }
            Command::Settle(done) => {
                self.opened = true;
                self.settling.push(done);
            }
        }
    }

    /// The wheel names an endpoint: its verdict has become too old, or a round is due, or both.
    fn look_at(&mut self, id: u32, now: u64) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        let stale_after = millis(group.check.stale_after);
        let wall = self.wall;
        let lapsed = record.belief.lapse(now, wall);
        if record.belief.expire(now, stale_after, wall) || lapsed {
            let group = record.group;
            self.mark(group);
        }
        if let Some(line) = self.table.record(id).and_then(|record| record.flight.overdue(now)) {
            self.time_out(id, line, now);
        }
        if self.table.record(id).and_then(|record| record.due).is_some_and(|due| due.at() <= now) {
            self.round(id, now);
        }
        self.reschedule_at_end(id);
    }

    /// Says whether the prober is isolated: it ends by itself when the API server answers again.
    fn look_at_our_side(&self) {
        let our = &self.surroundings;
        our.set_isolated(self.isolation.holds(our.is_api_silent(), our.has_canary_failed()));
    }

    /// Tells the wheel when to look at `id` next; at the end of this turn, where its probe has just begun.
    pub(super) fn reschedule_at_end(&mut self, id: u32) {
        match self.table.record(id).map(|record| &record.flight) {
            Some(Flight::Line { .. }) => self.awaited.push(id),
            _ => self.reschedule(id),
        }
    }

    /// Tells the wheel of the deadlines of those that began in this turn and have not ended.
    fn set_deadlines(&mut self) {
        let mut awaited = std::mem::take(&mut self.awaited);
        for id in awaited.drain(..) {
            if self.table.record(id).is_some_and(|record| matches!(record.flight, Flight::Line { .. })) {
                self.reschedule(id);
            }
        }
        self.awaited = awaited;
    }

    /// Tells the wheel when to look at `id` next.
    pub(super) fn reschedule(&mut self, id: u32) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        match record.wake(&group.check) {
            Some(at) => self.wheel.schedule(id, at),
            None => self.wheel.cancel(id),
        }
    }

    /// Readers shall see `group` anew.
    pub(super) fn mark(&mut self, group: u32) {
        if let Some(entry) = self.table.group_mut(group)
            && !std::mem::replace(&mut entry.dirty, true)
        {
            self.dirty.push(group);
        }
    }

    fn keep_house(&mut self, now: u64) {
        if now < self.housekept {
            return;
        }
        self.housekept = now + HOUSEKEEPING;
        self.board.beat();
        self.beats.beat("engine", super::WRITER_SILENCE);
        self.metrics.endpoints.set(self.table.endpoints().try_into().unwrap_or(i64::MAX));
        if let Some(times) = self.late.look(&mut self.stretch, now) {
            self.metrics.interval_stretch.set(times);
        }
        for at in self.table.passing() {
            if let Some(group) = self.table.group_mut(at) {
                group.forget_departed(now);
            }
            self.hear(at);
        }
    }

    /// Takes in what operators say of a check by hand, and what they say no more.
    pub(super) fn hear(&mut self, at: u32) {
        let Some(group) = self.table.group_mut(at) else { return self.table.note_passing(at) };
        let check = group.check.clone();
        let targets = check.targets.iter().map(|target| &target.name);
        let look = group.spoken.look(&check.overrides, targets, Timestamp::now());
        let endpoints = if look.ended.is_empty() { vec![] } else { group.endpoints.clone() };
        for id in endpoints {
            if let Some(record) =
                self.table.record_mut(id).filter(|record| look.ended.contains(&record.endpoint.target))
            {
                record.belief.recount();
            }
        }
        if look.changed {
            self.mark(at);
        }
        self.table.note_passing(at);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Table {
    /// What runs under `key`.
    fn declared(&self, key: &ObjectKey) -> Option<Declared> {
        let group = self.find(key).and_then(|at| self.group(at))?;
        let endpoints = group.endpoints.iter().filter_map(|id| self.record(*id));
        let endpoints = endpoints.map(|record| record.endpoint.clone()).collect();
        Some(Declared { check: group.check.clone(), endpoints })
    }

    fn abort_all(&mut self) {
        for record in self.records_mut() {
            if let Flight::Task { handle, .. } = &record.flight {
                handle.abort();
            }
        }
    }
}

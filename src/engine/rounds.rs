//! One round of an endpoint: due, waiting for a permit, in flight, ended.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::time::Instant;

use super::{
    judgement::Span,
    phase,
    record::{Due, Flight, Record},
    scheduler::{Scheduler, millis},
    sharing,
    stretch::Stretch,
};
use crate::{
    check::{Attempt, Class, Endpoint, Outcome, Reason, Report, Rhythm},
    probe::{Begun, Lane, TimedOut},
};

/// What an attempt ended in, and whose it was.
pub(super) struct Ended {
    id: u32,
    attempt: u32,
    report: Report,
    /// Where it took the ordinary lane: the runtime was so late that this explains a timeout.
    late: bool,
}

/// Names an attempt to the fast lane.
const fn token(id: u32, attempt: u32) -> u64 {
    (id as u64) << 32 | attempt as u64
}

impl<L: Lane> Scheduler<L> {
    /// A round is due. It starts now, or when a permit is free, or when the probe before it has ended; a round that finds
    /// another already waiting takes its place, and that one is skipped.
    pub(super) fn round(&mut self, id: u32, now: u64) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        let Some(round) = record.due else { return };
        let slot = round.slot();
        let rhythm = &group.check.rhythm;
        let idle = record.belief.is_idle(rhythm, now);
        let cadence = millis(record.belief.cadence(rhythm, now));
        let (next, missed) = if record.first {
            (record.grid(cadence).next(now), 0)
        } else if idle {
            record.grid(cadence).next_slot(slot, now)
        } else {
            phase::next_slot(slot, cadence, now)
        };
        record.first = false;
        record.round = round;
        record.due = Some(Due::new(next, phase::jittered(next, cadence, rhythm.jitter_percent, record.hash)));
        // Skipped because the target took its time, and for want of a turn of ours.
        let (slow, late) = match record.flight {
            Flight::Idle => (0, missed),
            Flight::Waiting => (0, missed + 1),
            Flight::Task { .. } | Flight::Line { .. } | Flight::Listening { .. } => {
                let skipped = u64::from(std::mem::replace(&mut record.pending, true));
                // A task that is not back when its time is over waits for the runtime.
                if record.flight.is_late(now, millis(record.endpoint.probe.timeout)) {
                    (0, missed + skipped)
                } else {
                    (skipped, missed)
                }
            }
        };
        if slow + late > 0 {
            group.note_round(|stretch| stretch.skipped(slow + late));
            self.stretch.skipped(late);
            self.metrics.skipped_rounds.inc_by(slow + late);
        }
        if matches!(record.flight, Flight::Idle) {
            self.ask(id, now);
        }
    }

    /// Listens to whoever asks the same, or starts a probe of `id` as soon as a permit is free.
    fn ask(&mut self, id: u32, now: u64) {
        if self.listen(id) {
            self.note_begun(id);
            self.metrics.shared_rounds.inc();
            return;
        }
        let Some(record) = self.table.record_mut(id) else { return };
        if sharing::is_shareable(&record.endpoint) {
            self.sharing.lead(record.hash, id);
        }
        if self.permits.request(id, record.endpoint.dial.as_ref().map(|dial| &dial.host)) {
            self.launch(id, now);
        } else {
            record.flight = Flight::Waiting;
        }
    }

    fn note_begun(&mut self, id: u32) {
        self.stretch.began();
        if let Some((_, group)) = self.table.with_group(id) {
            group.note_round(Stretch::began);
        }
    }

    /// Takes the answer of another that asks the same, where its probe began no earlier than this round was due.
    fn listen(&mut self, id: u32) -> bool {
        let Some((record, check)) = self.table.with_check(id) else { return false };
        let Some(leader) = self.sharing.asking(record.hash).filter(|leader| *leader != id) else { return false };
        let Some((other, others)) = self.table.with_check(leader) else { return false };
        let is_fresh = match &other.flight {
            Flight::Waiting => true,
            flight => flight.started().is_some_and(|started| started >= record.round.at()),
        };
        if !is_fresh || !sharing::is_same((record, check), (other, others)) {
            return false;
        }
        // One connection is enough for both, whoever comes first next time.
        let kept = other.kept.clone();
        let Some(record) = self.table.record_mut(id) else { return false };
        record.kept = kept;
        record.flight = Flight::Listening { leader };
        self.sharing.listen(leader, id);
        true
    }

    /// Starts a probe of `id`, which holds a permit.
    fn launch(&mut self, id: u32, now: u64) {
        self.note_begun(id);
        // Of a long turn not all of it has gone by when it began.
        let now = self.now().max(now);
        let Some((record, group)) = self.table.with_group(id) else { return };
        record.attempt = record.attempt.wrapping_add(1);
        let number = record.attempt;
        self.metrics.scheduling_lag.observe(now.saturating_sub(record.round.at()) as f64 / 1000.0);
        self.metrics.in_flight_probes.set(self.permits.running().try_into().unwrap_or(i64::MAX));
        if let Some(fast) = &mut self.fast {
            // Who has ended and holds its permit yet has given back its socket.
            fast.make_room(self.permits.left() + self.untold);
            let Endpoint { dial, probe, .. } = &record.endpoint;
            if let (Some(asks), Some(dial)) = (&record.asks, dial)
                && let Some(question) = asks.of(dial)
            {
                let begun = fast.begin(token(id, number), &question, probe, record.kept.as_ref());
                let (line, look) = match begun {
                    // The clock of the wheel has whole milliseconds: one more, or it would be early by a part of one.
                    Begun::Running { number, look, dials } => {
                        self.begun |= dials;
                        (number, millis(look.duration_since(self.origin)) + 1)
                    }
                    Begun::Ended(report) => {
                        // Told with all the others: who waits for its permit may not get further either, and so on.
                        self.finished.push((token(id, number), report));
                        (u32::MAX, now + millis(probe.timeout) + 1)
                    }
                };
                record.flight = Flight::on_line(line, now, look);
                return;
            }
        }
        let attempt = Attempt {
            check: group.check.key.clone(),
            target: record.endpoint.target.clone(),
            dial: record.endpoint.dial.clone(),
            probe: record.endpoint.probe.clone(),
            known: record.belief.addresses(),
            kept: record.kept.clone(),
        };
        let (lane, ended, watched) = (self.lane.clone(), self.ended.clone(), self.pulse.watch());
        let timeout = millis(attempt.probe.timeout);
        let task = tokio::spawn(async move {
            let started = Instant::now();
            let report = AssertUnwindSafe(lane.attempt(attempt)).catch_unwind().await.unwrap_or_else(|_| {
                let outcome = Outcome::from_reason(Reason::CannotStart, "the probe panicked; this is a bug");
                Report::new(outcome, started.elapsed())
            });
            // The engine is gone: nobody to tell.
            let _ = ended.send(Ended { id, attempt: number, report, late: watched.explains(timeout) });
        });
        record.flight = Flight::Task { handle: task.abort_handle(), started: now.into() };
    }

    /// Takes in what the fast lane has ended.
    pub(super) fn take_in(&mut self, now: u64) {
        let mut finished = std::mem::take(&mut self.finished);
        self.untold = finished.len();
        for (token, report) in finished.drain(..) {
            self.untold -= 1;
            self.end(Ended { id: (token >> 32) as u32, attempt: token as u32, report, late: false }, now);
        }
        if self.finished.is_empty() {
            // Its room is kept.
            self.finished = finished;
        }
    }

    /// Takes in what has ended on the fast lane by now.
    pub(super) fn hear_out(&mut self) {
        let now = self.now();
        if let Some(fast) = &mut self.fast {
            self.poll_gaps.came(now, now);
            fast.poll(&mut self.finished);
        }
        self.take_in(now);
    }

    /// Takes in what has ended of that which has just begun: a target that is near has answered by now.
    pub(super) fn collect(&mut self) {
        // Each that ends may let another begin; what begins beyond that is collected in the next turn.
        const PASSES: usize = 8;
        for _ in 0..PASSES {
            if !std::mem::take(&mut self.begun) && self.finished.is_empty() {
                break;
            }
            self.hear_out();
        }
    }

    /// The time has come to look at a probe on the fast lane; mostly its deadline.
    pub(super) fn time_out(&mut self, id: u32, line: u32, now: u64) {
        let Some(attempt) = self.table.record(id).map(|record| record.attempt) else { return };
        let Some(fast) = &mut self.fast else { return };
        // An answer that is there counts, however late this process comes to read it: it may have stood still.
        if !std::mem::replace(&mut self.looked, true) {
            fast.poll(&mut self.finished);
        }
        match fast.time_out(token(id, attempt), line) {
            TimedOut::Ended(report) => self.end(Ended { id, attempt, report, late: false }, now),
            TimedOut::Later(left) => {
                let look = self.now() + millis(left) + 1;
                if let Some(record) = self.table.record_mut(id)
                    && let Flight::Line { line, started, .. } = record.flight
                {
                    record.flight = Flight::on_line(line, started.millis(), look);
                }
            }
            TimedOut::Over => {}
        }
    }

    /// Gives the permit of `id` back; whoever waits for it starts.
    fn give_back(&mut self, id: u32, now: u64) {
        let host = self.table.record(id).and_then(Record::host).cloned();
        if let Some(next) = self.permits.release(host.as_ref()) {
            self.launch(next, now);
            // The wheel keeps its deadline, where it is on the fast lane.
            self.reschedule_at_end(next);
        }
        self.metrics.in_flight_probes.set(self.permits.running().try_into().unwrap_or(i64::MAX));
    }

    /// Gives up whatever `id` is doing or waiting for.
    pub(super) fn interrupt(&mut self, id: u32) {
        let now = self.now();
        let Some(record) = self.table.record_mut(id) else { return };
        record.pending = false;
        let given_up = token(id, record.attempt);
        record.attempt = record.attempt.wrapping_add(1);
        match std::mem::take(&mut record.flight) {
            Flight::Idle => {}
            Flight::Listening { leader } => self.sharing.leave(leader, id),
            Flight::Waiting => {
                let host = record.host().cloned();
                self.permits.withdraw(id, host.as_ref());
                self.send_away(id, now);
            }
            flight @ (Flight::Task { .. } | Flight::Line { .. }) => {
                match (flight, &mut self.fast) {
                    (Flight::Task { handle, .. }, _) => handle.abort(),
                    (Flight::Line { line, .. }, Some(fast)) => fast.give_up(given_up, line),
                    _ => {}
                }
                self.give_back(id, now);
                self.send_away(id, now);
            }
        }
    }

    /// Nobody listens to `id` any more: who did asks for itself, or listens to the first of them who does.
    pub(super) fn send_away(&mut self, id: u32, now: u64) {
        let Some(hash) = self.table.record(id).map(|record| record.hash) else { return };
        for listener in self.sharing.end(hash, id) {
            if let Some(record) = self.table.record_mut(listener) {
                record.flight = Flight::Idle;
                self.ask(listener, now);
                self.reschedule_at_end(listener);
            }
        }
    }

    pub(super) fn end(&mut self, Ended { id, attempt, mut report, late }: Ended, now: u64) {
        let Some(record) = self.table.record(id) else { return };
        let Some(started) = record.flight.started() else { return };
        if record.attempt != attempt {
            return;
        }
        let timeout = millis(record.endpoint.probe.timeout);
        let timed_out = |outcome: &Outcome| matches!(outcome, Outcome::Failure { class: Class::Timeout, .. });
        let is_fast = matches!(record.flight, Flight::Line { .. });
        let stood_still = || late || is_fast && self.poll_gaps.explain(started, now, timeout);
        if report.outcomes().any(|outcome| timed_out(outcome)) && stood_still() {
            let text = "this process stood still while it waited for the answer; not counted";
            for outcome in report.outcomes().filter(|outcome| timed_out(outcome)) {
                *outcome = Outcome::from_reason(Reason::ProberOverloaded, text);
            }
        }
        let kind = record.endpoint.probe.kind_name();
        let listeners = self.sharing.end(record.hash, id);
        // It may have begun in this turn, which has a time of its own.
        let span = Span { began: started.min(now), ended: now };
        for listener in &listeners {
            self.judge(*listener, &mut report.clone(), span);
        }
        self.judge(id, &mut report, span);
        let reason = report.outcome.reason().map_or("", Reason::as_str);
        self.meter.ended(kind, report.outcome.as_str(), reason, report.latency);
        self.give_back(id, now);
        for id in std::iter::once(id).chain(listeners) {
            if self.table.record_mut(id).is_some_and(|record| std::mem::take(&mut record.pending)) {
                self.ask(id, now);
            }
            self.reschedule_at_end(id);
        }
    }

    /// Judges `id` by what a probe ended in, its own or one that it listened to.
    fn judge(&mut self, id: u32, report: &mut Report, span: Span) {
        let Some((record, group)) = self.table.with_group(id) else { return };
        let now = span.ended;
        record.flight = Flight::Idle;
        let rhythm = &group.check.rhythm;
        let before = record.belief.cadence(rhythm, now);
        match &report.outcome {
            Outcome::Success | Outcome::Neutral { .. } => self.isolation.succeeded(now),
            Outcome::Failure { .. } => {
                self.isolation.failed(now, millis(before));
                if self.isolation.holds(self.surroundings.is_api_silent(), self.surroundings.has_canary_failed()) {
                    for outcome in report.outcomes() {
                        let text = format!("the prober is isolated; not counted: {}", outcome.message());
                        *outcome = Outcome::from_reason(Reason::ProberIsolated, text);
                    }
                }
            }
            Outcome::Local { .. } => {}
        }
        let wall = self.wall;
        let changed = record.belief.take(&record.endpoint, report, &group.check.thresholds, span, wall);
        let moved = changed && record.endpoint.is_named();
        let after = record.belief.cadence(rhythm, now);
        group.live.beat(wall);
        if before != after {
            record.change_pace(after, rhythm, now);
        }
        let group = record.group;
        if changed {
            self.mark(group);
        }
        if moved {
            self.locate(id);
        }
    }
}

impl Record {
    /// From now on it is probed every `cadence`, counted from the round that brought that about; or, where all is well, on
    /// the grid.
    pub(super) fn change_pace(&mut self, cadence: Duration, rhythm: &Rhythm, now: u64) {
        if self.due.is_none() {
            return;
        }
        self.pending = false;
        let pace = millis(cadence);
        let slot = if cadence == rhythm.interval || Some(cadence) == rhythm.no_traffic_interval {
            self.grid(pace).next(now)
        } else {
            phase::next_slot(self.round.slot(), pace, now).0
        };
        self.due = Some(Due::new(slot, phase::jittered(slot, pace, rhythm.jitter_percent, self.hash)));
    }
}

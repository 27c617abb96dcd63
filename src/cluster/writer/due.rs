//! What is to be written, and how soon: what the writer is told, against what the server has.

use std::{collections::BinaryHeap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Note, REFRESHES_PER_SECOND, WriteKey, Writer,
    confirm::{refresh_period, spread},
    record::{Record, Small},
};
use crate::{
    api::HealthCheckStatus,
    check::ObjectKey,
    cluster::{
        gates::report,
        queue::Urgency,
        server_state::ServerState,
        status::{Acceptance, Author, compose, fingerprint, headline, pending},
    },
    engine::CheckView,
};

/// Small changes of one object are written at most so often; a change of the verdict never waits.
const GATHER: Duration = Duration::from_millis(800);

/// How many confirmations wait to be sent, at most: those of a few seconds.
const WAITING: usize = 4 * REFRESHES_PER_SECOND as usize;

impl Writer {
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Seen(key, state) => self.seen(key, *state),
            Note::Accepted(key, acceptance) => {
                if let Some(record) = self.records.get_mut(&key)
                    && record.known.uid == acceptance.uid
                {
                    record.hear_of_overrides(&acceptance);
                    record.acceptance = Some(acceptance);
                    self.consider(&key);
                }
            }
            Note::Gone(key) => {
                self.records.remove(&key);
                self.gathering.remove(&key);
                self.forget(&WriteKey::Status(key));
            }
            Note::Gates(key, report, view) => {
                if let Some(record) = self.records.get_mut(&key)
                    && record.known.uid == report.uid
                {
                    record.gates = Some((report, view));
                    self.consider(&key);
                }
            }
            Note::Gate(key, Some(write)) => {
                self.gates.insert(key.clone(), write);
                self.push(WriteKey::Gate(key), Urgency::Gate);
            }
            Note::Gate(key, None) => {
                self.gates.remove(&key);
                self.forget(&WriteKey::Gate(key));
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
                    gates: None,
                    gates_awaited: None,
                    born: Instant::now(),
                    told_override: None,
                    small: Small::default(),
                    sent: None,
                    written: None,
                    refresh,
                };
                self.records.insert(key, Box::new(record));
            }
        }
    }

    /// How often each status is confirmed, so that all together stay below the limit.
    pub(super) fn period(&self) -> Duration {
        refresh_period(self.parts.refresh, self.records.len())
    }

    /// The status `key` should have now; `None` where nothing is to be said yet.
    pub(super) fn wanted(&self, key: &ObjectKey, record: &Record, now: Timestamp) -> Option<HealthCheckStatus> {
        let epoch = record.known.epoch.unwrap_or(0) + i64::from(!record.ours);
        let author = Author { prober: &self.parts.prober, epoch };
        match self.decided(key, record) {
            Some((view, acceptance)) => {
                let mut status = compose(&view, acceptance, &record.known.conditions(), author, now);
                report::tell(
                    &mut status,
                    acceptance,
                    record.gates.as_ref().map(|(report, _)| &**report),
                    &record.known.gates,
                    now,
                );
                Some(status)
            }
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
    pub(super) fn consider(&mut self, key: &ObjectKey) {
        if let (Some(record), Some(view)) = (self.records.get_mut(key), self.parts.board.get(key))
            && record.awaits_gates(&view)
        {
            self.gathering.insert(key.clone());
            return;
        }
        let Some(record) = self.records.get(key) else { return };
        let Some(wanted) = self.wanted(key, record, Timestamp::now()) else { return };
        if headline(&wanted) != record.known.headline {
            let urgency = if record.is_gated() { Urgency::Gated } else { Urgency::Transition };
            self.gathering.remove(key);
            self.push(WriteKey::Status(key.clone()), urgency);
        } else if fingerprint(&wanted) != record.known.fingerprint {
            if record.written.is_none_or(|at| at.elapsed() >= GATHER) && record.small.has_one(Instant::now()) {
                self.push(WriteKey::Status(key.clone()), Urgency::Change);
            } else {
                self.gathering.insert(key.clone());
            }
        }
        // What a former owner left as it should be is claimed in its turn: see `tick`.
    }

    pub(super) fn tick(&mut self) {
        self.parts.beats.beat("writer", Duration::from_secs(30));
        let now = Instant::now();
        let mut look = vec![];
        let mut refresh = BinaryHeap::new();
        // Ten thousand that wait would be looked through and held for nothing: no more are sent than so many in a while.
        let room = WAITING.saturating_sub(self.urgency.values().filter(|each| **each == Urgency::Refresh).count());
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
            let write = WriteKey::Status(key.clone());
            if due && !self.queue.is_in_flight(&write) && !self.urgency.contains_key(&write) {
                // Who has waited longest is the first to be doubted.
                refresh.push((record.known.observed_at, key));
                if refresh.len() > room {
                    refresh.pop();
                }
            }
        }
        let refresh: Vec<_> = refresh.into_sorted_vec().into_iter().map(|(_, key)| key.clone()).collect();
        look.extend(std::mem::take(&mut self.gathering));
        for key in look {
            self.consider(&key);
        }
        // Nothing is confirmed that nobody looks after.
        if self.parts.board.is_current() {
            for key in refresh {
                self.push(WriteKey::Status(key), Urgency::Refresh);
            }
        }
    }
}

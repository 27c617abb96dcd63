//! Sends what may be sent, and takes in what became of it.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use jiff::Timestamp;
use kube::{Api, Client};
use tokio::time::Instant;

use super::{Annotated, TICK, WriteKey, Writer, confirm::spread};
use crate::{
    api::{HealthCheck, HealthCheckStatus},
    check::{Health, ObjectKey, Text},
    cluster::{
        client::{CallError, call},
        events::{GateChange, News, OverrideProblem, Transition},
        gates::{
            GateEnded, report,
            write::{self, GateKey, GateWrite, Written},
        },
        patch::{SlicePatch, StatusChange, write_annotations, write_status},
        queue::{Next, Urgency},
        server_state::ServerState,
        status::fingerprint,
    },
};

const IN_FLIGHT: usize = 8;
/// What is written, as RBAC names it.
const SLICES: &str = "endpointslices";
const GATES: &str = "endpointslices and pods' conditions";
const STATUSES: &str = "healthchecks/status";

/// A write that has ended.
pub(super) struct Ended {
    pub(super) key: WriteKey,
    pub(super) urgency: Urgency,
    pub(super) outcome: Outcome,
}

/// What became of it.
pub(super) enum Outcome {
    Status {
        /// Of the object that was written to.
        uid: Text,
        status: Box<HealthCheckStatus>,
        claim: bool,
        result: Result<String, CallError>,
        now_there: Option<Box<ServerState>>,
    },
    Slice {
        patch: SlicePatch,
        result: Result<String, CallError>,
    },
    Gate {
        write: Box<GateWrite>,
        result: Result<Written, CallError>,
    },
}

impl Writer {
    /// Sends what may be sent, and says when to look again.
    pub(super) fn send(&mut self) -> Instant {
        let now = Instant::now();
        if self.parts.held.for_a_call().is_none() {
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
            WriteKey::Gate(gate) if self.parts.held.is_released() => {
                // Whoever decides begins anew when the marker is gone.
                self.gates.remove(&gate);
                self.done(&WriteKey::Gate(gate));
            }
            WriteKey::Gate(gate) => {
                let Some(write) = self.gates.remove(&gate) else {
                    return self.done(&WriteKey::Gate(gate));
                };
                let (client, held) = (self.parts.client.clone(), self.parts.held.clone());
                self.flights.spawn(async move {
                    let result = guarded(held.fenced(write::send(&client, &gate, &write))).await;
                    Ended { key: WriteKey::Gate(gate), urgency, outcome: Outcome::Gate { write, result } }
                });
            }
            WriteKey::Slice(slice) => {
                let Some(patch) = self.slices.remove(&slice) else {
                    return self.done(&WriteKey::Slice(slice));
                };
                let client = self.parts.client.clone();
                self.flights.spawn(async move {
                    let result = guarded(write_annotations(&client, &slice, &patch)).await;
                    Ended { key: WriteKey::Slice(slice), urgency, outcome: Outcome::Slice { patch, result } }
                });
            }
            WriteKey::Status(check) if urgency == Urgency::Refresh && !self.parts.board.is_current() => {
                // Its turn comes again when somebody looks after the board.
                self.done(&WriteKey::Status(check));
            }
            WriteKey::Status(check) => {
                let wanted = self.records.get(&check).and_then(|record| {
                    let status = self.wanted(&check, record, Timestamp::now())?;
                    let claim = !record.ours
                        && record.known.epoch.is_some()
                        && fingerprint(&status) == record.known.fingerprint;
                    Some((status, claim, record.known.clone()))
                });
                let Some((status, claim, known)) = wanted else {
                    return self.done(&WriteKey::Status(check));
                };
                if let Some(record) = self.records.get_mut(&check) {
                    record.sent = Some(Instant::now());
                    if urgency == Urgency::Change {
                        record.small.took_one(Instant::now());
                    }
                }
                let status = Box::new(status);
                let client = self.parts.client.clone();
                self.flights.spawn(async move {
                    let change =
                        if claim { StatusChange::Claim(status.clone()) } else { StatusChange::Whole(status.clone()) };
                    let result = guarded(write_status(&client, &check, &known, &change)).await;
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

    fn done(&mut self, key: &WriteKey) {
        self.queue.done(key, Instant::now());
    }

    pub(super) fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        // None fails like this: a write that panics has ended with an error, and none is aborted.
        let Ok(Ended { key, urgency, outcome }) = ended else { return };
        match (key, outcome) {
            (WriteKey::Status(check), Outcome::Status { uid, status, claim, result, now_there }) => match result {
                // Another object has come by the name meanwhile: it has nothing to do with this answer.
                _ if self.records.get(&check).is_none_or(|record| record.known.uid != uid) => {
                    self.done(&WriteKey::Status(check.clone()));
                    self.consider(&check);
                }
                Ok(version) => {
                    self.done(&WriteKey::Status(check.clone()));
                    self.let_through(STATUSES, &check);
                    self.status_written(&check, &status, claim, version);
                }
                Err(error) => self.status_failed(check, urgency, &error, now_there),
            },
            (WriteKey::Gate(gate), Outcome::Gate { write, result }) => self.gate_ended(gate, urgency, *write, result),
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
                        let mend = "grant patch on endpointslices, or start with --disable-annotations";
                        self.refused(SLICES, &slice, &format!("cannot annotate: {message}; {mend}"));
                        self.queue.failed(&key, Instant::now());
                    }
                    Ok(_) => {
                        self.let_through(SLICES, &slice);
                        self.done(&key);
                    }
                    Err(_) => self.done(&key),
                }
                if self.parts.annotated.send(Annotated { slice, patch, result }).is_err() {
                    tracing::debug!("nobody waits for annotations any more");
                }
            }
            _ => {}
        }
    }

    /// Says once that we may not write `what` in the namespace of `object`: a right that is missing is missed by all of
    /// them, and at every attempt.
    fn refused(&mut self, what: &'static str, object: &ObjectKey, told: &str) {
        if self.refused.insert((what, object.namespace.clone())) {
            tracing::warn!(%object, "{told}");
        } else {
            tracing::debug!(%object, "{told}");
        }
    }

    fn let_through(&mut self, what: &'static str, object: &ObjectKey) {
        if self.refused.remove(&(what, object.namespace.clone())) {
            tracing::info!(namespace = %object.namespace, "{what} can be written again");
        }
    }

    fn gate_ended(&mut self, gate: GateKey, urgency: Urgency, write: GateWrite, result: Result<Written, CallError>) {
        let key = WriteKey::Gate(gate.clone());
        match &result {
            Err(error) if error.is_outage() => {
                // It may have been taken back meanwhile, so it is not for us to send it again; what was decided since is.
                self.queue.unreachable(&key, Instant::now());
                if self.gates.contains_key(&gate) {
                    self.push(key, urgency);
                }
            }
            _ => {
                match &result {
                    Err(CallError::Forbidden(message)) => {
                        self.refused(GATES, gate.object(), &format!("cannot act as a gate: {message}"));
                    }
                    Ok(_) => self.let_through(GATES, gate.object()),
                    Err(_) => {}
                }
                // What waits was computed from what was there before: it would only be refused. Who decides does so again.
                self.gates.remove(&gate);
                self.forget(&key);
                self.done(&key);
            }
        }
        if self.parts.gated.send(GateEnded { key: gate, write, result }).is_err() {
            tracing::debug!("nobody waits for gates any more");
        }
    }

    fn status_written(&mut self, check: &ObjectKey, status: &HealthCheckStatus, claim: bool, version: String) {
        let period = self.period();
        let Some(record) = self.records.get_mut(check) else { return };
        let before = record.known.health;
        let changed: Vec<_> = report::changes(&record.known.gates, &status.gates).cloned().collect();
        let problem = record.untold_override();
        let now = Instant::now();
        if claim {
            record.known.claimed(status);
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
        if let Some(message) = problem {
            self.publish(News::Override(OverrideProblem { check: check.clone(), uid: uid.clone(), message }));
        }
        for gate in changed {
            self.publish(News::Gate(GateChange { check: check.clone(), uid: uid.clone(), gate }));
        }
        self.consider(check);
    }

    fn tell(&self, check: &ObjectKey, uid: &Text, health: Option<Health>) {
        let (Some(health), Some(view)) = (health, self.parts.board.get(check)) else { return };
        self.publish(News::Verdict(Transition { check: check.clone(), uid: uid.clone(), health, view }));
    }

    /// Told in order, and bounded; no status waits for an event.
    fn publish(&self, news: News) {
        if let Err(error) = self.parts.events.try_send(news) {
            let check = error.into_inner().check().clone();
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
            CallError::Forbidden(message) => {
                let told = format!("cannot write the status: {message}; grant patch on {STATUSES}");
                self.refused(STATUSES, &check, &told);
            }
            CallError::Unauthorized(message) => {
                let told = "the API server refuses our credentials";
                self.refused(STATUSES, &check, &format!("cannot write the status: {told} ({message})"));
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

/// `write`, of which a panic, a bug of ours, is an error like others: what it was for must not wait for its end for ever.
pub(super) async fn guarded<T>(write: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    let ended = AssertUnwindSafe(write).catch_unwind().await;
    ended.unwrap_or_else(|_| Err(CallError::Other("the write panicked; the log says where".to_owned())))
}

/// The state of a check as it is now.
async fn look(client: &Client, key: &ObjectKey) -> Option<Box<ServerState>> {
    let api: Api<HealthCheck> = Api::namespaced(client.clone(), &key.namespace);
    let object = call(api.get(&key.name)).await.ok()?;
    Some(Box::new(ServerState::of(&object.metadata, object.status.as_ref())))
}

//! Changing what runs: finding what is new, what stayed and what left.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use jiff::Timestamp;

use super::{
    belief::Belief,
    desired::{Desired, Prior, PriorAddress, PriorEndpoint},
    group::{Composed, Departed, Group},
    judgement::Judgement,
    phase,
    record::{Due, Flight, Record},
    scheduler::{GRACE, Scheduler, millis},
    sharing,
};
use crate::{
    check::{Check, Endpoint, EndpointState, HealthReason, Kept, ObjectKey, Place, Text},
    probe::{Asks, Lane},
};

/// A check that was just created is probed within this, in milliseconds.
const FIRST_PROBE: u64 = 1000;
/// The status holds at most this many rows.
const STATUS_ROWS: usize = 100;

/// Finds an endpoint again across edits.
type Identity = (Text, Text);

fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.target.clone(), endpoint.identity.clone())
}

impl<L: Lane> Scheduler<L> {
    /// Runs `desired` from now on. What is the same keeps its state, its counters and its place on the grid.
    pub(super) fn upsert(&mut self, desired: Desired, now: u64) {
        let wall = self.wall;
        let Desired { check, endpoints, prior } = desired;
        // An object that was deleted and made again is another one, whatever its name.
        if let Some(at) = self.table.find(&check.key)
            && self.table.group(at).is_some_and(|group| group.check.uid != check.uid)
        {
            self.remove(&check.key.clone());
        }
        let known = self.table.find(&check.key);
        let prior = prior.filter(|_| known.is_none());
        let at = known.unwrap_or_else(|| {
            let at = self.table.add_group(Group::new(check.clone(), prior.as_ref(), wall));
            self.mark_dependents(&check.key);
            at
        });
        let Some(group) = self.table.group_mut(at) else { return };
        let before = std::mem::replace(&mut group.check, check.clone());
        let old_endpoints = std::mem::take(&mut group.endpoints);
        let old_composed = std::mem::take(&mut group.composed);
        let mut departed = std::mem::take(&mut group.departed);
        group.set_check(check.clone());

        let mut stayed = HashMap::new();
        for id in old_endpoints {
            if let Some(record) = self.table.record(id) {
                stayed.insert(identity(&record.endpoint), id);
            }
        }
        for composed in old_composed {
            self.table.set_dependent(&composed.key, at, false);
        }
        let adoption = Adoption { prior: prior.as_ref(), now, wall, check: &check };
        let mut ids = Vec::with_capacity(endpoints.len());
        let mut composed = vec![];
        let mut by_target: HashMap<Text, Vec<Endpoint>> = HashMap::new();
        let mut seen = HashSet::new();
        // One that is named twice (a pod in two slices while they are rewritten) is one endpoint.
        for endpoint in endpoints.into_iter().filter(|endpoint| seen.insert(identity(endpoint))) {
            by_target.entry(endpoint.target.clone()).or_default().push(endpoint);
        }
        for target in &check.targets {
            if let Place::Check { name } = &target.place {
                let key = ObjectKey::of(check.key.namespace.clone(), name.clone());
                self.table.set_dependent(&key, at, true);
                let (target, optional) = (target.name.clone(), target.optional);
                composed.push(Composed { after: ids.len(), target, key, optional, since: wall });
                continue;
            }
            for endpoint in by_target.remove(&target.name).unwrap_or_default() {
                let id = match stayed.remove(&identity(&endpoint)) {
                    Some(id) => {
                        self.keep(id, endpoint, &before, &check, now);
                        id
                    }
                    None => self.admit(at, endpoint, &mut departed, &adoption),
                };
                self.locate(id);
                self.reschedule(id);
                ids.push(id);
            }
        }
        for id in stayed.into_values() {
            if let Some(gone) = self.dismiss(id, now) {
                departed.push(gone);
            }
        }
        departed.retain(|gone| now.saturating_sub(gone.at) < GRACE);
        if let Some(group) = self.table.group_mut(at) {
            group.endpoints = ids;
            group.composed = composed;
            group.departed = departed;
            group.places = None;
        }
        self.hear(at);
        self.mark(at);
    }

    /// Stops probing `key` and forgets it.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        let Some(at) = self.table.find(key) else { return };
        let Some(group) = self.table.group_mut(at) else { return };
        let (endpoints, composed) = (std::mem::take(&mut group.endpoints), std::mem::take(&mut group.composed));
        // The check goes last: a permit given back here may go to one of its own endpoints before that one's turn comes.
        for id in endpoints {
            self.dismiss(id, 0);
        }
        for composed in composed {
            self.table.set_dependent(&composed.key, at, false);
        }
        self.table.remove_group(at);
        self.removed.push(key.clone());
        self.mark_dependents(key);
    }

    fn mark_dependents(&mut self, key: &ObjectKey) {
        for dependent in self.table.dependents_of(key).cloned().unwrap_or_default() {
            self.mark(dependent);
        }
    }

    /// An endpoint that was there before.
    fn keep(&mut self, id: u32, endpoint: Endpoint, before: &Check, check: &Check, now: u64) {
        let Some(record) = self.table.record(id) else { return };
        let old = &record.endpoint;
        // A longer timeout does not change what is asked.
        let asks_anew = old.dial != endpoint.dial || old.probe.kind != endpoint.probe.kind;
        let probed = check.is_probed() && !check.suspend;
        if asks_anew || before.suspend != check.suspend || !probed {
            self.interrupt(id);
        }
        let hash = sharing::seed(check, &endpoint);
        let moves = self.table.record(id).is_some_and(|record| record.hash != hash);
        if moves {
            // Whoever listens did not ask for this.
            self.send_away(id, now);
        }
        let asks = self.asks(&endpoint);
        let Some(record) = self.table.record_mut(id) else { return };
        record.hash = hash;
        if before.suspend && !check.suspend {
            record.belief.resume(Timestamp::now());
        }
        if asks_anew {
            record.belief.supersede();
        }
        record.belief.set_resolve(endpoint.resolve);
        if before.passive != check.passive {
            record.belief.listen(check.passive.as_deref(), check.initial_state, now, Timestamp::now());
        }
        if asks_anew || check.suspend {
            record.kept = endpoint.probe.keeps().then(Kept::default);
        }
        (record.endpoint, record.asks) = (endpoint, asks);
        if !probed {
            record.due = None;
        } else if record.due.is_none() || before.rhythm != check.rhythm || moves {
            let cadence = millis(record.belief.cadence(&check.rhythm, now));
            let slot = record.grid(cadence).next(now);
            record.due = Some(due(slot, cadence, check, record.hash));
        }
        if asks_anew && probed {
            record.first = true;
            record.due = Some(soon(record.hash, check, now));
        }
    }

    /// An endpoint that is new, or returns in time.
    fn admit(&mut self, group: u32, endpoint: Endpoint, departed: &mut Vec<Departed>, adoption: &Adoption<'_>) -> u32 {
        let (now, check) = (adoption.now, adoption.check);
        let hash = sharing::seed(check, &endpoint);
        let returning = departed
            .iter()
            .position(|gone| gone.target == endpoint.target && gone.identity == endpoint.identity)
            .map(|at| departed.swap_remove(at));
        let mut belief = match returning {
            Some(gone) => {
                let mut belief = gone.belief;
                if gone.probe.kind != endpoint.probe.kind || gone.dial != endpoint.dial {
                    belief.supersede();
                }
                belief.set_resolve(endpoint.resolve);
                belief
            }
            None => adoption.belief(&endpoint),
        };
        belief.listen(check.passive.as_deref(), check.initial_state, now, adoption.wall);
        let kept = endpoint.probe.keeps().then(Kept::default);
        let asks = self.asks(&endpoint);
        let mut record = Record {
            endpoint,
            group,
            hash,
            due: None,
            round: Due::new(now, now),
            first: adoption.prior.is_none(),
            flight: Flight::Idle,
            pending: false,
            attempt: 0,
            belief,
            kept,
            asks,
        };
        if check.is_probed() && !check.suspend {
            record.due = Some(if adoption.prior.is_some() {
                // After a restart or a takeover the first probes are spread over one interval.
                let cadence = millis(record.belief.cadence(&check.rhythm, now));
                due(record.grid(cadence).next(now), cadence, check, hash)
            } else {
                soon(hash, check, now)
            });
        }
        self.table.add_record(record)
    }

    /// What the fast lane asks of it, where it takes it.
    fn asks(&mut self, endpoint: &Endpoint) -> Option<Asks> {
        let fast = self.fast.as_mut()?;
        fast.asks(endpoint.dial.as_ref(), &endpoint.probe, endpoint.probe.keeps())
    }

    fn dismiss(&mut self, id: u32, now: u64) -> Option<Departed> {
        self.interrupt(id);
        self.wheel.cancel(id);
        self.addresses.forget(id);
        let record = self.table.remove_record(id)?;
        let Endpoint { target, identity, dial, probe, .. } = record.endpoint;
        Some(Departed { target, identity, dial, belief: record.belief, probe, at: now })
    }
}

fn due(slot: u64, cadence: u64, check: &Check, hash: u64) -> Due {
    Due::new(slot, phase::jittered(slot, cadence, check.rhythm.jitter_percent, hash))
}

/// Within a second, or an interval where that is shorter.
fn soon(hash: u64, check: &Check, now: u64) -> Due {
    let slot = now + hash % FIRST_PROBE.min(millis(check.rhythm.interval));
    Due::new(slot, slot)
}

/// What an earlier life left, and whether it may be believed.
struct Adoption<'a> {
    prior: Option<&'a Prior>,
    check: &'a Check,
    now: u64,
    wall: Timestamp,
}

impl Adoption<'_> {
    fn belief(&self, endpoint: &Endpoint) -> Belief {
        let rows = self.prior.into_iter().flat_map(|prior| &prior.endpoints);
        let mut known = vec![];
        for row in rows.filter(|row| row.target == *endpoint.target) {
            if row.label != *endpoint.label {
                // An address of a name that was judged alone.
                let address = match endpoint.port {
                    Some(_) => row.label.parse::<SocketAddr>().ok().map(|address| address.ip()),
                    None => row.label.parse().ok(),
                };
                known.extend(address.map(|ip| (ip, self.judgement(&row.label, endpoint))));
                continue;
            }
            for address in &row.addresses {
                let PriorAddress { ip, state, since } = *address;
                let row = PriorEndpoint { state, since, reason: None, overridden: false, ..row.clone() };
                known.push((ip, self.judge(Some(&row), endpoint)));
            }
        }
        Belief::new(endpoint, self.judgement(&endpoint.label, endpoint), known)
    }

    fn judgement(&self, label: &str, endpoint: &Endpoint) -> Judgement {
        let mut rows = self.prior.into_iter().flat_map(|prior| &prior.endpoints);
        let row = rows.find(|row| row.target == *endpoint.target && row.label == label);
        // What the status says is then an operator's word, and no probe's.
        let in_force = self.check.overrides.in_force(&endpoint.target, self.wall).is_some();
        if in_force || row.is_some_and(|row| row.overridden) {
            return Judgement::new(self.now, self.wall);
        }
        self.judge(row, endpoint)
    }

    /// What may be believed of `row`, of the endpoint or of an address of it.
    fn judge(&self, row: Option<&PriorEndpoint>, endpoint: &Endpoint) -> Judgement {
        let unknown = || Judgement::new(self.now, self.wall);
        let Some(prior) = self.prior else { return unknown() };
        let believable =
            self.wall.duration_since(prior.observed_at).unsigned_abs() <= prior.refresh + self.check.stale_after;
        // Confirmations of a suspended check confirm no verdict.
        let believable = believable && (prior.reason != HealthReason::Suspended || self.check.suspend);
        match row {
            // One that was counted as unknown had its time; only a newcomer is left out of the count.
            Some(row) if row.state == EndpointState::Unknown && prior.unknown > 0 && !endpoint.optional => {
                Judgement::outdated(self.now, self.wall)
            }
            Some(row) if row.state == EndpointState::Unknown => unknown(),
            Some(_) if !believable => Judgement::outdated(self.now, self.wall),
            Some(row) => {
                let mut judgement =
                    Judgement::adopted(row.state, row.since, (row.reason, &row.message), self.now, self.wall);
                if self.check.suspend {
                    judgement.rest();
                }
                if prior.observed_generation != Some(self.check.generation) {
                    judgement.supersede();
                }
                judgement
            }
            // Only a full status leaves rows out, failing ones last.
            None if believable && prior.leaves_out_only_healthy() => {
                Judgement::adopted(EndpointState::Healthy, prior.since, (None, ""), self.now, self.wall)
            }
            None if prior.is_full() => Judgement::outdated(self.now, self.wall),
            None => unknown(),
        }
    }
}

impl Prior {
    /// The status had no room for all rows.
    fn is_full(&self) -> bool {
        self.endpoints.len() >= STATUS_ROWS
    }

    /// Rows come worst first, so what follows a healthy one is healthy.
    fn leaves_out_only_healthy(&self) -> bool {
        self.is_full() && self.endpoints.last().is_some_and(|row| row.state.is_healthy())
    }

    /// Rows may be missing of which nothing can be said.
    pub(super) fn leaves_out_unknown_rows(&self) -> bool {
        self.is_full() && !self.leaves_out_only_healthy()
    }
}

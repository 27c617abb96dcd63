//! What the verdicts move: gates on the board's side, writes on the server's.
//!
//! `Gates` is told what changed (a verdict, a check, what its gates write to) and in its next turn looks at those checks
//! anew: each gate is decided by `gate::decide`, and what follows is compared with what is there. Nothing is kept that
//! could not be read back, so a restart changes nothing.
//!
//! A kind of gate is a function of `KindCtx` that says what the gate does and what is to be written (`Evaluated`),
//! and a variant of [`GateKey`] and `GateWrite`. Everything else is the same for all: deciding and remembering
//! (`decision`, `evaluate`), the endpoints (`candidates`), telling (`report`), sending (`write`, through the one writer).

mod book;
mod calendar;
mod candidates;
mod decision;
mod doubt;
mod endpoint_slice;
mod evaluate;
mod flaps;
mod former;
mod kinds;
mod losses;
mod pace;
mod pod_claims;
mod pod_readiness;
mod pod_release;
mod pod_search;
mod release;
mod remains;
pub mod report;
pub mod slice;
mod slices;
mod standing;
#[cfg(test)]
mod tests;
pub mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use self::{
    book::Book,
    calendar::Calendar,
    doubt::Doubt,
    evaluate::Known,
    former::frozen_since,
    kinds::{Evaluated, KindCtx, listed},
    losses::Losses,
    pace::Pace,
    pod_release::PodRelease,
    release::Owners,
    report::{GateReport, GatesReport, RELEASED_MESSAGE},
    slice::Owner,
    write::GateKey,
};
use super::{
    index::{GatesTouched, facts::SliceFacts},
    reconcile::Reconciler,
    writer::Note,
};
use crate::{
    check::{Gate, GateKind, GateReason, ObjectKey, Text},
    engine::{Board, Surroundings},
    gate::Frozen,
    telemetry::GateGauges,
};

pub use pod_readiness::{release as release_pod, said_by};
pub use pod_release::{bearing as bearing_pod, find as find_pods};
pub use release::find;
pub use write::GateEnded;

/// How often every gate is looked at, whether or not anybody told of a change.
const RELOOK: Duration = Duration::from_secs(30);
/// How often slices without a gate are looked for everywhere.
const SWEEP: Duration = Duration::from_secs(60);

/// Which kinds of gates may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    pub endpoint_slices: bool,
    pub pod_readiness: bool,
}

/// What a turn reads.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    pub reconciler: &'a Reconciler,
    pub board: &'a Board,
    pub wall: Timestamp,
}

/// What follows from a turn.
#[derive(Debug, Default)]
pub struct Turn {
    pub notes: Vec<Note>,
    /// Owners of slices, with their namespace, that nobody here knows. Whether they are there is to be handed to
    /// [`Gates::judge`].
    pub owners: Vec<(Text, Owner)>,
}

/// See the module's own words.
pub struct Gates {
    features: Features,
    gauges: GateGauges,
    born: Instant,
    known: HashMap<ObjectKey, Known>,
    dirty: BTreeSet<ObjectKey>,
    /// Services whose slices may have lost their gate.
    services: BTreeSet<ObjectKey>,
    /// Namespaces whose pods' conditions may have lost their gate.
    namespaces: BTreeSet<Text>,
    /// When a check is to be looked at though nobody tells of a change.
    due: BTreeMap<ObjectKey, Instant>,
    book: Book,
    pace: Pace,
    owners: Owners,
    /// What was last to be taken away of each Service.
    releasing: HashMap<ObjectKey, HashSet<GateKey>>,
    /// Slices as they were found by a sweep, and whether they are to be judged.
    strays: Vec<SliceFacts>,
    /// What was last to be written of them.
    stray_writes: HashSet<GateKey>,
    /// Services about which nothing can be told yet: looked at in each turn.
    waiting: BTreeSet<ObjectKey>,
    strays_again: bool,
    pods: PodRelease,
    losses: Losses,
    frozen: Frozen,
    doubt: Doubt,
    calendar: Calendar,
    /// What an earlier life has left has been taken in.
    resumed: bool,
    relook: Instant,
    /// When slices without a gate are looked for everywhere.
    sweep: Instant,
    /// No gate acts: the operator is being uninstalled.
    released: bool,
}

impl Gates {
    #[must_use]
    pub fn new(features: Features, gauges: GateGauges, surroundings: Surroundings) -> Self {
        let now = Instant::now();
        gauges.clear();
        Self {
            features,
            gauges,
            born: now,
            known: HashMap::new(),
            dirty: BTreeSet::new(),
            services: BTreeSet::new(),
            namespaces: BTreeSet::new(),
            due: BTreeMap::new(),
            book: Book::default(),
            pace: Pace::default(),
            owners: Owners::default(),
            releasing: HashMap::new(),
            strays: vec![],
            waiting: BTreeSet::new(),
            stray_writes: HashSet::new(),
            strays_again: false,
            pods: PodRelease::default(),
            losses: Losses::default(),
            frozen: Frozen::default(),
            doubt: Doubt::new(surroundings),
            calendar: Calendar::new(Duration::ZERO, Timestamp::now()),
            resumed: false,
            relook: now,
            sweep: now,
            released: false,
        }
    }

    /// The board says something new of `key`.
    pub fn verdict_changed(&mut self, key: &ObjectKey, scene: Scene<'_>) {
        let now = self.clock(Instant::now());
        self.losses.take(key, scene.board, now);
        self.dirty.insert(key.clone());
    }

    /// Checks, or what their gates write to, have changed.
    pub fn changed(&mut self, touched: GatesTouched) {
        self.dirty.extend(touched.checks);
        self.services.extend(touched.services);
        self.namespaces.extend(touched.namespaces);
    }

    /// Whether the release marker stands: then no gate acts.
    pub fn set_released(&mut self, released: bool) {
        if std::mem::replace(&mut self.released, released) != released {
            // What is there is then what it goes on from, as in a new life.
            self.known.clear();
            self.releasing.clear();
            self.pods = PodRelease::default();
            self.book = Book::default();
            self.gauges.clear();
            self.relook = Instant::now();
        }
    }

    /// Says once of each check that its gates do nothing any more.
    fn tell_released(&mut self, scene: Scene<'_>, turn: &mut Turn) {
        for key in scene.reconciler.gated() {
            let (Some(check), Some(view)) = (scene.reconciler.accepted(&key), scene.board.get(&key)) else { continue };
            let healthy = view.endpoints.iter().filter(|row| row.state.is_healthy()).count();
            let idle = |gate: &Gate| GateReport {
                desired: u32::try_from(healthy).unwrap_or(u32::MAX),
                published: remains::all(check, gate, scene.reconciler).total(),
                ..GateReport::idle(&gate.name, GateReason::Released, RELEASED_MESSAGE)
            };
            let report = GatesReport {
                uid: check.uid.clone(),
                generation: check.generation,
                gates: check.gates.iter().map(idle).collect(),
            };
            let known = self.known.entry(key.clone()).or_default();
            if known.reported.as_ref() != Some(&report) {
                turn.notes.push(Note::Gates(key, Box::new(report.clone()), view));
                known.reported = Some(report);
            }
        }
    }

    /// Whether pods with conditions of ours are to be looked for everywhere now, for [`Self::found_pods`]: once in each
    /// life, and as long as a gate sets some or something is left to be let go.
    pub fn begin_pod_search(&mut self, scene: Scene<'_>) -> bool {
        let unfinished = self.pods.is_unfinished();
        let sets = |key: &ObjectKey| {
            let gates = scene.reconciler.accepted(key).into_iter().flat_map(|check| &check.gates);
            gates.into_iter().any(|gate| matches!(gate.kind, GateKind::PodReadiness { .. }))
        };
        let wanted = || unfinished || scene.reconciler.gated().any(|key| sets(&key));
        self.features.pod_readiness && self.pods.search.begin(Instant::now(), wanted)
    }

    /// Whether slices of ours are to be looked for everywhere now, for [`Self::found`].
    pub fn begin_sweep(&mut self) -> bool {
        let now = Instant::now();
        let due = self.features.endpoint_slices && self.sweep <= now;
        if due {
            self.sweep = now + SWEEP;
        }
        due
    }

    /// A write has ended; the index has taken in what is there now.
    pub fn ended(&mut self, ended: &GateEnded, scene: Scene<'_>) {
        self.book.ended(ended, Instant::now());
        if ended.result.is_ok() {
            self.pace.ended(&ended.key, Instant::now());
        }
        if let Err(error) = &ended.result {
            tracing::debug!(object = %ended.key.object(), %error, "gate not written; looking again");
        }
        self.pod_ended(ended, Instant::now());
        self.touch(&ended.key, scene);
    }

    /// What is said of `key` may be wrong now.
    fn touch(&mut self, key: &GateKey, scene: Scene<'_>) {
        match key {
            GateKey::Slice(slice) => self.touch_slice(slice, scene),
            GateKey::Pod(pod, _) => {
                self.dirty.extend(scene.reconciler.index.checks_with_pod_gates(&pod.namespace).cloned());
                self.namespaces.insert(pod.namespace.clone());
            }
        }
    }

    /// Looks at everything that changed, or whose time has come. To be called at least every second.
    pub fn turn(&mut self, scene: Scene<'_>) -> Turn {
        let now = Instant::now();
        let mut turn = Turn::default();
        self.wake(scene, now);
        let (dirty, services) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.services));
        let namespaces = std::mem::take(&mut self.namespaces);
        if self.released {
            self.tell_released(scene, &mut turn);
            return turn;
        }
        for key in dirty {
            self.evaluate(&key, scene, now, &mut turn);
        }
        for service in services {
            self.release(&service, scene, now, &mut turn);
        }
        for namespace in namespaces {
            self.release_pods(&namespace, scene, now, &mut turn);
        }
        self.judge_strays(scene, now, &mut turn);
        turn
    }

    /// When [`Self::turn`] is to be called for a write that waits for more to go with it.
    #[must_use]
    pub fn next_write(&self) -> Option<Instant> {
        self.pace.next()
    }

    fn clock(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    fn wake(&mut self, scene: Scene<'_>, now: Instant) {
        let due: Vec<_> = self.due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
        self.dirty.extend(due);
        for key in self.book.due(now).into_iter().chain(self.pace.take_due(now)) {
            self.touch(&key, scene);
        }
        self.namespaces.extend(self.pods.due(now));
        self.services.append(&mut self.waiting);
        let clock = self.clock(now);
        self.calendar.look(clock, scene.wall);
        if !std::mem::replace(&mut self.resumed, true) {
            self.losses.resume(frozen_since(scene.reconciler), scene.board, clock);
        }
        if self.doubt.is_any() {
            self.losses.doubt(clock);
        }
        let frozen = self.losses.frozen(clock);
        if std::mem::replace(&mut self.frozen, frozen) != frozen {
            tracing::warn!(named = frozen.named, addresses = frozen.address, "gates frozen by correlated losses");
            self.dirty.extend(self.known.keys().cloned());
        }
        if self.doubt.look(now) {
            self.dirty.extend(self.known.keys().cloned());
        }
        if self.relook <= now {
            self.relook = now + RELOOK;
            self.dirty.extend(scene.reconciler.gated());
            self.services.extend(scene.reconciler.index.sources.slices.keys().cloned());
            self.namespaces.extend(scene.reconciler.index.sources.pods.keys().cloned());
            self.owners.forget();
        }
    }
}

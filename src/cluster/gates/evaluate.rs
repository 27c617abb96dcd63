//! One check looked at anew: all its gates decided, and what follows compared with what was said before.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Gates, Scene, Turn,
    candidates::Judged,
    decision::Memory,
    flaps::Flaps,
    former::Former,
    kinds::{KindCtx, gates_what},
    report::GatesReport,
    write::{GateKey, GateWrite},
};
use crate::{
    check::{GateMode, GateReason, ObjectKey, Overrides, Text},
    cluster::writer::Note,
    engine::CheckView,
    gate::Freeze,
};

/// How long the word of the gates waits for what they write; shorter than a status waits for that word.
const WRITTEN: Duration = Duration::from_millis(700);

/// What is remembered of one check.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) uid: Text,
    /// By the gate's name, what it writes to and its mode: what a dry run would have done was not done.
    pub(super) memories: HashMap<(Text, Text, GateMode), Memory>,
    pub(super) flaps: Flaps,
    /// What was last to be written.
    pub(super) outstanding: HashSet<GateKey>,
    /// Since when something is.
    pub(super) unwritten: Option<Instant>,
    /// What was last told, and of which view.
    pub(super) reported: Option<GatesReport>,
    pub(super) view: Option<Arc<CheckView>>,
}

impl Gates {
    pub(super) fn evaluate(&mut self, key: &ObjectKey, scene: Scene<'_>, now: Instant, turn: &mut Turn) {
        self.due.remove(key);
        let Some(check) = scene.reconciler.accepted(key).filter(|check| !check.gates.is_empty()) else {
            // One whose spec cannot be read keeps what it has.
            if !scene.reconciler.knows(key) || scene.reconciler.index.get(key).is_some() {
                let former = self.known.remove(key).map(|known| known.outstanding).unwrap_or_default();
                self.write_all(vec![], former, now, turn);
                self.gauges.set(&key.namespace, &key.name, vec![]);
            }
            return;
        };
        // The engine comes after the check: what it says of a former version decides nothing.
        let current = |view: &Arc<CheckView>| view.uid == check.uid && view.generation == check.generation;
        let Some(view) = scene.board.get(key).filter(current) else { return };
        if !scene.reconciler.runs(key) || !scene.reconciler.index.is_ready(check) {
            return;
        }
        let clock = self.clock(now);
        let (known, mut former) = match self.known.remove(key) {
            Some(known) if known.uid == check.uid => (Some(known), HashSet::new()),
            // Of one that was replaced meanwhile what is on its way is taken back like any other.
            other => (None, other.map(|known| known.outstanding).unwrap_or_default()),
        };
        // What a status said when it was first seen says nothing of a gate that was decided since.
        let is_new = known.is_none();
        let mut known = known.unwrap_or_default();
        known.uid = check.uid.clone();
        known.flaps.take(&view, clock);
        let judged = Judged {
            overrides: &check.overrides,
            flaps: &known.flaps,
            frozen: self.frozen,
            now: clock,
            wall: scene.wall,
            calendar: self.calendar,
        };

        let doubt = self.doubt.freeze(check, now);
        let (mut reports, mut writes) = (vec![], vec![]);
        let mut memories = HashMap::new();
        for gate in &check.gates {
            let name = (gate.name.clone(), gates_what(&gate.kind), gate.mode);
            let former = || Former::of(scene.reconciler.found_gates(key), &gate.name).filter(|_| is_new);
            let after = || Memory::after(former(), check, now);
            let mut memory = known.memories.remove(&name).unwrap_or_else(after);
            let ctx = KindCtx {
                check,
                gate,
                view: &view,
                reconciler: scene.reconciler,
                judged,
                memory: &mut memory,
                book: &self.book,
                believed_at: self.losses.believed_at().map(|at| self.calendar.at(at)),
                doubt,
                features: self.features,
                now,
            };
            let evaluated = ctx.evaluate();
            memories.insert(name, memory);
            reports.push(evaluated.report);
            writes.extend(evaluated.writes);
        }
        known.memories = memories;
        former.extend(std::mem::take(&mut known.outstanding));
        known.outstanding = self.write_all(writes, former, now, turn);
        self.look_again(key, &check.overrides, &known.flaps, scene.wall, now);
        let settled = self.doubt.settled(check).filter(|at| now < *at);
        let former = known.memories.values().filter_map(|memory| memory.due(self.born, now));
        if let Some(at) = former.chain(settled).min() {
            let due = self.due.entry(key.clone()).or_insert(at);
            *due = at.min(*due);
        }
        let report = GatesReport { uid: check.uid.clone(), generation: check.generation, gates: reports };
        self.gauges.set(&key.namespace, &key.name, report.series());
        // What is in the way is told at once: no write ends that.
        let blocked = report.gates.iter().any(|gate| {
            let reason = gate.effective;
            matches!(
                reason,
                GateReason::Conflict | GateReason::Forbidden | GateReason::NotFound | GateReason::WriteFailed
            )
        });
        let unwritten = self.awaits_writes(key, &mut known, now) && !blocked;
        // Nobody could read it in the status: it is told when it is over.
        let told = doubt != Some(Freeze::ApiServerUnreachable) && !unwritten;
        let same_view = known.view.as_ref().is_some_and(|known| Arc::ptr_eq(known, &view));
        if told && (!same_view || known.reported.as_ref() != Some(&report)) {
            turn.notes.push(Note::Gates(key.clone(), Box::new(report.clone()), view.clone()));
            known.reported = Some(report);
            known.view = Some(view);
        }
        self.known.insert(key.clone(), known);
    }

    fn look_again(&mut self, key: &ObjectKey, overrides: &Overrides, flaps: &Flaps, wall: Timestamp, now: Instant) {
        let clock = self.clock(now);
        let held = flaps.next_end(clock).map(|end| end.saturating_sub(clock));
        let overridden = overrides.next_end(wall).map(|end| end.duration_since(wall).unsigned_abs());
        if let Some(wait) = held.into_iter().chain(overridden).min() {
            self.due.insert(key.clone(), now + wait);
        }
    }

    /// Whether what is written for the gates of `key` is to be told once it is, by the same write of the status: for a
    /// moment, for no status waits for what does not get through.
    fn awaits_writes(&mut self, key: &ObjectKey, known: &mut Known, now: Instant) -> bool {
        if known.outstanding.is_empty() {
            known.unwritten = None;
            return false;
        }
        let until = *known.unwritten.get_or_insert(now) + WRITTEN;
        let waits = now < until;
        if waits {
            let due = self.due.entry(key.clone()).or_insert(until);
            *due = until.min(*due);
        }
        waits
    }

    /// Has `writes` sent, and what of `former` is not wanted any more taken back. What is outstanding now.
    pub(super) fn write_all(
        &mut self,
        writes: Vec<(GateKey, GateWrite)>,
        former: HashSet<GateKey>,
        now: Instant,
        turn: &mut Turn,
    ) -> HashSet<GateKey> {
        let outstanding: HashSet<_> = writes.iter().map(|(key, _)| key.clone()).collect();
        for (key, write) in writes {
            if self.book.is_sent(&key, &write, now)
                || self.book.is_fought(&key, &write, now)
                || !self.pace.may_send(&key, write.turns(), now)
            {
                continue;
            }
            self.book.send(&key, &write);
            turn.notes.push(Note::Gate(key, Some(Box::new(write))));
        }
        for key in former.into_iter().filter(|key| !outstanding.contains(key)) {
            self.pace.settled(&key);
            if self.book.settled(&key) {
                turn.notes.push(Note::Gate(key, None));
            }
        }
        outstanding
    }
}

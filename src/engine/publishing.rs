//! What readers are shown: the checks that changed, put on the board at once.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    group::{Group, Row, member_row},
    scheduler::Scheduler,
    table::Table,
};
use crate::{
    check::{InitialState, ObjectKey},
    probe::Lane,
};

/// How deep composites may be nested (`api.md`); a change is carried no further.
const DEPTH: u8 = 6;

impl<L: Lane> Scheduler<L> {
    /// Draws every check that changed, and those that have it as a member, and puts them on the board at once.
    pub(super) fn publish(&mut self) {
        if !self.opened || (self.dirty.is_empty() && self.removed.is_empty() && self.settling.is_empty()) {
            return;
        }
        let wall = Timestamp::now();
        let mut views = HashMap::new();
        for _ in 0..DEPTH {
            for group in std::mem::take(&mut self.dirty) {
                let Some(mut rows) = self.table.rows(group) else { continue };
                let Some(entry) = self.table.group_mut(group) else { continue };
                rows.iter_mut().for_each(|row| entry.spoken.show(row));
                entry.dirty = false;
                let before = entry.health;
                let reason = entry.reason;
                let decided = entry.decided;
                let view = entry.refresh(rows, wall);
                if view.health != before {
                    tracing::info!(
                        check = %view.key, from = %before, to = %view.health, reason = %view.reason, detail = view.message,
                        "health changed"
                    );
                }
                views.insert(entry.check.key.clone(), view);
                if entry.health != before || entry.reason != reason || entry.decided != decided {
                    let key = entry.check.key.clone();
                    for dependent in self.table.dependents(&key) {
                        self.mark(dependent);
                    }
                }
            }
            if self.dirty.is_empty() {
                break;
            }
        }
        let mut removed = std::mem::take(&mut self.removed);
        removed.retain(|key| self.table.find(key).is_none());
        self.board.publish(views.into_values().collect(), &removed);
        self.told_open.cancel();
        for done in self.settling.drain(..) {
            // Whoever asked has gone away.
            let _ = done.send(());
        }
    }
}

impl Table {
    /// Every member of a check as it stands now.
    fn rows(&self, group: u32) -> Option<Vec<Row>> {
        let group: &Group = self.group(group)?;
        let initial = group.check.initial_state;
        let mut rows = Vec::with_capacity(group.endpoints.len() + group.composed.len());
        let mut from = 0;
        for composed in &group.composed {
            self.draw(&group.endpoints[from..composed.after], initial, &mut rows);
            from = composed.after;
            let other = self.find(&composed.key).and_then(|at| self.group(at));
            rows.push(member_row(composed, other));
        }
        self.draw(&group.endpoints[from..], initial, &mut rows);
        Some(rows)
    }

    fn draw(&self, endpoints: &[u32], initial: InitialState, rows: &mut Vec<Row>) {
        for record in endpoints.iter().filter_map(|id| self.record(*id)) {
            record.draw(initial, rows);
        }
    }

    fn dependents(&self, key: &ObjectKey) -> HashSet<u32> {
        self.dependents_of(key).cloned().unwrap_or_default()
    }
}

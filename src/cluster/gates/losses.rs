//! Watches the board for losses that are too large to be the targets' own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{
    check::{EndpointState, ObjectKey},
    engine::{Board, CheckView, EndpointView, stable_hash},
    gate::{Detector, Frozen, Loss, Population, Watched},
};

/// How much later than it began a freeze may be told in a status.
const TOLD_LATE: SignedDuration = SignedDuration::from_secs(10);

#[derive(Debug, Default)]
struct Known {
    places: Box<[(u64, Population)]>,
    /// Endpoints that have been seen good, and whether they are bad now; sorted. Most checks have one or a few, for which a
    /// table takes several times the room.
    endpoints: Vec<(u64, bool)>,
}

impl Known {
    /// Notes whether `id` is bad, and says what it was.
    fn note(&mut self, id: u64, bad: bool) -> Option<bool> {
        match self.endpoints.binary_search_by_key(&id, |(known, _)| *known) {
            Ok(at) => Some(std::mem::replace(&mut self.endpoints[at].1, bad)),
            Err(at) => {
                self.endpoints.insert(at, (id, bad));
                None
            }
        }
    }

    fn get(&self, id: u64) -> Option<bool> {
        let at = self.endpoints.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        Some(self.endpoints[at].1)
    }
}

/// See the module's own words. Times are of any clock that only goes forward.
#[derive(Debug, Default)]
pub struct Losses {
    detector: Detector,
    checks: HashMap<ObjectKey, Known>,
    /// How many endpoints are at each place.
    places: HashMap<(u64, Population), usize>,
    watched: Watched,
}

impl Losses {
    /// Takes in what the board says of `key` now. The first failure of what was healthy counts: a loss is seen before
    /// any gate has acted on a part of it.
    pub fn take(&mut self, key: &ObjectKey, board: &Board, now: Duration) {
        let mut known = self.checks.remove(key).unwrap_or_default();
        let view = board.get(key).filter(|view| !view.suspended);
        let rows: Vec<_> = view.iter().flat_map(placed).collect();
        self.watch(&mut known, rows.iter().map(|row| (row.place, row.population)).collect(), now);

        let here: HashSet<u64> = rows.iter().map(|row| row.id).collect();
        known.endpoints.retain(|(id, bad)| {
            let stays = here.contains(id);
            if !stays && *bad {
                self.detector.turned_good(*id, now);
            }
            stays
        });
        let Some(view) = view.as_ref().filter(|_| !rows.is_empty()) else { return };
        known.endpoints.reserve_exact(rows.len().saturating_sub(known.endpoints.len()));
        for row in rows {
            let bad = match row.view.verdict() {
                EndpointState::Healthy if row.view.measured => false,
                EndpointState::MostlyHealthy | EndpointState::Unhealthy => true,
                // On its way back, or unknown: neither.
                _ => continue,
            };
            match known.get(row.id) {
                // What was bad when it was first seen was not lost, unless it was good just now.
                None if row.view.state == EndpointState::Unhealthy => continue,
                Some(was) if was == bad => continue,
                _ => {}
            }
            let was = known.note(row.id, bad);
            if bad {
                self.detector.turned_bad(row.loss(view), now);
            } else if was.is_some() {
                self.detector.turned_good(row.id, now);
            }
        }
        self.checks.insert(key.clone(), known);
    }

    /// Takes in all that is on the board when this life begins. Gates were `frozen` since then in an earlier one: what
    /// has become bad since is lost still.
    pub fn resume(&mut self, frozen: Option<Timestamp>, board: &Board, now: Duration) {
        let views = board.all();
        for view in &views {
            self.take(&view.key, board, now);
        }
        let Some(frozen) = frozen else { return };
        for view in &views {
            let Some(known) = self.checks.get_mut(&view.key) else { continue };
            // The first failure of a loss comes before its freeze, and a verdict after the first failure.
            let window = SignedDuration::try_from(2 * view.idle_interval).unwrap_or(SignedDuration::MAX);
            let began = frozen - TOLD_LATE.saturating_add(window).min(SignedDuration::from_hours(24));
            for row in placed(view) {
                let lost = row.view.state == EndpointState::Unhealthy && row.view.since.time() >= began;
                if lost && known.get(row.id).is_none() {
                    known.note(row.id, true);
                    self.detector.turned_bad(row.loss(view), now);
                }
            }
        }
    }

    /// Our own side is in doubt.
    pub fn doubt(&mut self, now: Duration) {
        self.detector.doubt(now);
    }

    /// What is frozen now.
    pub fn frozen(&mut self, now: Duration) -> Frozen {
        self.detector.frozen(now)
    }

    /// When the losses of which something is frozen are believed, if what is left stays well.
    #[must_use]
    pub fn believed_at(&self) -> Option<Duration> {
        [Population::Named, Population::Address].into_iter().filter_map(|each| self.detector.ends_at(each)).max()
    }

    /// The places of a check are these now.
    fn watch(&mut self, known: &mut Known, places: Box<[(u64, Population)]>, now: Duration) {
        if known.places == places {
            return;
        }
        for place in &places {
            let there = self.places.entry(*place).or_default();
            *there += 1;
            if *there == 1 {
                *of(&mut self.watched, place.1) += 1;
            }
        }
        for place in std::mem::replace(&mut known.places, places) {
            let Some(there) = self.places.get_mut(&place) else { continue };
            *there -= 1;
            if *there == 0 {
                self.places.remove(&place);
                *of(&mut self.watched, place.1) -= 1;
            }
        }
        self.detector.watch(self.watched, now);
    }
}

const fn of(watched: &mut Watched, population: Population) -> &mut usize {
    match population {
        Population::Named => &mut watched.named,
        Population::Address => &mut watched.address,
    }
}

/// An endpoint that has a place.
struct Placed<'a> {
    id: u64,
    place: u64,
    population: Population,
    view: &'a EndpointView,
}

impl Placed<'_> {
    fn loss(&self, view: &CheckView) -> Loss {
        Loss {
            endpoint: self.id,
            place: self.place,
            check: stable_hash(&[&view.uid]),
            population: self.population,
            interval: view.idle_interval,
        }
    }
}

fn placed(view: &Arc<CheckView>) -> impl Iterator<Item = Placed<'_>> {
    view.endpoints.iter().flat_map(EndpointView::places).filter_map(|row| {
        Some(Placed {
            id: stable_hash(&[&view.uid, &row.target, &row.identity]),
            place: stable_hash(&[&row.label]),
            population: population(row)?,
            view: row,
        })
    })
}

/// By what the endpoint of `row` is found; `None` where it has no place.
#[must_use]
pub fn population(row: &EndpointView) -> Option<Population> {
    if row.label.is_empty() {
        return None;
    }
    Some(if row.named { Population::Named } else { Population::Address })
}

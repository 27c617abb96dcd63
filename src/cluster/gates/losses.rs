//! Watches the board for losses that are too large to be the targets' own.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    check::{EndpointState, ObjectKey},
    engine::{Board, CheckView, EndpointView, stable_hash},
    gate::{Detector, Frozen, Loss, Population, Watched},
};

#[derive(Debug, Default)]
struct Known {
    watched: Watched,
    /// Endpoints that have been seen good, and whether they are bad now.
    endpoints: HashMap<u64, bool>,
}

/// See the module's own words. Times are of any clock that only goes forward.
#[derive(Debug, Default)]
pub struct Losses {
    detector: Detector,
    checks: HashMap<ObjectKey, Known>,
    watched: Watched,
}

impl Losses {
    /// Takes in what the board says of `key` now. The first failure of what was healthy counts: a loss is seen before
    /// any gate has acted on a part of it.
    pub fn take(&mut self, key: &ObjectKey, board: &Board, now: Duration) {
        let mut known = self.checks.remove(key).unwrap_or_default();
        self.watched.named -= known.watched.named;
        self.watched.address -= known.watched.address;
        let view = board.get(key).filter(|view| !view.suspended);
        let rows: Vec<_> = view.iter().flat_map(placed).collect();
        known.watched = Watched::default();
        for (_, _, population) in &rows {
            match population {
                Population::Named => known.watched.named += 1,
                Population::Address => known.watched.address += 1,
            }
        }
        self.watched.named += known.watched.named;
        self.watched.address += known.watched.address;
        self.detector.watch(self.watched, now);

        let here: HashSet<u64> = rows.iter().map(|(id, ..)| *id).collect();
        known.endpoints.retain(|id, bad| {
            let stays = here.contains(id);
            if !stays && *bad {
                self.detector.turned_good(*id, now);
            }
            stays
        });
        let Some(view) = view.as_ref().filter(|_| !rows.is_empty()) else { return };
        let check = stable_hash(&[&view.uid]);
        for (id, row, population) in rows {
            let bad = match row.state {
                EndpointState::Healthy if row.measured => false,
                EndpointState::MostlyHealthy | EndpointState::Unhealthy => true,
                // On its way back, or unknown: neither.
                _ => continue,
            };
            match known.endpoints.get_mut(&id) {
                // What was bad when it was first seen was not lost.
                None if bad => {}
                None => {
                    known.endpoints.insert(id, false);
                }
                Some(was) if *was == bad => {}
                Some(was) => {
                    *was = bad;
                    if bad {
                        let loss = Loss { endpoint: id, check, population, interval: view.interval };
                        self.detector.turned_bad(loss, now);
                    } else {
                        self.detector.turned_good(id, now);
                    }
                }
            }
        }
        self.checks.insert(key.clone(), known);
    }

    /// What is frozen now.
    pub fn frozen(&mut self, now: Duration) -> Frozen {
        self.detector.frozen(now)
    }
}

/// The endpoints of `view` that have a place: an id of each, and by what it is found.
fn placed(view: &Arc<CheckView>) -> impl Iterator<Item = (u64, &EndpointView, Population)> {
    view.endpoints.iter().filter(|row| !row.label.is_empty()).map(|row| {
        let id = stable_hash(&[&view.uid, &row.target, &row.identity]);
        let named = row.label.parse::<SocketAddr>().is_err() && row.label.parse::<std::net::IpAddr>().is_err();
        (id, row, if named { Population::Named } else { Population::Address })
    })
}

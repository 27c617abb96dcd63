//! How often the endpoints of one check have changed of late.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    check::Text,
    engine::{CheckView, EndpointView},
    gate::Flap,
};

#[derive(Clone, Copy, Debug)]
struct Known {
    healthy: bool,
    flap: Flap,
}

/// See the module's own words. Times are of any clock that only goes forward.
#[derive(Debug, Default)]
pub struct Flaps(HashMap<(Text, Text), Known>);

impl Flaps {
    /// Takes in what `view` says at `now`.
    pub fn take(&mut self, view: &CheckView, now: Duration) {
        let places = view.endpoints.iter().flat_map(EndpointView::places);
        let there: HashSet<_> = places.map(|row| (&*row.target, &*row.identity)).collect();
        self.0.retain(|(target, identity), _| there.contains(&(&**target, &**identity)));
        for row in view.endpoints.iter().flat_map(EndpointView::places) {
            let state = row.verdict();
            let healthy = state.is_healthy();
            if !row.measured || (!healthy && !state.is_unhealthy()) {
                continue;
            }
            let known = self
                .0
                .entry((row.target.clone(), row.identity.clone()))
                .or_insert(Known { healthy, flap: Flap::default() });
            if std::mem::replace(&mut known.healthy, healthy) != healthy {
                known.flap.flip(now, view.interval);
            }
        }
    }

    /// Until when the return of an endpoint waits, where it does.
    #[must_use]
    pub fn waits_until(&self, row: &EndpointView, now: Duration) -> Option<Duration> {
        self.0.get(&(row.target.clone(), row.identity.clone()))?.flap.held_until(now)
    }

    /// When the next wait ends.
    #[must_use]
    pub fn next_end(&self, now: Duration) -> Option<Duration> {
        self.0.values().filter_map(|known| known.flap.held_until(now)).min()
    }
}

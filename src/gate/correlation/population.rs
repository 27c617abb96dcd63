//! Those of a population that turned bad of late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::Loss;

/// Within how many of its intervals an endpoint's loss counts, and how many good ones end a freeze.
const WINDOW: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Suspect {
    check: u64,
    interval: Duration,
    /// From then on its loss counts no more, unless there is a freeze.
    until: Duration,
}

/// The endpoints of one population that turned bad inside the window or, in a freeze, for it or since, and are bad still.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    suspects: HashMap<u64, Suspect>,
    by_end: BTreeSet<(Duration, u64)>,
    /// How many there are of each check.
    checks: HashMap<u64, usize>,
    /// How many there are of each interval.
    intervals: BTreeMap<Duration, usize>,
    freeze: Option<Freeze>,
}

#[derive(Clone, Copy, Debug)]
struct Freeze {
    /// The longest interval of those who are its cause.
    longest: Duration,
    /// Since when things have been good.
    good_since: Option<Duration>,
}

impl Freeze {
    fn thaws_at(self) -> Option<Duration> {
        self.good_since.map(|since| since.saturating_add(self.longest.saturating_mul(WINDOW)))
    }
}

impl Suspects {
    pub(super) fn len(&self) -> usize {
        self.suspects.len()
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.freeze.is_some()
    }

    /// The check they all belong to, `None` where there is no suspect; an error where there are several checks.
    pub(super) fn only_check(&self) -> Result<Option<u64>, ()> {
        if self.checks.len() > 1 { Err(()) } else { Ok(self.checks.keys().next().copied()) }
    }

    pub(super) fn add(&mut self, loss: &Loss, now: Duration) {
        if self.suspects.contains_key(&loss.endpoint) {
            return;
        }
        let until = now.saturating_add(loss.interval.saturating_mul(WINDOW));
        self.suspects.insert(loss.endpoint, Suspect { check: loss.check, interval: loss.interval, until });
        self.by_end.insert((until, loss.endpoint));
        *self.checks.entry(loss.check).or_default() += 1;
        *self.intervals.entry(loss.interval).or_default() += 1;
    }

    pub(super) fn remove(&mut self, endpoint: u64) {
        let Some(suspect) = self.suspects.remove(&endpoint) else { return };
        self.by_end.remove(&(suspect.until, endpoint));
        if let Some(count) = self.checks.get_mut(&suspect.check) {
            *count -= 1;
            if *count == 0 {
                self.checks.remove(&suspect.check);
            }
        }
        if let Some(count) = self.intervals.get_mut(&suspect.interval) {
            *count -= 1;
            if *count == 0 {
                self.intervals.remove(&suspect.interval);
            }
        }
    }

    /// When a freeze ends if nothing more happens.
    pub(super) fn thaws_at(&self) -> Option<Duration> {
        self.freeze.and_then(Freeze::thaws_at)
    }

    /// When something changes by time alone.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.freeze {
            Some(freeze) => freeze.thaws_at(),
            None => self.by_end.first().map(|(until, _)| *until),
        }
    }

    /// Does what is due at `now`: a freeze ends, and losses that are too old count no more.
    pub(super) fn settle(&mut self, now: Duration) {
        if self.thaws_at().is_some_and(|end| end <= now) {
            self.freeze = None;
        }
        if self.freeze.is_some() {
            return;
        }
        while let Some((_, endpoint)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.remove(endpoint);
        }
    }

    /// Takes in whether what is lost `now` is a correlated loss.
    pub(super) fn judge(&mut self, lost: bool, now: Duration) {
        let longest = self.intervals.last_key_value().map_or(Duration::ZERO, |(interval, _)| *interval);
        match &mut self.freeze {
            None if lost => self.freeze = Some(Freeze { longest, good_since: None }),
            None => {}
            Some(freeze) => {
                freeze.longest = freeze.longest.max(longest);
                if lost {
                    freeze.good_since = None;
                } else {
                    freeze.good_since.get_or_insert(now);
                }
            }
        }
    }
}

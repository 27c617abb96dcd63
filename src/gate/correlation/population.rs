//! Those of a population that turned bad of late.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{Loss, STEADY, STEADY_BOUNDS};

/// Within how many of its intervals an endpoint's loss counts, and how many good ones end a freeze.
const WINDOW: u32 = 2;

#[derive(Clone, Copy, Debug)]
struct Suspect {
    check: u64,
    place: u64,
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
    /// How many there are at each place.
    places: HashMap<u64, usize>,
    /// How many there are of each interval.
    intervals: BTreeMap<Duration, usize>,
    freeze: Option<Freeze>,
}

#[derive(Debug)]
struct Freeze {
    /// The longest interval of those who are its cause.
    longest: Duration,
    /// Since when things have been good.
    good_since: Option<Duration>,
    began: Duration,
    round: Round,
}

/// How those fare that were not lost.
#[derive(Debug)]
struct Round {
    since: Duration,
    /// How many places were not lost then.
    survivors: usize,
    /// Places that have failed since.
    gaps: HashSet<u64>,
}

impl Round {
    fn begin(survivors: usize, since: Duration) -> Self {
        Self { since, survivors, gaps: HashSet::new() }
    }

    /// Whether most of them have not failed once. Not all: of many some always fail.
    fn is_steady(&self) -> bool {
        self.gaps.len() * 2 < self.survivors
    }
}

impl Freeze {
    fn thaws_at(&self) -> Option<Duration> {
        self.good_since.map(|since| since.saturating_add(self.longest.saturating_mul(WINDOW)))
    }

    /// When the loss is believed if the others stay well; `None` where there are none.
    fn believed_at(&self) -> Option<Duration> {
        let long = self.longest.saturating_mul(STEADY).clamp(STEADY_BOUNDS.0, STEADY_BOUNDS.1);
        (self.round.survivors > 0).then(|| self.round.since.saturating_add(long))
    }
}

impl Suspects {
    /// How many places they are at.
    pub(super) fn len(&self) -> usize {
        self.places.len()
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
        let suspect = Suspect { check: loss.check, place: loss.place, interval: loss.interval, until };
        self.suspects.insert(loss.endpoint, suspect);
        self.by_end.insert((until, loss.endpoint));
        let there = self.places.entry(loss.place).or_default();
        *there += 1;
        if let Some(freeze) = self.freeze.as_mut().filter(|_| *there == 1) {
            freeze.round.gaps.insert(loss.place);
        }
        *self.checks.entry(loss.check).or_default() += 1;
        *self.intervals.entry(loss.interval).or_default() += 1;
    }

    pub(super) fn remove(&mut self, endpoint: u64) {
        let Some(suspect) = self.suspects.remove(&endpoint) else { return };
        self.by_end.remove(&(suspect.until, endpoint));
        one_less(&mut self.checks, &suspect.check);
        one_less(&mut self.places, &suspect.place);
        if let Some(count) = self.intervals.get_mut(&suspect.interval) {
            *count -= 1;
            if *count == 0 {
                self.intervals.remove(&suspect.interval);
            }
        }
    }

    /// When a freeze ends if nothing more happens.
    pub(super) fn ends_at(&self) -> Option<Duration> {
        let freeze = self.freeze.as_ref()?;
        freeze.thaws_at().into_iter().chain(freeze.believed_at()).min()
    }

    /// When something changes by time alone.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.freeze {
            Some(_) => self.ends_at(),
            None => self.by_end.first().map(|(until, _)| *until),
        }
    }

    /// From `now` on it is looked how those of the `watched` fare that are not lost.
    pub(super) fn begin_round(&mut self, watched: usize, now: Duration) {
        let survivors = watched.saturating_sub(self.len());
        if let Some(freeze) = &mut self.freeze {
            freeze.round = Round::begin(survivors, now);
        }
    }

    /// Does what is due at `now`: a freeze ends, and losses that are too old count no more.
    pub(super) fn settle(&mut self, watched: usize, now: Duration) {
        if let Some(freeze) = &self.freeze {
            let believed = freeze.believed_at().is_some_and(|end| end <= now);
            if freeze.thaws_at().is_some_and(|end| end <= now) || (believed && freeze.round.is_steady()) {
                self.freeze = None;
            } else {
                if believed {
                    self.begin_round(watched, now);
                }
                return;
            }
        }
        while let Some((_, endpoint)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.remove(endpoint);
        }
    }

    /// Takes in whether what is lost `now` is a correlated loss.
    pub(super) fn judge(&mut self, lost: bool, watched: usize, now: Duration) {
        let longest = self.intervals.last_key_value().map_or(Duration::ZERO, |(interval, _)| *interval);
        let survivors = watched.saturating_sub(self.len());
        match &mut self.freeze {
            None if lost => {
                self.freeze =
                    Some(Freeze { longest, good_since: None, began: now, round: Round::begin(survivors, now) });
            }
            None => {}
            Some(freeze) => {
                // A loss is seen before it is complete.
                let grows = now.saturating_sub(freeze.began) < longest.saturating_mul(WINDOW);
                if freeze.round.survivors == 0 || grows {
                    freeze.round = Round::begin(survivors, now);
                }
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

fn one_less(counts: &mut HashMap<u64, usize>, key: &u64) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

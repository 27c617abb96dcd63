//! How long the write of a slice waits for more to go with it. Pure.
//!
//! A lone flip is written at once, or nearly. Where several endpoints of a slice turn within the moment that takes, more
//! are on their way: a rack, a network, a rollout. Their probes tell within an interval, and each write rewrites the
//! whole slice, for every proxy of the cluster, so what comes soon goes with it. The more there are the longer it waits,
//! but not so long that a Service is left with endpoints that are known to be dead. After a write its slice rests.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::write::GateKey;

/// How long writes wait and rest.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// A lone flip waits for a second one.
    pub lone: Duration,
    /// Several wait for more.
    pub several: Duration,
    /// [`MANY`] wait for all of them.
    pub many: Duration,
    /// Between two writes of one slice.
    pub rest: Duration,
}

/// So many flips at once are a wave.
const MANY: usize = 10;

impl Default for Spans {
    /// From a verdict to its slice are 50 ms at most, of which the server takes some 10; a wave of checks that are probed
    /// each second is over in little more than one.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { lone: ms(15), several: ms(300), many: ms(1200), rest: ms(300) }
    }
}

/// See the module's own words.
#[derive(Debug, Default)]
pub struct Pace {
    spans: Spans,
    /// Since when something is to be written.
    since: HashMap<GateKey, Instant>,
    /// When the last write ended, as long as that matters.
    ended: HashMap<GateKey, Instant>,
    /// When it is to be asked again.
    due: BTreeMap<Instant, Vec<GateKey>>,
}

impl Pace {
    #[cfg(test)]
    pub fn new(spans: Spans) -> Self {
        Self { spans, ..Self::default() }
    }

    /// Whether a write that turns `flips` endpoints, and does nothing else, may be sent now. Otherwise it is to be asked
    /// again when [`Self::due`] says so. One without flips does something else, and does not wait.
    pub fn may_send(&mut self, key: &GateKey, flips: usize, now: Instant) -> bool {
        let since = *self.since.entry(key.clone()).or_insert(now);
        let rested = self.ended.get(key).map_or(now, |ended| *ended + self.spans.rest);
        let until = match flips {
            0 => now,
            1 => rested.max(since + self.spans.lone),
            2..MANY => rested.max(since + self.spans.several),
            MANY.. => rested.max(since + self.spans.many),
        };
        if until <= now {
            self.since.remove(key);
            return true;
        }
        let due = self.due.entry(until).or_default();
        if !due.contains(key) {
            due.push(key.clone());
        }
        false
    }

    /// A write of `key` has ended well.
    pub fn ended(&mut self, key: &GateKey, now: Instant) {
        let rest = self.spans.rest;
        self.ended.retain(|_, ended| now < *ended + rest);
        self.ended.insert(key.clone(), now);
    }

    /// Nothing is to be written to `key` any more.
    pub fn settled(&mut self, key: &GateKey) {
        self.since.remove(key);
    }

    /// What is to be asked again by `now`, each once.
    pub fn take_due(&mut self, now: Instant) -> Vec<GateKey> {
        let later = self.due.split_off(&(now + Duration::from_nanos(1)));
        std::mem::replace(&mut self.due, later).into_values().flatten().collect()
    }

    /// When something is to be asked again.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::ObjectKey;

    fn key(name: &str) -> GateKey {
        GateKey::Slice(ObjectKey::new("shop", name))
    }

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Flips of one slice at these milliseconds, the writes 10 ms long: when each write is sent, and what it turns.
    fn sent(flips: &[u64]) -> Vec<(u64, usize)> {
        let start = Instant::now();
        let (mut pace, mut sent, mut waiting, mut in_flight) = (Pace::default(), vec![], 0, None);
        for at in 0..10_000 {
            let now = start + ms(at);
            let come = flips.iter().filter(|flip| **flip == at).count();
            waiting += come;
            let ended = in_flight.take_if(|end| *end <= at).is_some();
            if ended {
                pace.ended(&key("a"), now);
            }
            let asked = !pace.take_due(now).is_empty() || come > 0 || ended;
            if asked && waiting > 0 && in_flight.is_none() && pace.may_send(&key("a"), waiting, now) {
                sent.push((at, std::mem::take(&mut waiting)));
                in_flight = Some(at + 10);
            }
        }
        assert_eq!((waiting, pace.since.len(), pace.due.len()), (0, 0, 0), "nothing is forgotten, or left behind");
        sent
    }

    #[test]
    fn a_lone_flip_hardly_waits() {
        assert_eq!(sent(&[100]), [(115, 1)]);
        assert_eq!(sent(&[100, 1000]), [(115, 1), (1015, 1)]);
        assert_eq!(sent(&[100, 150]), [(115, 1), (425, 1)], "a slice rests after a write");
    }

    #[test]
    fn a_wave_is_one_write_and_no_flip_of_it_waits_for_long() {
        let wave: Vec<_> = (0..100).map(|flip| 100 + flip * 10).collect();
        assert_eq!(sent(&wave), [(1300, 100)]);
        assert_eq!(sent(&[100, 105, 200, 700]), [(400, 3), (715, 1)]);
        let endless: Vec<_> = (0..500).map(|flip| 100 + flip * 10).collect();
        let writes = sent(&endless);
        assert_eq!(writes.iter().map(|(_, flips)| flips).sum::<usize>(), 500);
        assert!(writes.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 1300) && writes.len() == 5, "{writes:?}");
    }

    #[test]
    fn what_turns_nothing_and_other_slices_do_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.may_send(&key("a"), 100, now) && pace.may_send(&key("a"), 0, now));
        pace.ended(&key("a"), now);
        assert!(pace.may_send(&key("a"), 0, now), "nor after a write");
        assert!(!pace.may_send(&key("b"), 1, now));
        assert!(pace.may_send(&key("b"), 1, now + ms(15)));
    }

    #[test]
    fn one_that_is_taken_back_begins_anew() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.may_send(&key("a"), 1, now));
        pace.settled(&key("a"));
        assert_eq!(pace.next(), Some(now + ms(15)));
        assert_eq!(pace.take_due(now + ms(15)), [key("a")]);
        assert!(!pace.may_send(&key("a"), 1, now + ms(100)) && pace.next() == Some(now + ms(115)));
    }
}

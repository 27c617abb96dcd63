//! How long the write of a slice waits for more to go with it. Pure.
//!
//! What is to be taken out of traffic costs requests as long as it is in: the first of it is written at once, or nearly,
//! however many there are. Where several endpoints of a slice turn, more are on their way: a rack, a network, a rollout.
//! Their probes tell within an interval, and each write rewrites the whole slice, for every proxy of the cluster, so
//! after a write its slice rests and what comes meanwhile goes with the next. Returns cost nothing, and are waited for
//! longer. What endpoints there are changes at once, and then seldom: a name may lead somewhere else at each look.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::write::{GateKey, Turns};

/// How long writes wait and rest.
#[derive(Clone, Copy, Debug)]
pub struct Spans {
    /// A lone return, and any removal, waits for a second one.
    pub lone: Duration,
    /// Several returns wait for more.
    pub several: Duration,
    /// [`MANY`] wait for all of them.
    pub many: Duration,
    /// Between two writes of one slice.
    pub rest: Duration,
    /// Between two writes that change which endpoints there are.
    pub members: Duration,
}

/// So many returns at once are a wave.
const MANY: usize = 10;

impl Default for Spans {
    /// From a verdict to its slice are 50 ms at most, of which the server takes some 10. In a wave it is half a second:
    /// kube-proxy gathers for a second by default, and two seconds after the verdict no request may fail any more.
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { lone: ms(15), several: ms(300), many: ms(1200), rest: ms(450), members: ms(5000) }
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
    /// When a write that changed which endpoints there are was last sent, as long as that matters.
    members: HashMap<GateKey, Instant>,
    /// When it is to be asked again.
    due: BTreeMap<Instant, Vec<GateKey>>,
}

impl Pace {
    #[cfg(test)]
    pub fn new(spans: Spans) -> Self {
        Self { spans, ..Self::default() }
    }

    /// Whether a write that does `turns` may be sent now. Otherwise it is to be asked again when [`Self::next`] says so.
    pub fn may_send(&mut self, key: &GateKey, turns: Turns, now: Instant) -> bool {
        let Spans { lone, several, many, rest, members } = self.spans;
        let since = *self.since.entry(key.clone()).or_insert(now);
        let rested = self.ended.get(key).map_or(now, |ended| *ended + rest);
        let until = match turns {
            Turns { other: true, .. } => now,
            Turns { removals: 1.., .. } => rested.max(since + lone),
            Turns { members: true, .. } => self.members.get(key).map_or(now, |sent| *sent + members),
            Turns { returns: ..=1, .. } => rested.max(since + lone),
            Turns { returns: 2..MANY, .. } => rested.max(since + several),
            _ => rested.max(since + many),
        };
        if until <= now {
            self.since.remove(key);
            if turns.members {
                self.members.retain(|_, sent| now < *sent + members);
                self.members.insert(key.clone(), now);
            }
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

    fn removals(count: usize) -> Turns {
        Turns { removals: count, ..Turns::default() }
    }

    fn returns(count: usize) -> Turns {
        Turns { returns: count, ..Turns::default() }
    }

    /// Flips of one slice at these milliseconds, the writes 10 ms long: when each write is sent, and what it turns.
    fn sent(flips: &[u64], turns: fn(usize) -> Turns) -> Vec<(u64, usize)> {
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
            if asked && waiting > 0 && in_flight.is_none() && pace.may_send(&key("a"), turns(waiting), now) {
                sent.push((at, std::mem::take(&mut waiting)));
                in_flight = Some(at + 10);
            }
        }
        assert_eq!((waiting, pace.since.len(), pace.due.len()), (0, 0, 0), "nothing is forgotten, or left behind");
        sent
    }

    #[test]
    fn a_lone_flip_hardly_waits() {
        for turns in [removals, returns] {
            assert_eq!(sent(&[100], turns), [(115, 1)]);
            assert_eq!(sent(&[100, 1000], turns), [(115, 1), (1015, 1)]);
            assert_eq!(sent(&[100, 150], turns), [(115, 1), (575, 1)], "a slice rests after a write");
        }
    }

    #[test]
    fn a_rack_that_dies_is_taken_out_at_once_and_its_stragglers_soon() {
        assert_eq!(sent(&[100; 10], removals), [(115, 10)]);
        let wave: Vec<_> = (0..100).map(|flip| 100 + flip * 10).collect();
        let writes = sent(&wave, removals);
        assert_eq!(writes.iter().map(|(_, flips)| flips).sum::<usize>(), 100);
        assert!(writes[0].0 == 115 && writes.len() <= 4, "{writes:?}");
        assert!(writes.windows(2).all(|pair| pair[1].0 - pair[0].0 <= 475), "none waits longer: {writes:?}");
    }

    #[test]
    fn a_wave_of_returns_is_one_write() {
        let wave: Vec<_> = (0..100).map(|flip| 100 + flip * 10).collect();
        assert_eq!(sent(&wave, returns), [(1300, 100)]);
        assert_eq!(sent(&[100, 105, 200, 700], returns), [(400, 3), (860, 1)]);
    }

    #[test]
    fn what_has_to_go_waits_for_no_return() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.may_send(&key("a"), returns(50), now));
        assert!(pace.may_send(&key("a"), Turns { removals: 1, ..returns(50) }, now + ms(15)));
    }

    #[test]
    fn other_endpoints_are_listed_at_once_and_then_seldom_unless_one_is_to_go() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let members = Turns { members: true, ..returns(1) };
        let mut sent = vec![];
        for at in (0..20_000).step_by(100) {
            if pace.may_send(&key("a"), members, start + ms(at)) {
                sent.push(at);
                pace.ended(&key("a"), start + ms(at + 10));
            }
        }
        assert_eq!(sent, [0, 5000, 10_000, 15_000]);
        assert!(pace.may_send(&key("b"), members, start), "another slice");
        let dead = Turns { removals: 1, ..members };
        assert!(pace.may_send(&key("a"), dead, start + ms(19_950)));
    }

    #[test]
    fn what_does_something_else_does_not_wait() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.may_send(&key("a"), removals(100), now) && pace.may_send(&key("a"), Turns::OTHER, now));
        pace.ended(&key("a"), now);
        assert!(pace.may_send(&key("a"), Turns::OTHER, now), "nor after a write");
        assert!(!pace.may_send(&key("b"), removals(1), now));
        assert!(pace.may_send(&key("b"), removals(1), now + ms(15)));
    }

    #[test]
    fn one_that_is_taken_back_begins_anew() {
        let now = Instant::now();
        let mut pace = Pace::default();
        assert!(!pace.may_send(&key("a"), removals(1), now));
        pace.settled(&key("a"));
        assert_eq!(pace.next(), Some(now + ms(15)));
        assert_eq!(pace.take_due(now + ms(15)), [key("a")]);
        assert!(!pace.may_send(&key("a"), removals(1), now + ms(100)) && pace.next() == Some(now + ms(115)));
    }
}

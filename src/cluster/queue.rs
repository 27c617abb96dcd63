//! What waits to be written: keys, each once, most urgent first, at a bounded rate. Pure: the time comes from outside.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

/// How soon a key is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It moves traffic.
    Gate,
    /// A verdict or a spec changed, and gates act by it: whoever looks why traffic moved finds it told.
    Gated,
    /// A verdict or a spec changed.
    Transition,
    /// Something smaller changed.
    Change,
    /// Nothing changed: a status is confirmed.
    Refresh,
}

const CLASSES: usize = 5;
/// The shortest pause after a failed write, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Within which time no more than the rate is sent: a second, and by how much two writes may come closer on their way.
const WINDOW: Duration = Duration::from_millis(1100);
/// So long a key that was written just now waits for its next write, once more than half of the rate is used up: else a few
/// whose many endpoints change one after the other use up all of it at once, and nobody is written for the rest of the second.
const SPACING: Duration = Duration::from_millis(500);
/// From one write of a key to the next, so many times as long as the first of them takes, and so long at most: a server that
/// has no time to spare is not asked to store what is out of date before it is stored.
const REST: (u32, Duration) = (4, Duration::from_secs(1));
/// A shorter rest is none.
const LEAST_REST: Duration = Duration::from_millis(100);

/// See the module's own words.
#[derive(Debug)]
pub struct WriteQueue<K> {
    waiting: [VecDeque<K>; CLASSES],
    urgency: HashMap<K, Urgency>,
    /// And since when.
    in_flight: HashMap<K, Instant>,
    /// Keys that took long to write, and until when they are left alone.
    resting: HashMap<K, Instant>,
    /// See [`Self::hurry`].
    hurried: bool,
    /// Keys that are left alone until then, with the number of failures in a row.
    failures: HashMap<K, (u32, Instant)>,
    /// Nothing is written before this: the server cannot be reached, or asks for patience.
    pause: Option<(u32, Instant)>,
    all: Window<K>,
    refreshes: Bucket,
}

/// The latest writes: whichever second is looked at, there are no more than so many in it.
#[derive(Debug)]
struct Window<K> {
    most: usize,
    sent: VecDeque<(Instant, K)>,
}

impl<K: Eq> Window<K> {
    fn new(most: u32) -> Self {
        let most = most.max(1) as usize;
        Self { most, sent: VecDeque::with_capacity(most) }
    }

    /// When there is room, at the earliest.
    fn ready_at(&self, now: Instant) -> Instant {
        match self.sent.front() {
            Some((first, _)) if self.sent.len() == self.most => now.max(*first + WINDOW),
            _ => now,
        }
    }

    fn take(&mut self, now: Instant, key: K) {
        if self.sent.len() == self.most {
            self.sent.pop_front();
        }
        self.sent.push_back((now, key));
    }

    /// Whether more than half of the rate is used up.
    fn is_crowded(&self, now: Instant) -> bool {
        self.sent.iter().rev().nth(self.most / 2).is_some_and(|(at, _)| *at + WINDOW > now)
    }

    /// When `key` was last written, if that was lately.
    fn written(&self, key: &K) -> Option<Instant> {
        self.sent.iter().rev().find(|(_, written)| written == key).map(|(at, _)| *at)
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl Bucket {
    const fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, tokens: burst, at: None }
    }

    fn fill(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.tokens = self.burst.min(self.tokens + passed.as_secs_f64() * self.per_second);
        self.at = Some(now);
    }

    /// When there is a token, at the earliest.
    fn ready_at(&self, now: Instant) -> Instant {
        if self.tokens >= 1.0 {
            return now;
        }
        now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second)
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<K> {
    Write(K),
    /// Nothing can be written before then.
    Wait(Instant),
    /// Nothing waits.
    Idle,
}

impl<K: Clone + Eq + Hash> WriteQueue<K> {
    /// At most `per_second` writes in any second, of which at most `refreshes_per_second` are confirmations.
    #[must_use]
    pub fn new(per_second: u32, refreshes_per_second: u32) -> Self {
        Self {
            waiting: std::array::from_fn(|_| VecDeque::new()),
            urgency: HashMap::new(),
            in_flight: HashMap::new(),
            resting: HashMap::new(),
            hurried: false,
            failures: HashMap::new(),
            pause: None,
            all: Window::new(per_second),
            refreshes: Bucket::new(refreshes_per_second.into(), 1.0),
        }
    }

    /// `key` is to be written. Waiting already, it keeps its place unless this is more urgent.
    pub fn push(&mut self, key: K, urgency: Urgency) {
        match self.urgency.get(&key) {
            Some(known) if *known <= urgency => {}
            _ => {
                // What stands in a less urgent line is passed over when its turn comes.
                self.urgency.insert(key.clone(), urgency);
                self.waiting[urgency as usize].push_back(key);
            }
        }
    }

    /// `key` is never to be written again.
    pub fn forget(&mut self, key: &K) {
        self.urgency.remove(key);
        self.failures.remove(key);
        self.resting.remove(key);
    }

    /// From now on no key waits for the sake of a pause: there is but a moment for the last word of each.
    pub const fn hurry(&mut self) {
        self.hurried = true;
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.urgency.len()
    }

    #[must_use]
    pub fn is_in_flight(&self, key: &K) -> bool {
        self.in_flight.contains_key(key)
    }

    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What to write now. It counts as in flight until [`Self::done`] or [`Self::failed`], and is not given out a second
    /// time meanwhile.
    pub fn next(&mut self, now: Instant) -> Next<K> {
        self.refreshes.fill(now);
        if self.urgency.is_empty() {
            return Next::Idle;
        }
        let mut earliest: Option<Instant> = None;
        let mut wait = |at: Instant| earliest = Some(earliest.map_or(at, |other| other.min(at)));
        let open = self.pause.map_or(now, |(_, until)| until).max(self.all.ready_at(now));
        if open > now {
            return Next::Wait(open);
        }
        let crowded = self.all.is_crowded(now);
        for class in [Urgency::Gate, Urgency::Gated, Urgency::Transition, Urgency::Change, Urgency::Refresh] {
            if class == Urgency::Refresh {
                let ready = self.refreshes.ready_at(now);
                if ready > now {
                    if !self.waiting[class as usize].is_empty() {
                        wait(ready);
                    }
                    continue;
                }
            }
            let line = &mut self.waiting[class as usize];
            for _ in 0..line.len() {
                let Some(key) = line.pop_front() else { break };
                if self.urgency.get(&key) != Some(&class) {
                    continue;
                }
                let failed = self.failures.get(&key).map(|(_, until)| *until);
                // What moves traffic, and what tells why, is not kept waiting.
                let patient = class >= Urgency::Transition && !self.hurried;
                let spaced = (patient && crowded).then(|| self.all.written(&key)).flatten().map(|at| at + SPACING);
                let rested = self.resting.get(&key).copied().filter(|_| patient);
                let held = failed.max(spaced).max(rested).filter(|until| *until > now);
                if let Some(until) = held {
                    wait(until);
                    line.push_back(key);
                } else if self.in_flight.contains_key(&key) {
                    // Its end is what wakes whoever asks.
                    line.push_back(key);
                } else {
                    self.urgency.remove(&key);
                    self.in_flight.insert(key.clone(), now);
                    self.all.take(now, key.clone());
                    if class == Urgency::Refresh {
                        self.refreshes.tokens -= 1.0;
                    }
                    return Next::Write(key);
                }
            }
        }
        earliest.map_or(Next::Idle, Next::Wait)
    }

    /// The write of `key` ended well.
    pub fn done(&mut self, key: &K, now: Instant) {
        self.resting.retain(|_, until| *until > now);
        if let Some(sent) = self.in_flight.remove(key) {
            let rest = now.saturating_duration_since(sent).saturating_mul(REST.0).min(REST.1);
            if rest >= LEAST_REST {
                self.resting.insert(key.clone(), sent + rest);
            }
        }
        self.failures.remove(key);
        self.pause = None;
    }

    /// The write of `key` failed, for a reason of its own; the next one of it waits.
    pub fn failed(&mut self, key: &K, now: Instant) {
        self.in_flight.remove(key);
        self.pause = None;
        let failures = self.failures.get(key).map_or(0, |(count, _)| *count) + 1;
        self.failures.insert(key.clone(), (failures, now + backoff(failures)));
    }

    /// The write of `key` failed because nothing gets through; everything waits.
    pub fn unreachable(&mut self, key: &K, now: Instant) {
        self.in_flight.remove(key);
        // Several in flight fail of the same outage: they are one failure.
        let failures = match self.pause {
            Some((failures, until)) if until > now => failures,
            Some((failures, _)) => failures + 1,
            None => 1,
        };
        self.pause = Some((failures, now + backoff(failures).min(Duration::from_secs(2))));
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF.0.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut WriteQueue<u32>, now: Instant) -> Vec<u32> {
        std::iter::from_fn(|| match queue.next(now) {
            Next::Write(key) => Some(key),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn what_waits_is_written_once_and_the_urgent_first() {
        let now = Instant::now();
        let mut queue = WriteQueue::new(50, 50);
        queue.push(1, Urgency::Refresh);
        queue.push(2, Urgency::Change);
        queue.push(3, Urgency::Transition);
        queue.push(2, Urgency::Change);
        queue.push(1, Urgency::Transition);
        queue.push(3, Urgency::Refresh);
        queue.push(5, Urgency::Gated);
        queue.push(4, Urgency::Gate);
        assert_eq!(drain(&mut queue, now), [4, 5, 3, 1, 2]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn a_key_in_flight_is_not_written_twice_at_once_but_again_after() {
        let now = Instant::now();
        let mut queue = WriteQueue::new(50, 50);
        queue.push(1, Urgency::Change);
        assert_eq!(queue.next(now), Next::Write(1));
        queue.push(1, Urgency::Change);
        assert_eq!(queue.next(now), Next::Idle);
        queue.done(&1, now);
        assert_eq!(queue.next(now), Next::Write(1));
    }

    #[test]
    fn no_more_than_the_rate_gets_through() {
        let start = Instant::now();
        let mut queue = WriteQueue::new(50, 4);
        for key in 0..1000 {
            queue.push(key, Urgency::Transition);
        }
        let written: Vec<_> =
            (0..10_000).map(|millis| drain(&mut queue, start + Duration::from_millis(millis)).len()).collect();
        assert_eq!(written[0], 50, "what comes at once goes at once");
        assert!(written.windows(1000).all(|second| second.iter().sum::<usize>() <= 50), "in whichever second");
        let all: usize = written.iter().sum();
        assert!((450..=500).contains(&all), "{all}");
    }

    #[test]
    fn a_few_that_change_all_the_time_leave_room_in_every_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut queue = WriteQueue::new(50, 4);
        let (mut written, mut told) = (vec![], vec![]);
        for millis in 0..3_000 {
            if millis % 2 == 0 {
                queue.push((millis / 2 % 20) as u32, Urgency::Transition);
                told.push((millis, (millis / 2 % 20) as u32));
            }
            for key in drain(&mut queue, at(millis)) {
                queue.done(&key, at(millis));
                written.push((millis, key));
            }
        }
        let waited = |(since, key): &(u64, u32)| {
            written.iter().find(|(millis, of)| millis >= since && of == key).map_or(3_000 - since, |(at, _)| at - since)
        };
        let longest = told.iter().map(waited).max();
        assert!(longest <= Some(850), "{longest:?}: no key waits for most of a second");
        assert!(waited(&told[21]) < 5, "while few are written, each goes at once");
        let second = |from: u64| written.iter().filter(|(at, _)| (from..from + 1000).contains(at)).count();
        assert!((0..2_000).all(|from| second(from) <= 50), "in whichever second");
    }

    #[test]
    fn what_moves_traffic_waits_for_no_spacing() {
        let now = Instant::now();
        let mut queue = WriteQueue::new(50, 4);
        for round in 0..30 {
            queue.push(1, Urgency::Gate);
            assert_eq!(queue.next(now), Next::Write(1), "{round}");
            queue.done(&1, now);
        }
        queue.push(1, Urgency::Transition);
        assert_eq!(queue.next(now), Next::Wait(now + SPACING));
        assert_eq!(queue.next(now + SPACING), Next::Write(1));
    }

    #[test]
    fn the_last_word_waits_for_no_pause() {
        let now = Instant::now();
        let soon = now + Duration::from_millis(200);
        let mut queue = WriteQueue::new(50, 4);
        queue.push(1, Urgency::Transition);
        assert_eq!(queue.next(now), Next::Write(1));
        queue.done(&1, soon);
        queue.push(1, Urgency::Transition);
        assert_eq!(queue.next(soon), Next::Wait(now + Duration::from_millis(800)));
        queue.hurry();
        assert_eq!(queue.next(soon), Next::Write(1));
    }

    #[test]
    fn who_takes_long_to_be_written_is_written_less_often() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut queue = WriteQueue::new(50, 4);
        let mut write = |urgency, sent, ended| {
            queue.push(1, urgency);
            let next = queue.next(at(sent));
            if next == Next::Write(1) {
                queue.done(&1, at(ended));
            }
            next
        };
        assert_eq!(write(Urgency::Transition, 0, 20), Next::Write(1));
        assert_eq!(write(Urgency::Transition, 20, 170), Next::Write(1), "quickly written: at once again");
        assert_eq!(
            write(Urgency::Transition, 170, 0),
            Next::Wait(at(620)),
            "four times 150 ms after the last one was sent"
        );
        assert_eq!(write(Urgency::Gated, 170, 3_170), Next::Write(1), "what tells why traffic moves is told at once");
        assert_eq!(write(Urgency::Transition, 3_170, 3_180), Next::Write(1), "a second is enough");
    }

    #[test]
    fn confirmations_have_a_rate_of_their_own_and_hold_nobody_up() {
        let start = Instant::now();
        let mut queue = WriteQueue::new(50, 4);
        for key in 0..100 {
            queue.push(key, Urgency::Refresh);
        }
        queue.push(1000, Urgency::Transition);
        assert_eq!(drain(&mut queue, start), [1000, 0]);
        let Next::Wait(next) = queue.next(start) else { panic!("the rest waits") };
        assert!(next > start && next <= start + Duration::from_millis(251));
        let mut written = 0;
        for millis in 0..10_000 {
            written += drain(&mut queue, start + Duration::from_millis(millis)).len();
        }
        assert!((38..=41).contains(&written), "{written}");
    }

    #[test]
    fn a_failure_of_its_own_holds_up_nobody_else_and_grows_longer() {
        let mut now = Instant::now();
        let mut queue = WriteQueue::new(50, 50);
        queue.push(1, Urgency::Transition);
        let mut pauses = vec![];
        for _ in 0..9 {
            assert_eq!(drain(&mut queue, now), [1]);
            queue.failed(&1, now);
            queue.push(1, Urgency::Transition);
            queue.push(2, Urgency::Change);
            assert_eq!(queue.next(now), Next::Write(2));
            queue.done(&2, now);
            let Next::Wait(next) = queue.next(now) else { panic!("it waits") };
            pauses.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        queue.done(&1, now);
    }

    #[test]
    fn an_outage_holds_up_everybody_for_a_moment() {
        let now = Instant::now();
        let mut queue = WriteQueue::new(50, 50);
        for key in 0..3 {
            queue.push(key, Urgency::Transition);
        }
        assert_eq!((queue.next(now), queue.next(now)), (Next::Write(0), Next::Write(1)));
        queue.unreachable(&0, now);
        queue.unreachable(&1, now);
        assert_eq!(queue.next(now), Next::Wait(now + Duration::from_millis(250)));
        assert_eq!(queue.next(now + Duration::from_millis(250)), Next::Write(2));
        queue.done(&2, now);
        queue.push(0, Urgency::Transition);
        assert_eq!(queue.next(now + Duration::from_millis(250)), Next::Write(0));
    }
}

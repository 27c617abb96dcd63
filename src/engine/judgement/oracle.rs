//! The rules of both machines together, against an oracle that knows nothing but the whole history.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::check::{Class, Observed, StatusRange};

/// One thing that happens to an endpoint that is probed and whose traffic is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A probe that counts.
    Probe(Seen),
    /// A probe whose answer is neither good nor bad.
    Neutral,
    /// A probe that could not look.
    Local,
    /// A report that counts.
    Traffic(Seen),
    /// One report that counts for as many.
    Many(Seen, u16),
    NeutralTraffic,
    /// A probe that went well, and began before everything else.
    Overtaken,
    /// Nothing for longer than a verdict is believed.
    Silence,
}

use Event::{Local, Many, Neutral, NeutralTraffic, Overtaken, Probe, Silence, Traffic};

/// How long a verdict is believed, and how long an ejection lasts where nothing is probed, in milliseconds.
const STALE_AFTER: u64 = 1000;
const EJECTION: u64 = 1500;

/// How reports are judged, but for the limits.
fn passive(limits: Thresholds, unprobed: bool) -> Passive {
    let range = |first, last| StatusRange { first, last };
    let unprobed = unprobed.then_some(Duration::from_millis(EJECTION));
    Passive { healthy: vec![range(200, 399)], unhealthy: vec![range(500, 599)], limits, unprobed }
}

struct Both {
    judgement: Judgement,
    thresholds: Thresholds,
    passive: Passive,
    now: u64,
}

impl Both {
    fn new(thresholds: Thresholds, limits: Thresholds) -> Self {
        Self::made(thresholds, passive(limits, false))
    }

    fn made(thresholds: Thresholds, passive: Passive) -> Self {
        let mut judgement = Judgement::new(0, Timestamp::UNIX_EPOCH);
        judgement.listen(Some(&passive), InitialState::Unknown, 0, Timestamp::UNIX_EPOCH);
        Self { judgement, thresholds, passive, now: 0 }
    }

    /// As the wheel does.
    fn look(&mut self) {
        self.judgement.lapse(self.now, Timestamp::UNIX_EPOCH);
        if self.judgement.expires(STALE_AFTER).is_some_and(|at| at <= self.now) {
            self.judgement.expire(Timestamp::UNIX_EPOCH);
        }
    }

    fn step(&mut self, event: Event) {
        self.now += lasts(event);
        self.look();
        let outcome = match event {
            Silence => return,
            Probe(Seen::Success) | Overtaken => Outcome::Success,
            Probe(Seen::Failure(class)) => Outcome::from_reason(
                match class {
                    Class::Connect => Reason::ConnectionRefused,
                    Class::Http => Reason::UnexpectedStatus,
                    Class::Timeout => Reason::TimeoutResponse,
                },
                "why",
            ),
            Event::Neutral => Outcome::Neutral { message: "got '404'".to_owned() },
            Event::Local => Outcome::from_reason(Reason::NoDescriptors, "no descriptors"),
            Traffic(seen) => return self.observe(observed(seen), 1),
            Many(seen, times) => return self.observe(observed(seen), times),
            Event::NeutralTraffic => return self.observe(Observed::Status(404), 1),
        };
        let span = Span { began: if event == Overtaken { 0 } else { self.now }, ended: self.now };
        self.judgement.take(&Report::new(outcome, Duration::ZERO), &self.thresholds, span, Timestamp::UNIX_EPOCH);
    }

    fn observe(&mut self, observed: Observed, times: u16) {
        let hearing = Hearing { passive: &self.passive, stale_after: STALE_AFTER };
        let now = self.now.cast_signed();
        let heard = Heard { observed, times, began: now, ended: now };
        assert!(!self.judgement.is_late(&heard, &hearing, self.now), "now is never too late");
        self.judgement.observe(&heard, &hearing, self.now, Timestamp::UNIX_EPOCH);
    }

    fn verdict(&self) -> EndpointState {
        self.judgement.shown(InitialState::Unknown)
    }
}

const fn observed(seen: Seen) -> Observed {
    match seen {
        Seen::Success => Observed::Status(200),
        Seen::Failure(Class::Connect) => Observed::ConnectFailure,
        Seen::Failure(Class::Http) => Observed::Status(503),
        Seen::Failure(Class::Timeout) => Observed::Timeout,
    }
}

/// How long after the event before it an event happens.
const fn lasts(event: Event) -> u64 {
    if matches!(event, Silence) { STALE_AFTER + 1 } else { 1 }
}

/// The last stretch of equal goodness of `history`.
fn streak(history: &[Seen]) -> &[Seen] {
    let good = |seen: &Seen| *seen == Seen::Success;
    let Some(last) = history.last() else { return &[] };
    let start = history.iter().rposition(|seen| good(seen) != good(last)).map_or(0, |at| at + 1);
    &history[start..]
}

fn is_over(streak: &[Seen], limits: &Thresholds) -> bool {
    let of = |class| streak.iter().filter(|seen| **seen == Seen::Failure(class)).count();
    let over = |count: usize, limit: Option<u8>| limit.is_some_and(|limit| count >= usize::from(limit));
    over(streak.len(), limits.failure)
        || over(of(Class::Connect), limits.connect)
        || over(of(Class::Http), limits.http)
        || over(of(Class::Timeout), limits.timeout)
}

/// What probes alone come to, from their whole history.
fn probed(history: &[Seen], thresholds: &Thresholds) -> EndpointState {
    let mut verdict: Option<bool> = None;
    for end in 1..=history.len() {
        let streak = streak(&history[..end]);
        match streak[0] {
            Seen::Success if verdict != Some(false) || streak.len() >= usize::from(thresholds.success) => {
                verdict = Some(true);
            }
            Seen::Failure(_) if is_over(streak, thresholds) => verdict = Some(false),
            _ => {}
        }
    }
    match (verdict, history.last()) {
        (None, _) | (_, None) => EndpointState::Unknown,
        (Some(true), Some(Seen::Success)) => EndpointState::Healthy,
        (Some(true), _) => EndpointState::MostlyHealthy,
        (Some(false), Some(Seen::Success)) => EndpointState::MostlyUnhealthy,
        (Some(false), _) => EndpointState::Unhealthy,
    }
}

/// The verdict over a whole history, in which a silence is the end of what was believed: only probes that had not come to a
/// verdict yet count on.
fn oracle(history: &[Event], thresholds: &Thresholds, limits: &Thresholds) -> EndpointState {
    let mut believed: Vec<Event> = vec![];
    for event in history {
        match *event {
            Silence if unbroken(&believed, thresholds, limits) == EndpointState::Unknown => {
                believed.retain(|event| matches!(event, Probe(_) | Overtaken));
            }
            Silence => believed.clear(),
            Many(seen, times) => believed.extend((0..times).map(|_| Traffic(seen))),
            event => believed.push(event),
        }
    }
    unbroken(&believed, thresholds, limits)
}

/// The verdict over a history without a silence. Every event up to the end is looked at as the one that might eject or let back:
/// `from` is where the reports of the present life of the endpoint in traffic begin.
fn unbroken(history: &[Event], thresholds: &Thresholds, limits: &Thresholds) -> EndpointState {
    let probes = |events: &[Event]| -> Vec<Seen> {
        let of = |event: &Event| match event {
            Probe(seen) => Some(*seen),
            Overtaken => Some(GOOD),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    };
    let reports = |events: &[Event]| -> Vec<Seen> {
        events.iter().filter_map(|event| if let Traffic(seen) = event { Some(*seen) } else { None }).collect()
    };
    let (mut from, mut ejected_at) = (0, None);
    for end in 1..=history.len() {
        let told = reports(&history[from..end]);
        match ejected_at {
            None => {
                if matches!(history[end - 1], Traffic(Seen::Failure(_))) && is_over(streak(&told), limits) {
                    ejected_at = Some(end);
                }
            }
            Some(at) => {
                let good_traffic = streak(&told).iter().filter(|seen| **seen == Seen::Success).count();
                let by_traffic =
                    history[end - 1] == Traffic(Seen::Success) && good_traffic >= usize::from(limits.success);
                let by_probes = proofs(history, at, end) >= usize::from(thresholds.success);
                if by_traffic || by_probes {
                    ejected_at = None;
                    // Another life, but for the good answers that ended the last one.
                    from = end;
                }
            }
        }
    }
    let alone = probed(&probes(history), thresholds);
    let Some(at) = ejected_at else { return alone };
    match alone {
        EndpointState::Unhealthy => EndpointState::Unhealthy,
        _ if proofs(history, at, history.len()) > 0 => EndpointState::MostlyUnhealthy,
        _ => EndpointState::Unhealthy,
    }
}

/// Probes in a row that succeeded, of those up to `end`, since the ejection at `at` and the last failure after it.
fn proofs(history: &[Event], at: usize, end: usize) -> usize {
    let since = &history[at..end];
    let against = |event: &Event| matches!(event, Traffic(Seen::Failure(_)) | Probe(Seen::Failure(_)));
    let from = since.iter().rposition(against).map_or(0, |last| last + 1);
    since[from..].iter().filter(|event| **event == Probe(Seen::Success)).count()
}

/// The verdict where nothing is probed: it is healthy but for ejections, of which each ends by successes or by its time.
fn alone(history: &[Event], limits: &Thresholds) -> EndpointState {
    let (mut told, mut ejected, mut now, mut last): (Vec<Seen>, Option<u64>, u64, u64) = (vec![], None, 0, 0);
    for event in history {
        now += lasts(*event);
        if ejected.is_some_and(|at| at + EJECTION <= now) {
            ejected = None;
            told.clear();
        }
        let (Traffic(seen) | Many(seen, _)) = *event else { continue };
        let times = if let Many(_, times) = event { *times } else { 1 };
        if ejected.is_none() && now - last > STALE_AFTER {
            told.clear();
        }
        last = now;
        for _ in 0..times {
            told.push(seen);
            let streak = streak(&told);
            let good = if seen == GOOD { streak.len() } else { 0 };
            match ejected {
                None if seen != GOOD && is_over(streak, limits) => {
                    ejected = Some(now);
                    told.clear();
                }
                Some(_) if good >= usize::from(limits.success) => {
                    ejected = None;
                    told.clear();
                }
                _ => {}
            }
        }
    }
    if ejected.is_some() { EndpointState::Unhealthy } else { EndpointState::Healthy }
}

fn play(history: &[Event], thresholds: &Thresholds, limits: &Thresholds) -> EndpointState {
    let mut both = Both::new(*thresholds, *limits);
    history.iter().for_each(|event| both.step(*event));
    both.verdict()
}

const fn limits(success: u8, failure: Option<u8>, classes: [Option<u8>; 3]) -> Thresholds {
    Thresholds { success, failure, connect: classes[0], http: classes[1], timeout: classes[2] }
}

/// Small enough that every limit is met within seven events: of one class, of any class, of none.
fn sets() -> [(Thresholds, Thresholds); 5] {
    [
        (limits(2, Some(3), [None; 3]), limits(2, None, [Some(1), Some(2), Some(3)])),
        (limits(1, Some(1), [None; 3]), limits(1, None, [Some(1), Some(1), None])),
        (limits(3, Some(2), [None; 3]), limits(3, Some(3), [None; 3])),
        (limits(2, Some(4), [Some(1), None, Some(2)]), limits(5, None, [Some(2), Some(2), Some(2)])),
        (limits(2, Some(5), [Some(2), Some(3), Some(4)]), limits(2, Some(2), [None, Some(1), None])),
    ]
}

/// Calls `look` with every history of `length` events out of `alphabet`.
fn every(alphabet: &[Event], length: u32, mut look: impl FnMut(&[Event])) {
    let letters = alphabet.len();
    let mut history = vec![Neutral; length as usize];
    for number in 0..letters.pow(length) {
        let mut rest = number;
        for event in &mut history {
            *event = alphabet[rest % letters];
            rest /= letters;
        }
        look(&history);
    }
}

/// Walks through every history up to `longest` under every set of thresholds; which states were met.
fn agree(alphabet: &[Event], longest: u32) -> BTreeSet<&'static str> {
    let mut met = BTreeSet::new();
    for (thresholds, limits) in sets() {
        for length in 0..=longest {
            every(alphabet, length, |history| {
                let found = play(history, &thresholds, &limits);
                let wanted = oracle(history, &thresholds, &limits);
                assert_eq!(found, wanted, "{history:?} under {thresholds:?} and {limits:?}");
                met.insert(found.as_str());
            });
        }
    }
    met
}

const GOOD: Seen = Seen::Success;
const CONNECT: Seen = Seen::Failure(Class::Connect);
const HTTP: Seen = Seen::Failure(Class::Http);
const TIMEOUT: Seen = Seen::Failure(Class::Timeout);

/// Each alphabet is small enough to be walked through whole: what counts for nothing among what does, classes mixed within
/// the probes, and classes mixed within the traffic.
#[test]
fn every_sequence_up_to_seven_agrees_with_the_oracle() {
    let mut met = BTreeSet::new();
    for alphabet in [
        [Probe(GOOD), Probe(CONNECT), Neutral, Local],
        [Probe(GOOD), Probe(HTTP), Traffic(GOOD), Traffic(CONNECT)],
        [Probe(GOOD), Traffic(GOOD), Traffic(HTTP), Traffic(TIMEOUT)],
        [Probe(HTTP), Probe(GOOD), Traffic(TIMEOUT), NeutralTraffic],
        [Probe(CONNECT), Probe(GOOD), Traffic(HTTP), Silence],
        [Probe(GOOD), Many(HTTP, 3), Many(GOOD, 2), Silence],
        [Probe(GOOD), Overtaken, Traffic(CONNECT), Silence],
    ] {
        met.extend(agree(&alphabet, 7));
    }
    assert_eq!(met.len(), EndpointState::ALL.len(), "{met:?}");
}

#[test]
fn every_event_among_every_other_agrees_with_the_oracle() {
    let alphabet = alphabet();
    assert_eq!(agree(&alphabet, 4).len(), EndpointState::ALL.len());
}

fn alphabet() -> Vec<Event> {
    let counting = [GOOD, CONNECT, HTTP, TIMEOUT];
    let more = [Neutral, Local, NeutralTraffic, Overtaken, Silence, Many(HTTP, 2), Many(GOOD, 3)];
    [counting.map(Probe).as_slice(), &counting.map(Traffic), &more].concat()
}

#[test]
fn without_probes_every_sequence_up_to_seven_agrees_with_the_oracle() {
    let mut met = BTreeSet::new();
    for alphabet in [
        [Traffic(GOOD), Traffic(CONNECT), Traffic(HTTP), Silence],
        [Many(GOOD, 2), Many(TIMEOUT, 2), NeutralTraffic, Silence],
        [Traffic(GOOD), Many(GOOD, 5), Many(HTTP, 9), Traffic(CONNECT)],
    ] {
        for (thresholds, limits) in sets() {
            for length in 0..=7 {
                every(&alphabet, length, |history| {
                    let mut both = Both::made(thresholds, passive(limits, true));
                    history.iter().for_each(|event| both.step(*event));
                    let (found, wanted) = (both.verdict(), alone(history, &limits));
                    assert_eq!(found, wanted, "{history:?} under {limits:?}");
                    met.insert(found.as_str());
                });
            }
        }
    }
    assert_eq!(met.len(), 2, "{met:?}");
}

#[test]
fn a_report_of_many_is_that_many_reports() {
    let limits = limits(3, None, [Some(2), Some(5), Some(7)]);
    for seen in [GOOD, CONNECT, HTTP, TIMEOUT] {
        for times in 1..10 {
            let mut once = Machine::resumed(EndpointState::Unhealthy);
            let mut often = once;
            once.step_times(seen, times, &limits);
            (0..times).for_each(|_| often.step_times(seen, 1, &limits));
            assert_eq!(once, often, "{seen:?} {times} times");
        }
    }
}

#[test]
fn an_ejection_holds_until_the_probe_has_succeeded_often_enough_since() {
    let mut both = Both::new(limits(2, Some(3), [None; 3]), limits(5, None, [Some(2), Some(5), Some(7)]));
    let mut say = |event| {
        both.step(event);
        both.verdict()
    };
    for _ in 0..50 {
        assert_eq!(say(Probe(GOOD)), EndpointState::Healthy);
    }
    assert_eq!(say(Traffic(CONNECT)), EndpointState::Healthy, "below the limit nothing moves");
    assert_eq!(say(Traffic(CONNECT)), EndpointState::Unhealthy, "fifty good probes before count for nothing");
    assert_eq!(say(Probe(GOOD)), EndpointState::MostlyUnhealthy);
    assert_eq!(say(Traffic(CONNECT)), EndpointState::Unhealthy, "it still fails whom it serves");
    assert_eq!(say(Probe(GOOD)), EndpointState::MostlyUnhealthy);
    assert_eq!(say(Local), EndpointState::MostlyUnhealthy);
    assert_eq!(say(Probe(GOOD)), EndpointState::Healthy);
    assert_eq!(say(Traffic(CONNECT)), EndpointState::Healthy, "counted anew");
}

#[test]
fn traffic_acquits_nobody_whom_the_probe_condemns() {
    let mut both = Both::new(limits(2, Some(1), [None; 3]), limits(1, None, [Some(1); 3]));
    both.step(Probe(HTTP));
    for _ in 0..100 {
        both.step(Traffic(GOOD));
        assert_eq!(both.verdict(), EndpointState::Unhealthy);
    }
}

proptest! {
    #[test]
    fn long_histories_agree_with_the_oracle(
        set in 0..5_usize,
        // Runs of equal events, so that every limit is reached.
        runs in prop::collection::vec((0..15_usize, 1..6_usize), 0..40),
    ) {
        let alphabet = alphabet();
        let history: Vec<_> = runs.iter().flat_map(|(at, times)| std::iter::repeat_n(alphabet[*at], *times)).collect();
        let (thresholds, limits) = sets()[set];
        prop_assert_eq!(play(&history, &thresholds, &limits), oracle(&history, &thresholds, &limits));
    }
}

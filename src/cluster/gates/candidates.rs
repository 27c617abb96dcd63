//! The endpoints of a check as gates see them. Pure.

use std::{cmp::Ordering, collections::BTreeMap, net::SocketAddr, time::Duration};

use jiff::Timestamp;

use super::{calendar::Calendar, flaps::Flaps, losses::population, slices::Names};
use crate::{
    check::{Check, Overrides, PortRef, Target, Text, Word},
    engine::{CheckView, EndpointView},
    gate::{Frozen, Last, Member, Verdict},
};

/// Where traffic goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub address: SocketAddr,
    /// The target whose host is a DNS name that leads there.
    pub name_of: Option<Text>,
}

/// Why one that is healthy is held back.
const FLAPPING: &str = "Flapping";

/// One of them, or whatever else a gate publishes.
#[derive(Clone, Debug)]
pub struct Candidate<P = Spot> {
    pub spot: P,
    /// Of an endpoint its label: it can be read back from what was published.
    pub identity: Text,
    pub label: Text,
    pub zone: Option<Text>,
    pub verdict: Verdict,
    pub last_healthy: Option<Timestamp>,
    pub word: Option<Word>,
    pub word_until: Option<Timestamp>,
    /// Why it is not Healthy, in one word.
    pub cause: Option<&'static str>,
    /// Until when its return waits, because it flaps.
    pub held_until: Option<Timestamp>,
    /// It is of those that were lost together.
    pub lost: bool,
}

impl<P> Candidate<P> {
    /// For a decision. `found`: what was published in an earlier life, which is the word of a probe of then.
    #[must_use]
    pub fn member(&self, last: Option<Last>, found: bool) -> Member {
        let verdict = if found && self.verdict == Verdict::NeverProbed { Verdict::Stale } else { self.verdict };
        Member {
            identity: self.identity.clone(),
            label: self.label.clone(),
            verdict,
            last_healthy: self.last_healthy,
            last,
            word: self.word,
            word_until: self.word_until,
            flapping: self.held_until.is_some(),
            held_until: self.held_until,
            lost: self.lost,
        }
    }

    /// Two targets are one endpoint where they lead to the same place: it is as good as the worse of them.
    pub fn merge(&mut self, other: Self) {
        let rank = |verdict| match verdict {
            Verdict::Unhealthy => 3,
            Verdict::Stale => 2,
            Verdict::NeverProbed => 1,
            Verdict::Healthy => 0,
        };
        if rank(other.verdict) > rank(self.verdict) {
            self.verdict = other.verdict;
            self.last_healthy = other.last_healthy;
            self.cause = other.cause;
        }
        let stronger = |word| match word {
            Some(Word::Unhealthy) => 2,
            Some(Word::Healthy) => 1,
            None => 0,
        };
        match stronger(other.word).cmp(&stronger(self.word)) {
            Ordering::Greater => (self.word, self.word_until) = (other.word, other.word_until),
            Ordering::Equal => self.word_until = self.word_until.max(other.word_until),
            Ordering::Less => {}
        }
        self.held_until = self.held_until.max(other.held_until);
        self.lost |= other.lost;
        self.zone = self.zone.take().or(other.zone);
    }
}

/// The endpoints of a check that traffic can go to.
#[derive(Debug, Default)]
pub struct Places {
    /// Each once, by its address.
    pub candidates: Vec<Candidate>,
    /// Targets whose host is a name of which no address is known yet.
    pub unknown: Vec<Text>,
}

/// Where the endpoints of `check` are. `published`: the addresses that an earlier life knew of a name; they
/// stand in until this one has found some.
#[must_use]
pub fn places(check: &Check, view: &CheckView, judged: Judged<'_>, published: &Names) -> Places {
    let targets: BTreeMap<&str, &Target> = check.targets.iter().map(|target| (&*target.name, target)).collect();
    let mut found: BTreeMap<SocketAddr, Candidate> = BTreeMap::new();
    let mut unknown = vec![];
    let mut add = |address: SocketAddr, target: &Target, whole: &EndpointView, row: &EndpointView| {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let identity: Text = address.to_string().into();
        let label = if whole.label.parse::<SocketAddr>().is_ok() {
            whole.label.clone()
        } else {
            format!("{} ({})", whole.label, address.ip()).into()
        };
        let spot = Spot { address, name_of: row.named.then(|| target.name.clone()) };
        let mut candidate = judged.candidate(row, spot, identity, label);
        candidate.zone = target.zone.clone();
        match found.entry(address) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(candidate);
            }
            std::collections::btree_map::Entry::Occupied(mut taken) => taken.get_mut().merge(candidate),
        }
    };
    for row in view.endpoints.iter() {
        let Some(target) = targets.get(&*row.target) else { continue };
        for place in row.places() {
            if let Ok(address) = place.label.parse() {
                add(address, target, row, place);
            } else if let (true, Some(PortRef::Number(port)), None) = (place.named, &target.port, &place.addresses) {
                let earlier = published.get(&target.name);
                for ip in earlier.into_iter().flatten() {
                    let address = SocketAddr::new(*ip, *port);
                    // Of the name something may be known, of the address nothing.
                    let place = EndpointView { measured: false, ..place.clone() };
                    add(address, target, row, &place);
                }
                // One whose look-up has failed is told as it is.
                if earlier.is_none() && place.reason.is_none() {
                    unknown.push(target.name.clone());
                }
            }
        }
    }
    Places { candidates: found.into_values().collect(), unknown }
}

/// By what an endpoint is judged besides its verdict.
#[derive(Clone, Copy)]
pub struct Judged<'a> {
    pub overrides: &'a Overrides,
    pub flaps: &'a Flaps,
    /// What was lost together.
    pub frozen: Frozen,
    /// Of the clock that `flaps` is kept by.
    pub now: Duration,
    pub wall: Timestamp,
    /// Tells that clock's times to people.
    pub calendar: Calendar,
}

impl Judged<'_> {
    /// What is published for `row`.
    pub fn candidate<P>(&self, row: &EndpointView, spot: P, identity: Text, label: Text) -> Candidate<P> {
        let word = self.overrides.in_force(&row.target, self.wall);
        let waits = self.flaps.waits_until(row, self.now);
        let verdict = verdict(row);
        Candidate {
            spot,
            identity,
            label,
            zone: None,
            verdict,
            last_healthy: (verdict != Verdict::Healthy && row.measured).then_some(row.since.time()),
            word: word.map(|(word, _)| word),
            word_until: word.map(|(_, until)| until),
            cause: row.reason_word().or_else(|| waits.map(|_| FLAPPING)),
            held_until: waits.map(|at| self.calendar.at(at)),
            lost: self.is_lost(row),
        }
    }
}

impl Judged<'_> {
    /// Whether `row` is of those that were lost together. One without a place (a script, another check) may depend on any
    /// of them.
    pub fn is_lost(&self, row: &EndpointView) -> bool {
        population(row).map_or(self.frozen.named || self.frozen.address, |population| self.frozen.of(population))
    }
}

fn verdict(row: &EndpointView) -> Verdict {
    match row.verdict() {
        _ if !row.measured => Verdict::NeverProbed,
        state if state.is_healthy() => Verdict::Healthy,
        state if state.is_unhealthy() => Verdict::Unhealthy,
        _ => Verdict::Stale,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::EndpointState, engine::Live};

    fn row(state: EndpointState, measured: bool) -> EndpointView {
        EndpointView {
            target: "t".into(),
            label: "10.0.0.1:80".into(),
            identity: "t/10.0.0.1:80".into(),
            kind: crate::check::Kind::Tcp,
            optional: false,
            state,
            stale: false,
            measured,
            since: Timestamp::UNIX_EPOCH.into(),
            remarks: None,
            named: false,
            live: Live::default(),
        }
    }

    fn judged<'a>(overrides: &'a Overrides, flaps: &'a Flaps) -> Judged<'a> {
        Judged {
            overrides,
            flaps,
            frozen: Frozen::default(),
            now: Duration::ZERO,
            wall: Timestamp::UNIX_EPOCH,
            calendar: Calendar::new(Duration::ZERO, Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn what_was_declared_and_never_measured_is_no_verdict() {
        use EndpointState::{Healthy, MostlyHealthy, MostlyUnhealthy, Unhealthy, Unknown};
        for state in [Healthy, Unhealthy, Unknown] {
            assert_eq!(verdict(&row(state, false)), Verdict::NeverProbed, "{state:?}");
        }
        for (state, expected) in [
            (Healthy, Verdict::Healthy),
            (MostlyHealthy, Verdict::Healthy),
            (Unhealthy, Verdict::Unhealthy),
            (MostlyUnhealthy, Verdict::Unhealthy),
            (Unknown, Verdict::Stale),
        ] {
            assert_eq!(verdict(&row(state, true)), expected, "{state:?}");
        }
    }

    #[test]
    fn what_is_found_from_an_earlier_life_was_probed_then_and_left_health_when_it_changed() {
        let (overrides, flaps) = (Overrides::default(), Flaps::default());
        let judged = judged(&overrides, &flaps);
        let of = |state, measured| {
            let row = row(state, measured);
            judged.candidate(&row, (), row.identity.clone(), row.label.clone())
        };
        let unseen = of(EndpointState::Unknown, false);
        assert_eq!(unseen.member(None, false).verdict, Verdict::NeverProbed);
        let found = unseen.member(Some(Last::found(false)), true);
        assert_eq!((found.verdict, found.last), (Verdict::Stale, Some(Last::found(false))));
        assert_eq!(of(EndpointState::Healthy, true).last_healthy, None);
        assert_eq!(of(EndpointState::Unhealthy, true).last_healthy, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(of(EndpointState::Unhealthy, false).last_healthy, None, "it never was, as far as we know");
    }

    #[test]
    fn only_those_are_lost_that_are_found_like_what_was_lost() {
        let (overrides, flaps) = (Overrides::default(), Flaps::default());
        let lost = |frozen: Frozen| {
            let judged = Judged { frozen, ..judged(&overrides, &flaps) };
            [("10.0.0.1:80", false), ("[fd00::1]:80", true), ("db.example:80", true), ("", false)].map(
                |(label, named)| {
                    judged.is_lost(&EndpointView { label: label.into(), named, ..row(EndpointState::Unhealthy, true) })
                },
            )
        };
        assert_eq!(lost(Frozen::default()), [false; 4]);
        assert_eq!(lost(Frozen { named: true, address: false }), [false, true, true, true]);
        assert_eq!(lost(Frozen { named: false, address: true }), [true, false, false, true]);
    }

    #[test]
    fn two_targets_at_one_place_are_as_good_as_the_worse_of_them() {
        let (overrides, flaps) = (Overrides::default(), Flaps::default());
        let judged = judged(&overrides, &flaps);
        let of = |state| {
            let row = row(state, true);
            judged.candidate(&row, (), row.identity.clone(), row.label.clone())
        };
        let states = [EndpointState::Healthy, EndpointState::Unknown, EndpointState::Unhealthy];
        for (at, worse) in states.iter().enumerate() {
            for better in &states[..at] {
                let (mut one, mut other) = (of(*better), of(*worse));
                one.merge(of(*worse));
                other.merge(of(*better));
                assert_eq!((one.verdict, other.verdict), (of(*worse).verdict, of(*worse).verdict));
            }
        }
    }
}

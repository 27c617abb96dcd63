use std::sync::Arc;

use super::*;
use crate::check::{Dial, EndpointState, Found, Observed, Outcome, Probe, ProbeKind, Reason, TcpProbe};

const THRESHOLDS: Thresholds = Thresholds { success: 2, failure: Some(2), connect: None, http: None, timeout: None };
const MILLIS: Duration = Duration::from_millis(1);

fn endpoint(resolve: Resolve) -> Endpoint {
    Endpoint {
        target: "db".into(),
        identity: "db.corp:80".into(),
        label: "db.corp:80".into(),
        dial: Some(Dial { host: Host::Name("db.corp".into()), port: Some(80) }),
        port: Some(80),
        resolve,
        optional: false,
        probe: Arc::new(Probe { timeout: MILLIS, kind: ProbeKind::Tcp(TcpProbe::default()) }),
    }
}

/// At this moment.
const fn heard((observed, times): (Observed, u16), now: u64) -> Heard {
    let at = now.cast_signed();
    Heard { observed, times, began: at, ended: at }
}

struct Name {
    endpoint: Endpoint,
    belief: Belief,
    now: u64,
}

impl Name {
    fn new(resolve: Resolve) -> Self {
        let endpoint = endpoint(resolve);
        let belief = Belief::new(&endpoint, Judgement::new(0, Timestamp::UNIX_EPOCH), vec![]);
        Self { endpoint, belief, now: 0 }
    }

    fn take(&mut self, report: &Report) -> bool {
        self.now += 1000;
        let span = Span { began: self.now, ended: self.now };
        self.belief.take(&self.endpoint, report, &THRESHOLDS, span, Timestamp::UNIX_EPOCH)
    }

    /// An attempt at addresses that end in these bytes, which answered or refused.
    fn finds(&mut self, addresses: &[(u8, bool)], unheard: Option<Family>) -> bool {
        let outcome = |good| match good {
            true => Outcome::Success,
            false => Outcome::from_reason(Reason::ConnectionRefused, "connection refused"),
        };
        let one = |(last, good): &(u8, bool)| ([10, 0, 0, *last].into(), Report::new(outcome(*good), MILLIS));
        let found = Found { reports: addresses.iter().map(one).collect(), unheard };
        let any = addresses.iter().any(|(_, good)| *good);
        self.take(&Report { found: Some(Box::new(found)), ..Report::new(outcome(any), MILLIS) })
    }

    fn rows(&self) -> Vec<(String, EndpointState)> {
        let mut rows = vec![];
        self.belief.draw(&self.endpoint, InitialState::Unknown, &mut rows);
        rows.iter().flat_map(|row| row.view.places()).map(|row| (row.label.to_string(), row.state)).collect()
    }
}

fn rows(rows: &[(&str, EndpointState)]) -> Vec<(String, EndpointState)> {
    rows.iter().map(|(label, state)| ((*label).to_owned(), *state)).collect()
}

use EndpointState::{Healthy, MostlyHealthy, Unhealthy, Unknown};

#[test]
fn one_address_that_answers_is_enough_and_each_has_its_own_verdict() {
    let mut name = Name::new(Resolve::Any);
    assert_eq!(name.rows(), rows(&[("db.corp:80", Unknown)]));
    for _ in 0..2 {
        assert!(name.finds(&[(1, true), (2, false)], None));
    }
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy), ("10.0.0.2:80", Unhealthy)]));
    let mut drawn = vec![];
    name.belief.draw(&name.endpoint, InitialState::Unknown, &mut drawn);
    assert_eq!(drawn.len(), 1, "one member");
    assert_eq!((&*drawn[0].view.label, drawn[0].view.state), ("db.corp:80", Healthy));
}

#[test]
fn every_address_is_a_row_where_each_is_judged_alone() {
    let mut name = Name::new(Resolve::All);
    name.finds(&[(1, true), (2, false)], None);
    name.finds(&[(1, true), (2, false)], None);
    let mut drawn = vec![];
    name.belief.draw(&name.endpoint, InitialState::Unknown, &mut drawn);
    let seen: Vec<_> = drawn.iter().map(|row| (&*row.view.label, row.view.state, row.view.named)).collect();
    assert_eq!(seen, [("10.0.0.1:80", Healthy, true), ("10.0.0.2:80", Unhealthy, true)]);
    let rhythm = Rhythm {
        interval: MILLIS * 10,
        unhealthy_interval: MILLIS * 3,
        confirm_interval: MILLIS,
        no_traffic_interval: None,
        jitter_percent: 0,
    };
    assert_eq!(name.belief.cadence(&rhythm, name.now), MILLIS * 3, "as often as the sick one wants");
    name.endpoint.resolve = Resolve::Any;
    name.belief.set_resolve(Resolve::Any);
    assert_eq!(name.belief.cadence(&rhythm, name.now), MILLIS * 10, "as a whole it is healthy");
}

#[test]
fn an_address_that_the_name_leaves_goes_and_may_come_back_to_its_state_for_a_while() {
    let mut name = Name::new(Resolve::Any);
    name.finds(&[(1, true), (2, true)], None);
    assert!(name.finds(&[(1, true)], None));
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy)]));
    assert!(name.finds(&[(1, true), (2, false)], None));
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy), ("10.0.0.2:80", MostlyHealthy)]));
    name.finds(&[(1, true)], None);
    name.now += GRACE;
    name.finds(&[(1, true)], None);
    name.finds(&[(1, true), (2, false)], None);
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy), ("10.0.0.2:80", Unknown)]), "another life");
}

#[test]
fn what_a_family_had_of_which_nobody_spoke_stays_as_it_was() {
    let mut name = Name::new(Resolve::Any);
    name.finds(&[(1, true), (2, false)], None);
    name.finds(&[(1, true), (2, false)], None);
    let before = name.rows();
    name.finds(&[], Some(Family::V4));
    assert_eq!(name.rows(), before);
    name.finds(&[], Some(Family::V6));
    let left: Vec<_> = name.rows().into_iter().map(|(label, _)| label).collect();
    assert_eq!(left, ["db.corp:80"], "of IPv4 it was said that there are none");
}

#[test]
fn a_name_that_does_not_exist_fails_all_its_addresses_and_a_silent_resolver_none() {
    let mut name = Name::new(Resolve::All);
    name.finds(&[(1, true)], None);
    let local = Report::new(Outcome::from_reason(Reason::ResolverUnreachable, "nobody answers"), MILLIS);
    for _ in 0..5 {
        name.take(&local);
    }
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy)]));
    let gone = Report::new(Outcome::from_reason(Reason::NameNotFound, "no such name"), MILLIS);
    name.take(&gone);
    name.take(&gone);
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Unhealthy)]));
}

#[test]
fn addresses_that_nobody_asks_any_more_become_too_old() {
    let mut name = Name::new(Resolve::Any);
    name.finds(&[(1, true), (2, true)], None);
    let first = name.now;
    name.finds(&[(1, true)], Some(Family::V4));
    assert_eq!(name.belief.expires(5000), Some(first + 5000), "of the one that was not asked since");
    assert!(name.belief.expire(first + 5000, 5000, Timestamp::UNIX_EPOCH));
    assert_eq!(name.rows(), rows(&[("10.0.0.1:80", Healthy), ("10.0.0.2:80", Unknown)]));
    assert!(!name.belief.expire(first + 5000, 5000, Timestamp::UNIX_EPOCH));
}

#[test]
fn traffic_ejects_an_address_and_the_name_only_with_the_last_of_them() {
    let mut name = Name::new(Resolve::Any);
    name.finds(&[(1, true), (2, true)], None);
    let range = |first, last| crate::check::StatusRange { first, last };
    let limits = Thresholds { success: 2, failure: None, connect: Some(2), http: None, timeout: None };
    let passive = Passive { healthy: vec![range(200, 399)], unhealthy: vec![range(500, 599)], limits, unprobed: None };
    let hearing = Hearing { passive: &passive, stale_after: 60_000 };
    let report = |name: &mut Name, last: Option<u8>, seen| {
        let at = last.map(|last| [10, 0, 0, last].into());
        name.belief.observe(at, &heard(seen, name.now), &hearing, name.now, Timestamp::UNIX_EPOCH);
        let mut drawn = vec![];
        name.belief.draw(&name.endpoint, InitialState::Unknown, &mut drawn);
        (drawn[0].view.state, name.rows().into_iter().map(|(_, state)| state).collect::<Vec<_>>())
    };
    let refused = (Observed::ConnectFailure, 2);
    assert_eq!(report(&mut name, Some(1), refused), (Healthy, vec![Unhealthy, Healthy]));
    assert_eq!(report(&mut name, Some(2), refused), (Unhealthy, vec![Unhealthy, Unhealthy]));
    assert_eq!(report(&mut name, Some(2), (Observed::Status(200), 2)), (Healthy, vec![Unhealthy, Healthy]));
    // Who names no address means all of them.
    assert_eq!(report(&mut name, None, refused), (Unhealthy, vec![Unhealthy, Unhealthy]));
    for _ in 0..2 {
        name.finds(&[(1, true), (2, false)], None);
    }
    let drawn = report(&mut name, Some(9), refused);
    assert_eq!(drawn, (Healthy, vec![Healthy, Unhealthy]), "one that answers its probes is enough");
}

/// One died of its probes, the other of its traffic: none is left, whoever spoke last, and whatever the probe of the
/// other one says.
#[test]
fn a_name_is_ejected_when_none_of_its_addresses_serves_whatever_it_is_that_each_died_of() {
    let limits = Thresholds { success: 2, failure: None, connect: Some(2), http: None, timeout: None };
    let passive = Passive { healthy: vec![], unhealthy: vec![], limits, unprobed: None };
    let hearing = Hearing { passive: &passive, stale_after: 60_000 };
    for probe_first in [true, false] {
        let mut name = Name::new(Resolve::Any);
        let state = |name: &Name| {
            let mut drawn = vec![];
            name.belief.draw(&name.endpoint, InitialState::Unknown, &mut drawn);
            (drawn[0].view.state, drawn[0].view.since)
        };
        let refuse = |name: &mut Name| {
            let (at, wall) = ([10, 0, 0, 1].into(), Timestamp::from_second(1).expect("in range"));
            let refused = heard((Observed::ConnectFailure, 2), name.now);
            name.belief.observe(Some(at), &refused, &hearing, name.now, wall);
        };
        name.finds(&[(1, true), (2, true)], None);
        if !probe_first {
            refuse(&mut name);
            assert_eq!(state(&name).0, Healthy);
        }
        // One good answer each round is the other's: two of them let it back, if it is not refused meanwhile.
        for _ in 0..2 {
            name.finds(&[(1, true), (2, false)], None);
            if !probe_first {
                refuse(&mut name);
            }
        }
        if probe_first {
            assert_eq!(state(&name).0, Healthy);
            refuse(&mut name);
        }
        let (dead, since) = state(&name);
        assert_eq!(dead, Unhealthy, "{probe_first}");
        name.finds(&[(1, true), (2, false)], None);
        let (doubted, after) = state(&name);
        assert_eq!((doubted, after), (EndpointState::MostlyUnhealthy, since), "it was never anything else");
        name.finds(&[(1, true), (2, false)], None);
        assert_eq!(state(&name).0, Healthy);
    }
}

/// The probe of one goes well after that of the other: together often enough, and none of them by itself.
#[test]
fn a_name_is_let_back_by_an_address_that_is() {
    let limits = Thresholds { success: 2, failure: None, connect: Some(1), http: None, timeout: None };
    let passive = Passive { healthy: vec![], unhealthy: vec![], limits, unprobed: None };
    let hearing = Hearing { passive: &passive, stale_after: 60_000 };
    let mut name = Name::new(Resolve::Any);
    name.finds(&[(1, true), (2, true)], None);
    let refused = heard((Observed::ConnectFailure, 1), name.now);
    name.belief.observe(None, &refused, &hearing, name.now, Timestamp::UNIX_EPOCH);
    for (one, other) in [(true, false), (false, true), (true, false)] {
        name.finds(&[(1, one), (2, other)], None);
        let mut drawn = vec![];
        name.belief.draw(&name.endpoint, InitialState::Unknown, &mut drawn);
        assert!(drawn[0].view.state.is_unhealthy(), "{:?}", drawn[0].view.state);
    }
}

#[test]
fn what_an_earlier_life_knew_of_the_addresses_stands_until_they_are_asked() {
    let endpoint = endpoint(Resolve::All);
    let adopted = Judgement::adopted(Unhealthy, Timestamp::UNIX_EPOCH, (None, ""), 0, Timestamp::UNIX_EPOCH);
    let known = vec![([10, 0, 0, 7].into(), adopted)];
    let belief = Belief::new(&endpoint, Judgement::new(0, Timestamp::UNIX_EPOCH), known);
    let mut drawn = vec![];
    belief.draw(&endpoint, InitialState::Unknown, &mut drawn);
    assert_eq!((&*drawn[0].view.label, drawn[0].view.state), ("10.0.0.7:80", Unhealthy));
}

#[test]
fn a_name_is_idle_when_all_that_is_judged_of_it_is_well_and_nobody_reports() {
    let rhythm = Rhythm {
        interval: MILLIS * 10,
        unhealthy_interval: MILLIS * 10,
        confirm_interval: MILLIS * 10,
        no_traffic_interval: Some(MILLIS * 5000),
        jitter_percent: 0,
    };
    let passive = Passive {
        healthy: vec![],
        unhealthy: vec![],
        limits: Thresholds { success: 5, failure: None, connect: Some(2), http: Some(5), timeout: Some(7) },
        unprobed: None,
    };
    for (resolve, idle) in [(Resolve::Any, true), (Resolve::All, false)] {
        let mut name = Name::new(resolve);
        name.belief.listen(Some(&passive), InitialState::Unknown, 0, Timestamp::UNIX_EPOCH);
        for _ in 0..2 {
            name.finds(&[(1, true), (2, false)], None);
        }
        assert!(!name.belief.is_idle(&rhythm, 4999));
        // One of two addresses is down: the name is well, and that address is not.
        assert_eq!(name.belief.is_idle(&rhythm, 5000), idle, "{resolve:?}");
        for _ in 0..2 {
            name.finds(&[(1, true), (2, true)], None);
        }
        assert!(name.belief.is_idle(&rhythm, 5000));
        let hearing = Hearing { passive: &passive, stale_after: 60_000 };
        let served = heard((Observed::Status(200), 1), 5000);
        name.belief.observe(Some([10, 0, 0, 1].into()), &served, &hearing, 5000, Timestamp::UNIX_EPOCH);
        assert!(!name.belief.is_idle(&rhythm, 9999) && name.belief.is_idle(&rhythm, 10_000));
        assert_eq!(name.belief.cadence(&rhythm, 9999), MILLIS * 10);
        assert_eq!(name.belief.cadence(&rhythm, 10_000), MILLIS * 5000);
    }
}

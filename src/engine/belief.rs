//! What is believed of an endpoint, and, where it is a name, of each address that the name leads to. Pure.

use std::{net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    group::Row,
    judgement::{Hearing, Judgement, Span},
    scheduler::GRACE,
    view::EndpointView,
};
use crate::check::{
    Endpoint, EndpointState, Family, Host, InitialState, Observed, Passive, Report, Resolve, Rhythm, Thresholds,
};

/// See the module's own words.
#[derive(Debug)]
pub(super) struct Belief {
    /// Of the endpoint as a whole: one address that answers is enough.
    whole: Judgement,
    /// `None`: it is no name.
    addresses: Option<Box<Addresses>>,
}

#[derive(Debug)]
struct Addresses {
    resolve: Resolve,
    /// Whether anybody has ever said where the name leads to: only then it is known that there are none.
    looked: bool,
    /// Sorted.
    known: Vec<Address>,
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    /// With its port, as people see it.
    label: Arc<str>,
    judgement: Judgement,
    /// Since when the name does not lead to it any more. It may come back to its state for a while.
    left: Option<u64>,
}

impl Belief {
    /// `whole` of `endpoint`; `known`: addresses that an earlier life knew of.
    pub fn new(endpoint: &Endpoint, whole: Judgement, known: Vec<(IpAddr, Judgement)>) -> Self {
        let addresses = endpoint.is_named().then(|| {
            let of = |(ip, judgement)| Address { ip, label: label(ip, endpoint.port), judgement, left: None };
            let mut known: Vec<_> = known.into_iter().map(of).collect();
            known.sort_unstable_by_key(|address| address.ip);
            Box::new(Addresses { resolve: endpoint.resolve, looked: !known.is_empty(), known })
        });
        Self { whole, addresses }
    }

    /// Where a name was last known to lead to.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.addresses.iter().flat_map(|addresses| addresses.living());
        addresses.map(|address| address.ip).collect()
    }

    /// What is judged of a name has been edited.
    pub fn set_resolve(&mut self, resolve: Resolve) {
        if let Some(addresses) = &mut self.addresses {
            addresses.resolve = resolve;
        }
    }

    /// Every judgement that anybody is shown.
    fn each(&self) -> impl Iterator<Item = &Judgement> {
        let addresses = self.addresses.iter().flat_map(|addresses| addresses.living());
        std::iter::once(&self.whole).chain(addresses.map(|address| &address.judgement))
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Judgement> {
        let addresses = self.addresses.iter_mut().flat_map(|addresses| &mut addresses.known);
        std::iter::once(&mut self.whole).chain(addresses.map(|address| &mut address.judgement))
    }

    /// From now on reports are judged by `passive`, or not at all. `initial` is what is declared of whom nothing is known.
    pub fn listen(&mut self, passive: Option<&Passive>, initial: InitialState, now: u64, wall: Timestamp) {
        self.each_mut().for_each(|judgement| judgement.listen(passive, initial, now, wall));
    }

    /// When the first ejection ends by itself.
    pub fn lapses(&self) -> Option<u64> {
        self.each().filter_map(Judgement::lapses).min()
    }

    /// Ends what ejections have lasted long enough by `now`. Whether there was any.
    pub fn lapse(&mut self, now: u64, wall: Timestamp) -> bool {
        let before = (self.whole.state(), self.whole.since);
        let mut any = false;
        for judgement in self.each_mut() {
            any |= judgement.lapse(now, wall);
        }
        if any {
            self.judge_whole(before, wall);
        }
        any
    }

    /// One address that serves is enough for a name as a whole: it is ejected as long as none does, and traffic has shown
    /// that of one of them. Looked at after everything that may change that. `before`: what it was then, and since when.
    fn judge_whole(&mut self, before: (EndpointState, Timestamp), wall: Timestamp) -> bool {
        let Some(addresses) = self.addresses.as_ref().filter(|addresses| addresses.living().next().is_some()) else {
            return false;
        };
        let none_serves = addresses.living().all(|address| !address.judgement.state().is_healthy());
        let ejected = addresses.living().map(|address| &address.judgement).filter(|_| none_serves);
        let last = ejected.filter(|judgement| judgement.is_ejected()).max_by_key(|judgement| judgement.ejected_at());
        let changed = match last {
            Some(last) => self.whole.eject_like(last, wall),
            None => {
                self.whole.is_ejected() && {
                    self.whole.release(wall);
                    true
                }
            }
        };
        self.whole.was(before);
        changed
    }

    /// Takes in reports of a data plane about the endpoint, or about one address of a name. Whether anything that readers
    /// see has changed.
    pub fn observe(
        &mut self,
        at: Option<IpAddr>,
        (observed, times): (Observed, u16),
        hearing: &Hearing<'_>,
        now: u64,
        wall: Timestamp,
    ) -> bool {
        let take = |judgement: &mut Judgement| judgement.observe(observed, times, hearing, now, wall);
        let before = (self.whole.state(), self.whole.since);
        // Where nobody says at which address, it is at all of them.
        let mut changed = (at.is_none() || self.addresses.is_none()) && take(&mut self.whole);
        let known = self.addresses.iter_mut().flat_map(|addresses| &mut addresses.known);
        for address in
            known.filter(|address| address.left.is_none() && at.is_none_or(|ip| ip == address.ip.to_canonical()))
        {
            changed |= take(&mut address.judgement);
        }
        self.judge_whole(before, wall) || changed
    }

    /// The check is probed again.
    pub fn resume(&mut self, wall: Timestamp) {
        self.each_mut().for_each(|judgement| judgement.resume(wall));
    }

    /// An operator has spoken in its place so far.
    pub fn recount(&mut self) {
        self.each_mut().for_each(Judgement::recount);
    }

    /// The question changed.
    pub fn supersede(&mut self) {
        self.each_mut().for_each(Judgement::supersede);
    }

    /// How long from one probe to the next: as the most doubtful of what is judged has it.
    pub fn cadence(&self, rhythm: &Rhythm) -> Duration {
        let alone = self.addresses.iter().filter(|addresses| addresses.resolve == Resolve::All);
        let alone = alone.flat_map(|addresses| addresses.living()).map(|address| address.judgement.cadence(rhythm));
        alone.min().unwrap_or_else(|| self.whole.cadence(rhythm))
    }

    /// When the first of what is believed stops being believable, if nothing arrives.
    pub fn expires(&self, stale_after: u64) -> Option<u64> {
        self.each().filter_map(|judgement| judgement.expires(stale_after)).min()
    }

    /// Gives up what is too old at `now`. Whether there was any.
    pub fn expire(&mut self, now: u64, stale_after: u64, wall: Timestamp) -> bool {
        let before = (self.whole.state(), self.whole.since);
        let mut any = false;
        for judgement in self.each_mut() {
            if judgement.expires(stale_after).is_some_and(|at| at <= now) {
                judgement.expire(wall);
                any = true;
            }
        }
        if any {
            self.judge_whole(before, wall);
        }
        any
    }

    /// Takes in what an attempt on `endpoint` ended in. Whether anything that readers see has changed.
    pub fn take(
        &mut self,
        endpoint: &Endpoint,
        report: &Report,
        thresholds: &Thresholds,
        span: Span,
        wall: Timestamp,
    ) -> bool {
        let before = (self.whole.state(), self.whole.since);
        let changed = self.whole.take(report, thresholds, span, wall);
        let addresses = self.take_at_addresses(endpoint, report, thresholds, span, wall);
        self.judge_whole(before, wall) || changed || addresses
    }

    /// What an attempt ended in at each address of a name.
    fn take_at_addresses(
        &mut self,
        endpoint: &Endpoint,
        report: &Report,
        thresholds: &Thresholds,
        span: Span,
        wall: Timestamp,
    ) -> bool {
        let now = span.ended;
        let Some(addresses) = &mut self.addresses else { return false };
        let update = |address: &mut Address, report: &Report| address.judgement.take(report, thresholds, span, wall);
        let Some(found) = &report.found else {
            // Nobody knows where it is, or there is no such name: what it had is as good as that.
            let mut changed = false;
            for address in addresses.known.iter_mut().filter(|address| address.left.is_none()) {
                changed |= update(address, report);
            }
            return changed;
        };
        let mut changed = !std::mem::replace(&mut addresses.looked, true);
        for address in &mut addresses.known {
            let gone = found.reports.iter().all(|(ip, _)| *ip != address.ip);
            if gone && address.left.is_none() && found.unheard != Some(Family::of(address.ip)) {
                address.left = Some(now);
                changed = true;
            }
        }
        for (ip, report) in &found.reports {
            let at = addresses.known.binary_search_by_key(ip, |address| address.ip).unwrap_or_else(|at| {
                let judgement = Judgement::new(now, wall);
                addresses
                    .known
                    .insert(at, Address { ip: *ip, label: label(*ip, endpoint.port), judgement, left: None });
                changed = true;
                at
            });
            changed |= addresses.known[at].left.take().is_some();
            changed |= update(&mut addresses.known[at], report);
        }
        addresses.known.retain(|address| address.left.is_none_or(|at| now.saturating_sub(at) < GRACE));
        changed
    }

    /// Adds what readers are shown of `endpoint`: one row, or one of each address where they are judged alone.
    pub fn draw(&self, endpoint: &Endpoint, initial: InitialState, rows: &mut Vec<Row>) {
        let whole = row(endpoint, (endpoint.label.clone(), endpoint.identity.clone()), &self.whole, initial);
        let Some(addresses) = &self.addresses else { return rows.push(whole) };
        let living = addresses
            .living()
            .map(|address| row(endpoint, (address.label.clone(), address.label.clone()), &address.judgement, initial));
        let living: Vec<_> = living.collect();
        match addresses.resolve {
            Resolve::All if !living.is_empty() => rows.extend(living),
            _ => {
                let known = addresses.looked.then(|| living.into_iter().map(|row| row.view).collect());
                rows.push(Row { view: EndpointView { addresses: known, ..whole.view }, ..whole });
            }
        }
    }
}

impl Addresses {
    fn living(&self) -> impl Iterator<Item = &Address> {
        self.known.iter().filter(|address| address.left.is_none())
    }
}

fn label(ip: IpAddr, port: Option<u16>) -> Arc<str> {
    Host::Address(ip).with_port(port).into()
}

fn row(
    endpoint: &Endpoint,
    (label, identity): (Arc<str>, Arc<str>),
    judgement: &Judgement,
    initial: InitialState,
) -> Row {
    Row {
        view: EndpointView {
            target: endpoint.target.clone(),
            label,
            identity,
            kind: endpoint.probe.kind_name(),
            optional: endpoint.optional,
            state: judgement.shown(initial),
            stale: judgement.stale,
            measured: !judgement.is_undecided(),
            since: judgement.since,
            reason: judgement.reason(),
            message: judgement.told(),
            certificate_expires: judgement.certificate_expires,
            named: endpoint.is_named(),
            addresses: None,
            overridden: None,
            live: judgement.live.clone(),
        },
        undecided: judgement.is_undecided(),
        newcomer: judgement.is_newcomer(),
        blind: judgement.blind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Dial, Found, Outcome, Probe, ProbeKind, Reason, TcpProbe};

    const THRESHOLDS: Thresholds =
        Thresholds { success: 2, failure: Some(2), connect: None, http: None, timeout: None };
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
            jitter_percent: 0,
        };
        assert_eq!(name.belief.cadence(&rhythm), MILLIS * 3, "as often as the sick one wants");
        name.endpoint.resolve = Resolve::Any;
        name.belief.set_resolve(Resolve::Any);
        assert_eq!(name.belief.cadence(&rhythm), MILLIS * 10, "as a whole it is healthy");
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
        let passive =
            Passive { healthy: vec![range(200, 399)], unhealthy: vec![range(500, 599)], limits, unprobed: None };
        let hearing = Hearing { passive: &passive, stale_after: 60_000 };
        let report = |name: &mut Name, last: Option<u8>, seen| {
            let at = last.map(|last| [10, 0, 0, last].into());
            name.belief.observe(at, seen, &hearing, name.now, Timestamp::UNIX_EPOCH);
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
                name.belief.observe(Some(at), (Observed::ConnectFailure, 2), &hearing, name.now, wall);
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
        name.belief.observe(None, (Observed::ConnectFailure, 1), &hearing, name.now, Timestamp::UNIX_EPOCH);
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
        let adopted = Judgement::adopted(Unhealthy, Timestamp::UNIX_EPOCH, None, "", 0);
        let known = vec![([10, 0, 0, 7].into(), adopted)];
        let belief = Belief::new(&endpoint, Judgement::new(0, Timestamp::UNIX_EPOCH), known);
        let mut drawn = vec![];
        belief.draw(&endpoint, InitialState::Unknown, &mut drawn);
        assert_eq!((&*drawn[0].view.label, drawn[0].view.state), ("10.0.0.7:80", Unhealthy));
    }
}

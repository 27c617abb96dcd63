//! What is believed of an endpoint, and, where it is a name, of each address that the name leads to. Pure.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{
    group::Row,
    judgement::{Judgement, Span, Standing},
    scheduler::GRACE,
    testimony::{Heard, Hearing},
    view::{EndpointView, Remarks},
};
use crate::check::{Endpoint, Family, Host, InitialState, Passive, Report, Resolve, Rhythm, Text, Thresholds};

/// See the module's own words.
#[derive(Debug)]
pub(super) struct Belief {
    /// Of the endpoint as a whole: one address that answers is enough.
    whole: Judgement,
    /// `None`: it is no name, and nobody listens to its traffic, as of most.
    more: Option<Box<More>>,
}

/// What is only of those that are a name, or whose traffic is listened to.
#[derive(Debug, Default)]
struct More {
    /// `None`: it is no name.
    addresses: Option<Addresses>,
    /// When traffic was last reported, or since when we listen; `None`: we do not.
    heard: Option<u64>,
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
    label: Text,
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
            Addresses { resolve: endpoint.resolve, looked: !known.is_empty(), known }
        });
        let more = addresses.map(|addresses| Box::new(More { addresses: Some(addresses), heard: None }));
        Self { whole, more }
    }

    /// Where a name was last known to lead to.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.living().map(|address| address.ip).collect()
    }

    fn by_address(&self) -> Option<&Addresses> {
        self.more.as_ref()?.addresses.as_ref()
    }

    fn by_address_mut(&mut self) -> Option<&mut Addresses> {
        self.more.as_mut()?.addresses.as_mut()
    }

    fn living(&self) -> impl Iterator<Item = &Address> {
        self.by_address().into_iter().flat_map(Addresses::living)
    }

    /// What is judged of a name has been edited.
    pub fn set_resolve(&mut self, resolve: Resolve) {
        if let Some(addresses) = self.by_address_mut() {
            addresses.resolve = resolve;
        }
    }

    /// Every judgement that anybody is shown.
    fn each(&self) -> impl Iterator<Item = &Judgement> {
        std::iter::once(&self.whole).chain(self.living().map(|address| &address.judgement))
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Judgement> {
        let addresses = self.more.iter_mut().flat_map(|more| more.known());
        std::iter::once(&mut self.whole).chain(addresses.map(|address| &mut address.judgement))
    }

    /// From now on reports are judged by `passive`, or not at all. `initial` is what is declared of whom nothing is known.
    pub fn listen(&mut self, passive: Option<&Passive>, initial: InitialState, now: u64, wall: Timestamp) {
        if passive.is_some() {
            self.more.get_or_insert_default().heard.get_or_insert(now);
        } else {
            self.more.take_if(|more| more.falls_silent());
        }
        self.each_mut().for_each(|judgement| judgement.listen(passive, initial, now, wall));
    }

    /// When the first ejection ends by itself.
    pub fn lapses(&self) -> Option<u64> {
        self.each().filter_map(Judgement::lapses).min()
    }

    /// Ends what ejections have lasted long enough by `now`. Whether there was any.
    pub fn lapse(&mut self, now: u64, wall: Timestamp) -> bool {
        let before = self.whole.standing();
        let mut any = false;
        for judgement in self.each_mut() {
            any |= judgement.lapse(now, wall);
        }
        if any {
            self.judge_whole(before, now, wall);
        }
        any
    }

    /// One address that serves is enough for a name as a whole: it is ejected as long as none does, and traffic has shown
    /// that of one of them. Looked at after everything that may change that. `before`: what it was then, and since when.
    fn judge_whole(&mut self, before: Standing, now: u64, wall: Timestamp) -> bool {
        let addresses = self.more.as_ref().and_then(|more| more.addresses.as_ref());
        let Some(addresses) = addresses.filter(|addresses| addresses.living().next().is_some()) else {
            return false;
        };
        let none_serves = addresses.living().all(|address| !address.judgement.state().is_healthy());
        let ejected = addresses.living().map(|address| &address.judgement).filter(|_| none_serves);
        let last = ejected.filter(|judgement| judgement.is_ejected()).max_by_key(|judgement| judgement.ejected_at());
        let changed = match last {
            Some(last) => self.whole.eject_like(last, now, wall),
            None => {
                self.whole.is_ejected() && {
                    self.whole.release(now, wall);
                    true
                }
            }
        };
        self.whole.was(before);
        changed
    }

    /// Takes in reports of a data plane about the endpoint, or about one address of a name. Whether anything that readers
    /// see has changed; `None`: they came too late to say anything.
    pub fn observe(
        &mut self,
        at: Option<IpAddr>,
        heard: &Heard,
        hearing: &Hearing<'_>,
        now: u64,
        wall: Timestamp,
    ) -> Option<bool> {
        let before = self.whole.standing();
        // Where nobody says at which address, it is at all of them.
        let is_named = self.by_address().is_some();
        let whole = (at.is_none() || !is_named).then_some(&mut self.whole);
        let known = self.more.iter_mut().flat_map(|more| more.known());
        let living = known.filter(|address| address.left.is_none());
        let there = living.filter(|address| at.is_none_or(|ip| ip == address.ip.to_canonical()));
        let (mut changed, mut late, mut taken) = (false, false, false);
        for judgement in whole.into_iter().chain(there.map(|address| &mut address.judgement)) {
            if judgement.is_late(heard, hearing, now) {
                late = true;
                continue;
            }
            taken = true;
            changed |= judgement.observe(heard, hearing, now, wall);
        }
        if late && !taken {
            return None;
        }
        let more = self.more.get_or_insert_default();
        more.heard = more.heard.max(Some(u64::try_from(heard.ended).unwrap_or(0)));
        Some(self.judge_whole(before, now, wall) || changed)
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

    /// What decides how often it is probed: the addresses where each is judged alone.
    fn paced(&self) -> impl Iterator<Item = &Judgement> {
        let alone = self.by_address().filter(|addresses| addresses.resolve == Resolve::All).into_iter();
        let mut alone = alone.flat_map(Addresses::living).map(|address| &address.judgement).peekable();
        let whole = alone.peek().is_none().then_some(&self.whole);
        alone.chain(whole)
    }

    /// Whether it is probed as rarely as what is well and has no traffic.
    pub fn is_idle(&self, rhythm: &Rhythm, now: u64) -> bool {
        let lasts = rhythm.no_traffic_interval.map(super::scheduler::millis);
        let heard = self.more.as_ref().and_then(|more| more.heard);
        let quiet = lasts.zip(heard).is_some_and(|(lasts, heard)| now.saturating_sub(heard) >= lasts);
        quiet && self.paced().all(Judgement::is_at_rest)
    }

    /// How long from one probe to the next: as the most doubtful of what is judged has it.
    pub fn cadence(&self, rhythm: &Rhythm, now: u64) -> Duration {
        if self.is_idle(rhythm, now) {
            return rhythm.idle();
        }
        self.paced().map(|judgement| judgement.cadence(rhythm)).min().unwrap_or(rhythm.interval)
    }

    /// When the first of what is believed stops being believable, if nothing arrives.
    pub fn expires(&self, stale_after: u64) -> Option<u64> {
        self.each().filter_map(|judgement| judgement.expires(stale_after)).min()
    }

    /// Gives up what is too old at `now`. Whether there was any.
    pub fn expire(&mut self, now: u64, stale_after: u64, wall: Timestamp) -> bool {
        let before = self.whole.standing();
        let mut any = false;
        for judgement in self.each_mut() {
            if judgement.expires(stale_after).is_some_and(|at| at <= now) {
                judgement.expire(wall);
                any = true;
            }
        }
        if any {
            self.judge_whole(before, now, wall);
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
        let before = self.whole.standing();
        let changed = self.whole.take(report, thresholds, span, wall);
        let addresses = self.take_at_addresses(endpoint, report, thresholds, span, wall);
        self.judge_whole(before, span.ended, wall) || changed || addresses
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
        let Some(addresses) = self.by_address_mut() else { return false };
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
        let Some(addresses) = self.by_address() else { return rows.push(whole) };
        let living = addresses
            .living()
            .map(|address| row(endpoint, (address.label.clone(), address.label.clone()), &address.judgement, initial));
        let living: Vec<_> = living.collect();
        match addresses.resolve {
            Resolve::All if !living.is_empty() => rows.extend(living),
            _ => {
                let known = addresses.looked.then(|| living.into_iter().map(|row| row.view).collect());
                let remarks = Remarks { addresses: known, ..Remarks::clone(&whole.view) }.kept();
                rows.push(Row { view: EndpointView { remarks, ..whole.view }, ..whole });
            }
        }
    }
}

impl More {
    fn known(&mut self) -> impl Iterator<Item = &mut Address> {
        self.addresses.iter_mut().flat_map(|addresses| &mut addresses.known)
    }

    /// Nobody listens any more. Whether nothing is left of it.
    fn falls_silent(&mut self) -> bool {
        self.heard = None;
        self.addresses.is_none()
    }
}

impl Addresses {
    fn living(&self) -> impl Iterator<Item = &Address> {
        self.known.iter().filter(|address| address.left.is_none())
    }
}

fn label(ip: IpAddr, port: Option<u16>) -> Text {
    Host::Address(ip).with_port(port).into()
}

fn row(endpoint: &Endpoint, (label, identity): (Text, Text), judgement: &Judgement, initial: InitialState) -> Row {
    Row {
        view: EndpointView {
            target: endpoint.target.clone(),
            label,
            identity,
            kind: endpoint.probe.tag(),
            optional: endpoint.optional,
            state: judgement.shown(initial),
            stale: judgement.stale,
            measured: !judgement.is_undecided(),
            since: judgement.since(),
            named: endpoint.is_named(),
            remarks: judgement.remarks(),
            live: judgement.live.clone(),
        },
        undecided: judgement.is_undecided(),
        newcomer: judgement.is_newcomer(),
        blind: judgement.blind,
    }
}

#[cfg(test)]
mod tests;

//! What is believed of one endpoint: its state machine, how fresh that is, and what people are told.
//!
//! Times are milliseconds of the engine's clock; wall-clock time is carried for display only.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    machine::{Machine, Seen},
    moment::Moment,
    testimony::{Heard, Hearing, Reports, Testimony},
    view::{Live, Remarks},
};
use crate::check::{EndpointState, InitialState, Judged, Outcome, Passive, Reason, Report, Rhythm, Text, Thresholds};

#[derive(Debug)]
pub(super) struct Judgement {
    machine: Machine,
    /// When we last looked and saw something, good or bad; before the first time, when it came.
    seen: u64,
    /// There was a first time.
    looked: bool,
    since: Moment,
    /// The same by the engine's clock, which nobody sets; before it began, where an earlier life has seen it turn.
    turned: i64,
    /// There was a verdict, and it became too old.
    pub stale: bool,
    /// Undecided for longer than a verdict may be old.
    overdue: bool,
    /// The question changed after the verdict was made.
    superseded: bool,
    /// Taken up while the check was suspended: how old the verdict is, nobody knows.
    rested: bool,
    /// The last attempt could not look.
    pub blind: bool,
    /// `None` where there are none, as of most.
    remarks: Option<Arc<Remarks>>,
    /// What a data plane reports; `None` where nothing was reported yet, or nobody listens.
    testimony: Option<Box<Testimony>>,
    pub live: Live,
}

/// When an attempt began and ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub began: u64,
    pub ended: u64,
}

/// What a judgement came to, and since when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    state: EndpointState,
    since: Moment,
    turned: i64,
}

/// When `then` was, by the engine's clock, which says `now`. The future is now: it is a clock of others that goes ahead.
pub(super) fn ago(then: Timestamp, now: u64, wall: Timestamp) -> i64 {
    let age = i64::try_from(wall.duration_since(then).as_millis()).unwrap_or(i64::MAX).max(0);
    now.cast_signed().saturating_sub(age)
}

fn routes_as(state: EndpointState) -> (bool, bool) {
    (state.is_healthy(), state.is_unhealthy())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Picture {
    state: EndpointState,
    /// Stale, superseded, blind.
    flags: [bool; 3],
    reason: Option<Reason>,
    quiet: bool,
}

impl Judgement {
    /// Nothing is known yet.
    pub fn new(now: u64, wall: Timestamp) -> Self {
        Self {
            machine: Machine::default(),
            seen: now,
            looked: false,
            since: wall.into(),
            turned: i64::MIN,
            stale: false,
            overdue: false,
            superseded: false,
            rested: false,
            blind: false,
            remarks: None,
            testimony: None,
            live: Live::default(),
        }
    }

    /// A verdict of an earlier life that may still be believed: it counts as fresh from now.
    pub fn adopted(
        state: EndpointState,
        since: Timestamp,
        (reason, message): (Option<Reason>, &str),
        now: u64,
        wall: Timestamp,
    ) -> Self {
        let mut judgement = Self {
            turned: ago(since, now, wall),
            machine: Machine::resumed(state),
            looked: state != EndpointState::Unknown,
            ..Self::new(now, since)
        };
        judgement.remark(reason, message, None);
        judgement
    }

    /// A verdict of an earlier life that is too old.
    pub fn outdated(now: u64, wall: Timestamp) -> Self {
        Self { stale: true, ..Self::new(now, wall) }
    }

    /// Nobody confirms a verdict while the check is suspended; see [`Self::resume`].
    pub fn rest(&mut self) {
        self.rested = true;
    }

    /// The check is probed again. A verdict whose age is not known is not believed; one of traffic alone does not age.
    pub fn resume(&mut self, wall: Timestamp) {
        if std::mem::take(&mut self.rested) && !self.is_alone() {
            self.expire(wall);
        }
    }

    /// The verdict of probes and traffic together.
    pub fn state(&self) -> EndpointState {
        let probed = self.machine.state();
        self.testimony.as_ref().map_or(probed, |testimony| testimony.verdict(probed))
    }

    /// From now on reports are judged by `passive`, or not at all. `initial` is what is declared of whom nothing is known.
    pub fn listen(&mut self, passive: Option<&Passive>, initial: InitialState, now: u64, wall: Timestamp) {
        let before = self.state();
        let unprobed = passive.and_then(|passive| passive.unprobed).map(super::scheduler::millis);
        self.recall(passive.is_some(), now, wall);
        match (self.is_alone(), unprobed) {
            (false, Some(_)) => self.leave_probing(initial, now),
            (true, None) => self.take_up_probing(passive.is_some(), now),
            _ => {}
        }
        if passive.is_none() {
            self.testimony = None;
        } else if let Some(testimony) = &mut self.testimony {
            testimony.set_alone(unprobed);
        }
        self.tell_counters(None);
        self.note_since(before, now, wall);
    }

    /// What an earlier life says of traffic is traffic's, and the probes had found nothing wrong.
    fn recall(&mut self, listens: bool, now: u64, wall: Timestamp) {
        let told = self.remarked().filter(|reason| reason.is_passive() && self.machine.state().is_unhealthy());
        if let (true, None, Some(reason)) = (listens, &self.testimony, told) {
            let since = ago(self.since.time(), now, wall);
            let message = self.message();
            self.remark(None, "", self.certificate_expires());
            self.machine = Machine::resumed(EndpointState::Healthy);
            self.testimony = Some(Box::new(Testimony::ejected(Some(reason), message, since)));
        }
    }

    /// From now on traffic alone is the verdict. What probes have found wrong is an ejection that ends in its time, for
    /// nobody asks any more whether it still is.
    fn leave_probing(&mut self, initial: InitialState, now: u64) {
        if !self.is_ejected() {
            let testimony = match self.state().plain() {
                EndpointState::Unhealthy => Testimony::ejected(self.remarked(), self.message(), now.cast_signed()),
                EndpointState::Unknown => Testimony::of_newcomer(initial, now),
                state => Testimony::resumed(state, now),
            };
            self.testimony = Some(Box::new(testimony));
        }
        self.machine = Machine::default();
        self.remark(None, "", self.certificate_expires());
        (self.stale, self.overdue, self.superseded, self.blind) = (false, false, false, false);
    }

    /// From now on it is probed. The verdict of traffic stands until then; an ejection returns by the probe, or, where
    /// nobody listens any more, is what the probe finds next.
    fn take_up_probing(&mut self, listens: bool, now: u64) {
        let Some(testimony) = self.testimony.take() else { return };
        let verdict = testimony.verdict(EndpointState::Unknown).plain();
        self.saw(now);
        if listens && testimony.is_ejected() {
            self.machine = Machine::resumed(EndpointState::Healthy);
            self.testimony = Some(testimony);
            return;
        }
        self.machine = Machine::resumed(verdict);
        self.remark(testimony.reason(), &testimony.message(), self.certificate_expires());
    }

    /// When an ejection ends by itself, where nothing is probed.
    pub fn lapses(&self) -> Option<u64> {
        self.testimony.as_ref()?.lapses()
    }

    /// Ends an ejection that has lasted long enough by `now`: the endpoint is believed until it fails again.
    pub fn lapse(&mut self, now: u64, wall: Timestamp) -> bool {
        if self.lapses().is_none_or(|at| at > now) {
            return false;
        }
        self.release(now, wall);
        self.saw(now);
        true
    }

    pub fn is_ejected(&self) -> bool {
        self.ejected_at().is_some()
    }

    /// Since when it is ejected.
    pub fn ejected_at(&self) -> Option<i64> {
        self.testimony.as_ref()?.ejected_at()
    }

    /// Ejected no longer.
    pub fn release(&mut self, now: u64, wall: Timestamp) {
        let before = self.state();
        if let Some(testimony) = &mut self.testimony {
            testimony.release();
        }
        self.tell_counters(None);
        self.note_since(before, now, wall);
    }

    /// Ejected as `other` is. Whether anything that readers see has changed.
    pub fn eject_like(&mut self, other: &Self, now: u64, wall: Timestamp) -> bool {
        let before = self.picture();
        self.testimony.clone_from(&other.testimony);
        self.tell_counters(None);
        self.note_since(before.state, now, wall);
        before != self.picture()
    }

    /// Whether what was seen then says nothing of what the endpoint is now: it is older than a verdict may be, or the
    /// endpoint has recovered since. What went well before an ejection is no reason to end it either.
    pub fn is_late(&self, heard: &Heard, hearing: &Hearing<'_>, now: u64) -> bool {
        let oldest = now.cast_signed().saturating_sub_unsigned(hearing.stale_after);
        let overtaken = match self.ejected_at() {
            Some(ejected) => heard.began < ejected && hearing.passive.judge(heard.observed) == Judged::Success,
            None => heard.began < self.turned && self.state().is_healthy(),
        };
        heard.ended < oldest || overtaken
    }

    /// Takes in reports of a data plane that are not late. Whether anything that readers see has changed.
    pub fn observe(&mut self, heard: &Heard, hearing: &Hearing<'_>, now: u64, wall: Timestamp) -> bool {
        let before = self.picture();
        let reports = Reports { judged: hearing.passive.judge(heard.observed), heard: *heard };
        let testimony = self.testimony.get_or_insert_default();
        let counts = testimony.take(&reports, hearing, now);
        let state = self.state();
        // What speaks against a verdict does not keep it fresh, and what counts for nothing confirms none.
        let confirms = match counts {
            Judged::Success => state.is_healthy(),
            Judged::Failure(_) => state.is_unhealthy(),
            Judged::Neutral => false,
        };
        if confirms {
            let ended = u64::try_from(heard.ended).unwrap_or(0);
            self.saw(if self.looked { ended.max(self.seen) } else { ended });
        }
        self.overdue &= state == EndpointState::Unknown;
        self.stale &= state == EndpointState::Unknown;
        self.tell_counters(None);
        self.note_since(before.state, now, wall);
        before != self.picture()
    }

    fn tell_counters(&self, latency: Option<Duration>) {
        self.live.set(self.machine.counters(), latency);
        self.live.set_traffic(self.testimony.as_ref().map(|testimony| testimony.counters()));
    }

    fn note_since(&mut self, before: EndpointState, now: u64, wall: Timestamp) {
        if routes_as(before) != routes_as(self.state()) {
            (self.since, self.turned) = (wall.into(), now.cast_signed());
        }
    }

    pub const fn since(&self) -> Moment {
        self.since
    }

    /// What it is, and since when.
    pub fn standing(&self) -> Standing {
        Standing { state: self.state(), since: self.since, turned: self.turned }
    }

    /// What it was `before`, since then, and is again, it was all along: nobody has seen what was between.
    pub fn was(&mut self, before: Standing) {
        if routes_as(before.state) == routes_as(self.state()) {
            (self.since, self.turned) = (before.since, before.turned);
        }
    }

    /// Whether it is traffic that the verdict comes from.
    fn traffic_speaks(&self) -> Option<&Testimony> {
        let testimony = self.testimony.as_deref()?;
        (testimony.is_alone() || testimony.is_ejected() && !self.machine.state().is_unhealthy()).then_some(testimony)
    }

    /// Why it is as it is; `None` where all is well.
    pub fn reason(&self) -> Option<Reason> {
        self.traffic_speaks().map_or_else(|| self.remarked(), Testimony::reason)
    }

    /// What may be believed now.
    pub fn shown(&self, initial: InitialState) -> EndpointState {
        // A declared state is believed for as long as a verdict would be: what never could be looked at must show.
        match (self.state(), self.is_newcomer(), initial) {
            (EndpointState::Unknown, true, InitialState::Healthy) => EndpointState::Healthy,
            (EndpointState::Unknown, true, InitialState::Unhealthy) => EndpointState::Unhealthy,
            (state, ..) => state,
        }
    }

    /// No verdict yet, and none was ever there.
    pub fn is_undecided(&self) -> bool {
        self.state() == EndpointState::Unknown && !self.stale
    }

    /// Undecided, and not for long.
    pub fn is_newcomer(&self) -> bool {
        self.is_undecided() && !self.overdue
    }

    /// Whether traffic alone is the verdict.
    fn is_alone(&self) -> bool {
        self.testimony.as_ref().is_some_and(|testimony| testimony.is_alone())
    }

    /// Healthy, and the last probe has said so: nothing is in doubt.
    pub fn is_at_rest(&self) -> bool {
        self.state() == EndpointState::Healthy && !self.superseded && !self.blind
    }

    /// How long from one probe to the next, in this state.
    pub fn cadence(&self, rhythm: &Rhythm) -> Duration {
        match self.state() {
            EndpointState::Healthy | EndpointState::Unknown => rhythm.interval,
            EndpointState::MostlyHealthy => rhythm.confirm_interval,
            EndpointState::Unhealthy | EndpointState::MostlyUnhealthy => rhythm.unhealthy_interval,
        }
    }

    /// When what is believed stops being believable, if nothing arrives; `None` when it already has.
    pub fn expires(&self, stale_after: u64) -> Option<u64> {
        // Where nothing is probed, silence is a quiet night.
        let expired = self.stale || self.overdue || self.is_alone();
        (!expired).then(|| self.seen + stale_after)
    }

    /// Too old now. The next success counts as a first one.
    pub fn expire(&mut self, wall: Timestamp) {
        if self.is_undecided() {
            self.overdue = true;
            return;
        }
        self.machine = Machine::default();
        if let Some(testimony) = &mut self.testimony {
            testimony.forget();
        }
        self.tell_counters(None);
        self.stale = true;
        self.superseded = false;
        self.since = wall.into();
    }

    /// The question changed: the verdict stays, marked as one from before, until it is decided again.
    pub fn supersede(&mut self) {
        self.machine.restart();
        self.tell_counters(None);
        self.live.set_found(None, None);
        self.superseded = self.machine.state() != EndpointState::Unknown;
    }

    /// An operator has spoken in its place so far: what was counted meanwhile decides nothing.
    pub fn recount(&mut self) {
        self.machine.restart();
        if let Some(testimony) = &mut self.testimony {
            testimony.recount();
        }
        self.tell_counters(None);
    }

    /// What is told besides the verdict: of the last attempt, or of what traffic shows; and whether the verdict is older
    /// than the question.
    pub fn remarks(&self) -> Option<Arc<Remarks>> {
        let certificate_expires = self.certificate_expires();
        let (reason, message) = match self.traffic_speaks() {
            Some(testimony) => (testimony.reason(), testimony.message()),
            None if self.superseded => (self.remarked(), Text::from("verdict from before the probe was changed")),
            None => return self.remarks.clone(),
        };
        Remarks { reason, message, certificate_expires, ..Remarks::default() }.kept()
    }

    /// Whether there is nothing to tell.
    fn is_quiet(&self) -> bool {
        match self.traffic_speaks() {
            Some(testimony) => testimony.message().is_empty(),
            None => !self.superseded && self.remarks.as_ref().is_none_or(|remarks| remarks.message.is_empty()),
        }
    }

    /// Why the last attempt did not succeed.
    fn remarked(&self) -> Option<Reason> {
        self.remarks.as_ref().and_then(|remarks| remarks.reason)
    }

    /// Of the last attempt, for people.
    fn message(&self) -> Text {
        self.remarks.as_ref().map(|remarks| remarks.message.clone()).unwrap_or_default()
    }

    /// Of the last certificate that was shown, in seconds since the epoch.
    fn certificate_expires(&self) -> Option<i64> {
        self.remarks.as_ref().and_then(|remarks| remarks.certificate_expires)
    }

    fn remark(&mut self, reason: Option<Reason>, message: &str, certificate_expires: Option<i64>) {
        let nothing = (None, "", None);
        let known = self
            .remarks
            .as_ref()
            .map_or(nothing, |remarks| (remarks.reason, &*remarks.message, remarks.certificate_expires));
        let new = (reason, message, certificate_expires);
        if known != new {
            self.remarks =
                Remarks { reason, message: message.into(), certificate_expires, ..Remarks::default() }.kept();
        }
    }

    /// Takes in what an attempt ended in. Whether anything that readers see has changed.
    pub fn take(&mut self, report: &Report, thresholds: &Thresholds, span: Span, wall: Timestamp) -> bool {
        let before = self.picture();
        self.blind = matches!(report.outcome, Outcome::Local { .. });
        match &report.outcome {
            Outcome::Success => self.look(Seen::Success, thresholds, span),
            Outcome::Failure { class, .. } => self.look(Seen::Failure(*class), thresholds, span),
            Outcome::Neutral { .. } => self.saw(span.ended),
            Outcome::Local { .. } => {}
        }
        let certificate_expires = report.certificate_expires.or_else(|| self.certificate_expires());
        self.remark(report.outcome.reason(), report.outcome.message(), certificate_expires);
        self.tell_counters(Some(report.latency));
        self.live.set_found(report.status, report.lookup);
        self.note_since(before.state, span.ended, wall);
        before != self.picture()
    }

    /// What readers see, but for what moves at every probe.
    fn picture(&self) -> Picture {
        Picture {
            state: self.state(),
            flags: [self.stale, self.superseded, self.blind],
            reason: self.reason(),
            quiet: self.is_quiet(),
        }
    }

    const fn saw(&mut self, at: u64) {
        (self.seen, self.looked) = (at, true);
    }

    fn look(&mut self, seen: Seen, thresholds: &Thresholds, span: Span) {
        self.machine.step(seen, thresholds);
        if let Some(testimony) = &mut self.testimony {
            testimony.probed(seen, thresholds, span.began);
        }
        self.saw(span.ended);
        self.overdue = false;
        if self.machine.state() != EndpointState::Unknown {
            self.stale = false;
        }
        if self.superseded && self.machine.is_confirmed(thresholds) {
            self.superseded = false;
        }
    }
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests;

//! What a data plane has said of an endpoint: what traffic shows, when, and in which words. Pure; times are milliseconds of
//! the engine's clock.

use super::{machine::Seen, traffic::Traffic, view::Counters};
use crate::check::{EndpointState, InitialState, Judged, Observed, Passive, Reason, Text, Thresholds};

/// By what rules reports of a data plane are taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearing<'a> {
    pub passive: &'a Passive,
    /// Older reports are not counted together with newer ones. In milliseconds.
    pub stale_after: u64,
}

/// What a data plane has seen, so often in a row, and when, by the engine's clock: before it began, where it is that old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub observed: Observed,
    pub times: u16,
    pub began: i64,
    pub ended: i64,
}

/// Reports of the same, in a row, and what they count as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reports {
    pub judged: Judged,
    pub heard: Heard,
}

/// See the module's own words.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    traffic: Traffic,
    /// Nothing is probed: how long an ejection lasts.
    alone: Option<u64>,
    /// When the last report was made that counts.
    last: i64,
    /// Since when it is ejected; before the clock began, where an earlier life has ejected it. Where nothing is probed, also
    /// since when a newcomer waits for its first traffic.
    ejected: Option<i64>,
    /// When traffic last spoke against it: what a probe has seen that began no later proves nothing.
    against: i64,
    reason: Option<Reason>,
    message: Text,
}

impl Default for Testimony {
    fn default() -> Self {
        Self::resumed(EndpointState::Unknown, 0)
    }
}

impl Testimony {
    /// Takes up at `now` what was believed so far.
    pub fn resumed(state: EndpointState, now: u64) -> Self {
        let traffic = Traffic::resumed(state);
        let ejected = traffic.is_ejected().then_some(now.cast_signed());
        let against = ejected.unwrap_or(i64::MIN);
        Self { traffic, alone: None, last: 0, ejected, against, reason: None, message: Text::default() }
    }

    /// Of an endpoint that nothing is known of, where nothing is probed: it gets traffic at once, for only that can show what
    /// it is worth; or, where it is declared to be unhealthy, in its time.
    pub fn of_newcomer(initial: InitialState, now: u64) -> Self {
        match initial {
            InitialState::Unknown | InitialState::Healthy => Self::resumed(EndpointState::Healthy, now),
            InitialState::Unhealthy => {
                Self { ejected: Some(now.cast_signed()), ..Self::resumed(EndpointState::Unknown, now) }
            }
        }
    }

    /// As an earlier life has left it, or as its probes have before they were given up.
    pub fn ejected(reason: Option<Reason>, message: Text, at: i64) -> Self {
        Self { ejected: Some(at), against: at, reason, message, ..Self::resumed(EndpointState::Unhealthy, 0) }
    }

    pub const fn set_alone(&mut self, lasts: Option<u64>) {
        self.alone = lasts;
    }

    pub const fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    pub const fn is_ejected(&self) -> bool {
        self.traffic.is_ejected()
    }

    /// Since when it is ejected.
    pub fn ejected_at(&self) -> Option<i64> {
        self.ejected.filter(|_| self.is_ejected())
    }

    pub const fn counters(&self) -> Counters {
        self.traffic.counters()
    }

    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    pub fn message(&self) -> Text {
        self.message.clone()
    }

    /// The verdict, where probes alone come to `probed`.
    pub const fn verdict(&self, probed: EndpointState) -> EndpointState {
        if self.is_alone() { self.traffic.alone() } else { self.traffic.beside(probed) }
    }

    /// When the ejection ends by itself, or the wait of a newcomer.
    pub fn lapses(&self) -> Option<u64> {
        let at = self.ejected?.saturating_add_unsigned(self.alone?);
        Some(u64::try_from(at).unwrap_or(0))
    }

    /// Takes `reports` in; what they counted as.
    pub fn take(&mut self, reports: &Reports, hearing: &Hearing<'_>, now: u64) -> Judged {
        let Reports { heard, .. } = reports;
        let seen = match reports.judged {
            Judged::Neutral => return Judged::Neutral,
            Judged::Success => Seen::Success,
            // A passive reason always has a class.
            Judged::Failure(reason) => match reason.class() {
                Some(class) => Seen::Failure(class),
                None => return Judged::Neutral,
            },
        };
        let was = self.is_ejected();
        if matches!(seen, Seen::Failure(_)) {
            // What has led to the ejection, or came with it, says nothing of the probes since then.
            if self.ejected_at().is_some_and(|ejected| heard.began < ejected) {
                return reports.judged;
            }
            self.against = self.against.max(heard.ended);
        }
        if !was && heard.ended.saturating_sub(self.last) > hearing.stale_after.cast_signed() {
            self.traffic.recount();
        }
        self.last = self.last.max(heard.ended);
        self.traffic.observe(seen, heard.times, &hearing.passive.limits);
        match (was, self.is_ejected(), reports.judged) {
            (false, true, Judged::Failure(reason)) => {
                self.ejected = Some(now.cast_signed());
                // A probe that is on its way now may have been answered before.
                self.against = now.cast_signed();
                self.reason = Some(reason);
                self.message = self.told(heard.observed);
            }
            // A newcomer waits no longer than until its first success.
            (_, false, Judged::Success) => self.let_back(),
            _ => {}
        }
        reports.judged
    }

    /// What has ejected it, for people.
    fn told(&self, last: Observed) -> Text {
        let Counters { connect, http, timeout, .. } = self.counters();
        let count = u32::from(connect) + u32::from(http) + u32::from(timeout);
        match (count, last.told()) {
            (1, last) => format!("a failure seen in traffic: {last}").into(),
            (_, last) => format!("{count} failures in a row seen in traffic, the last one {last}").into(),
        }
    }

    /// A probe has ended that counts, and that began at `began`.
    pub fn probed(&mut self, seen: Seen, thresholds: &Thresholds, began: u64) {
        let was = self.is_ejected();
        // It may have been answered before traffic was refused.
        if was && seen == Seen::Success && began.cast_signed() <= self.against {
            return;
        }
        self.traffic.probed(seen, thresholds);
        if was && !self.is_ejected() {
            self.let_back();
        }
    }

    /// The endpoint gets traffic again.
    pub fn release(&mut self) {
        if self.ejected.is_some() || self.is_ejected() {
            self.traffic.release();
            self.let_back();
        }
    }

    fn let_back(&mut self) {
        (self.ejected, self.reason, self.message) = (None, None, Text::default());
    }

    /// All that was said is too old. Not for where nothing is probed: silence is no evidence there.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// What was counted so far decides nothing any more.
    pub fn recount(&mut self) {
        self.traffic.recount();
    }
}

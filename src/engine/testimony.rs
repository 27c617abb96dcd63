//! What a data plane has said of an endpoint: what traffic shows, when, and in which words. Pure; times are milliseconds of
//! the engine's clock.

use std::sync::Arc;

use super::{judgement::Hearing, machine::Seen, traffic::Traffic, view::Counters};
use crate::check::{EndpointState, Judged, Observed, Reason, Thresholds};

/// Reports of the same, in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reports {
    pub judged: Judged,
    pub observed: Observed,
    pub times: u16,
}

/// See the module's own words.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    traffic: Traffic,
    /// Nothing is probed: how long an ejection lasts.
    alone: Option<u64>,
    /// When the last report came that counts.
    last: u64,
    /// Since when it is ejected; before the clock began, where an earlier life has ejected it.
    ejected: Option<i64>,
    reason: Option<Reason>,
    message: Arc<str>,
}

impl Default for Testimony {
    fn default() -> Self {
        Self::resumed(EndpointState::Unknown, 0)
    }
}

impl Judged {
    pub(super) const fn is_failure(self) -> bool {
        matches!(self, Self::Failure(_))
    }
}

impl Testimony {
    /// Takes up at `now` what was believed so far.
    pub fn resumed(state: EndpointState, now: u64) -> Self {
        let traffic = Traffic::resumed(state);
        let ejected = traffic.is_ejected().then_some(now.cast_signed());
        Self { traffic, alone: None, last: 0, ejected, reason: None, message: Arc::from("") }
    }

    /// As an earlier life has left it.
    pub fn ejected(reason: Reason, message: Arc<str>, at: i64) -> Self {
        Self { ejected: Some(at), reason: Some(reason), message, ..Self::resumed(EndpointState::Unhealthy, 0) }
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

    pub const fn counters(&self) -> Counters {
        self.traffic.counters()
    }

    pub const fn reason(&self) -> Option<Reason> {
        self.reason
    }

    pub fn message(&self) -> Arc<str> {
        self.message.clone()
    }

    /// The verdict, where probes alone come to `probed`.
    pub const fn verdict(&self, probed: EndpointState) -> EndpointState {
        if self.is_alone() { self.traffic.alone() } else { self.traffic.beside(probed) }
    }

    /// When the ejection ends by itself.
    pub fn lapses(&self) -> Option<u64> {
        let at = self.ejected?.saturating_add_unsigned(self.alone?);
        Some(u64::try_from(at).unwrap_or(0))
    }

    /// Takes `reports` in; what they counted as.
    pub fn take(&mut self, reports: &Reports, hearing: &Hearing<'_>, now: u64) -> Judged {
        let seen = match reports.judged {
            Judged::Neutral => return Judged::Neutral,
            Judged::Success => Seen::Success,
            // A passive reason always has a class.
            Judged::Failure(reason) => match reason.class() {
                Some(class) => Seen::Failure(class),
                None => return Judged::Neutral,
            },
        };
        if !self.is_ejected() && now.saturating_sub(self.last) > hearing.stale_after {
            self.traffic.recount();
        }
        self.last = now;
        let was = self.is_ejected();
        self.traffic.observe(seen, reports.times, &hearing.passive.limits);
        match (was, self.is_ejected(), reports.judged) {
            (false, true, Judged::Failure(reason)) => {
                self.ejected = Some(now.cast_signed());
                self.reason = Some(reason);
                self.message = self.told(reports.observed);
            }
            (true, false, _) => self.let_back(),
            _ => {}
        }
        reports.judged
    }

    /// What has ejected it, for people.
    fn told(&self, last: Observed) -> Arc<str> {
        let Counters { connect, http, timeout, .. } = self.counters();
        let count = u32::from(connect) + u32::from(http) + u32::from(timeout);
        match (count, last.told()) {
            (1, last) => format!("a failure seen in traffic: {last}").into(),
            (_, last) => format!("{count} failures in a row seen in traffic, the last one {last}").into(),
        }
    }

    /// A probe has ended that counts.
    pub fn probed(&mut self, seen: Seen, thresholds: &Thresholds) {
        let was = self.is_ejected();
        self.traffic.probed(seen, thresholds);
        if was && !self.is_ejected() {
            self.let_back();
        }
    }

    /// The endpoint gets traffic again.
    pub fn release(&mut self) {
        if self.is_ejected() {
            self.traffic.release();
            self.let_back();
        }
    }

    fn let_back(&mut self) {
        (self.ejected, self.reason, self.message) = (None, None, Arc::from(""));
    }

    /// All that was said is too old.
    pub fn forget(&mut self) {
        let alone = self.alone;
        *self = Self { alone, ..Self::default() };
    }

    /// What was counted so far decides nothing any more.
    pub fn recount(&mut self) {
        self.traffic.recount();
    }
}

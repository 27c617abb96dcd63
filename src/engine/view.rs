//! What readers see: immutable snapshots of one check and its endpoints.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::Timestamp;

use super::moment::Moment;
use crate::check::{Counts, EndpointState, Health, HealthReason, Kind, Labels, ObjectKey, Reason, Text};

/// One check as last decided. A new one replaces it at every change of a state, never at every probe.
#[derive(Clone, Debug)]
pub struct CheckView {
    pub key: ObjectKey,
    pub uid: Text,
    pub generation: i64,
    pub labels: Labels,
    pub suspended: bool,
    pub health: Health,
    pub reason: HealthReason,
    /// For people: which members, and why. Empty when all is well.
    pub message: String,
    /// Since when `health` is what it is.
    pub since: Timestamp,
    pub counts: Counts,
    /// The names of the declared targets. Empty where the declaration cannot be read: then any name may be one.
    pub targets: Arc<[Text]>,
    /// What holds of a declared target that has no endpoint here. Unknown, unless healthy ones were left out.
    pub unlisted: Health,
    /// Every endpoint and member, in declared order.
    pub endpoints: Arc<[EndpointView]>,
    /// At most five, newest first.
    pub outages: Arc<[Outage]>,
    /// `"http,tcp"`.
    pub probes: Text,
    pub interval: Duration,
    /// The longest that a healthy endpoint of it goes unasked: a loss of several may come to light over as long.
    pub idle_interval: Duration,
    /// How often the check has become each word, in the order of [`Health::ALL`], since this process saw it first.
    pub transitions: [u64; 4],
    pub live: Arc<CheckLive>,
}

impl CheckView {
    /// Whether `name` is, or may be, one of its targets.
    #[must_use]
    pub fn has_target(&self, name: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| **target == *name)
    }
}

/// What moves at every probe of a check, shared by all its views.
#[derive(Debug, Default)]
pub struct CheckLive {
    last_beat: AtomicI64,
    /// The bits of a number of four bytes; 0 for 1.
    stretch: AtomicU32,
}

impl CheckLive {
    /// Notes that a probe of the check ended at `at`.
    pub fn beat(&self, at: Timestamp) {
        self.last_beat.store(at.as_millisecond(), Relaxed);
    }

    /// Notes how many times as long as declared its intervals are.
    pub fn set_stretch(&self, times: f64) {
        let times = times as f32;
        self.stretch.store(if times > 1.0 { times.to_bits() } else { 0 }, Relaxed);
    }

    /// How many times as long as declared its intervals are, as far as rounds were skipped; 1 where all are kept.
    #[must_use]
    pub fn stretch(&self) -> f64 {
        match self.stretch.load(Relaxed) {
            0 => 1.0,
            bits => f64::from(f32::from_bits(bits)),
        }
    }

    /// When the last probe of the check ended; `None` before the first.
    #[must_use]
    pub fn last_beat(&self) -> Option<Timestamp> {
        match self.last_beat.load(Relaxed) {
            0 => None,
            millis => Timestamp::from_millisecond(millis).ok(),
        }
    }
}

/// The word of a row that an operator has overridden.
pub const OVERRIDDEN: &str = "Overridden";

/// One endpoint, or one member check, as last decided.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// The name of the target it belongs to.
    pub target: Text,
    /// `10.1.2.3:8080`; empty for a script with no place, and for a member check.
    pub label: Text,
    pub identity: Text,
    pub kind: Kind,
    pub optional: bool,
    /// What may be believed now: a stale verdict reads as Unknown.
    pub state: EndpointState,
    /// There was a verdict, and it is too old to be believed.
    pub stale: bool,
    /// There is, or was, a verdict: not so where nothing was seen yet and `state` only says what was declared.
    pub measured: bool,
    pub since: Moment,
    /// It is found by a DNS name.
    pub named: bool,
    /// Read as fields of the row itself. `None` where there are none, as of most.
    pub remarks: Option<Arc<Remarks>>,
    pub live: Live,
}

/// What there is to say of an endpoint besides its verdict: nothing of one that is well, has no certificate and is no name.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    /// Why the last attempt did not succeed; `None` when it did, or when there was none.
    pub reason: Option<Reason>,
    /// For people, at most 256 characters.
    pub message: Text,
    /// Seconds since the epoch.
    pub certificate_expires: Option<i64>,
    /// Of a name that is judged as a whole: a row of each address that it leads to. `None` where nobody has looked yet,
    /// and for all that is no name.
    pub addresses: Option<Arc<[EndpointView]>>,
    /// An operator has decided by hand: state and message say so, whatever is measured.
    pub overridden: Option<Overridden>,
}

static NOTHING: LazyLock<Remarks> = LazyLock::new(Remarks::default);

impl Remarks {
    /// As a row has them.
    #[must_use]
    pub fn kept(self) -> Option<Arc<Self>> {
        let Self { reason, message, certificate_expires, addresses, overridden } = &self;
        let any = reason.is_some()
            || !message.is_empty()
            || certificate_expires.is_some()
            || addresses.is_some()
            || overridden.is_some();
        any.then(|| Arc::new(self))
    }
}

impl Deref for EndpointView {
    type Target = Remarks;

    fn deref(&self) -> &Remarks {
        self.remarks.as_deref().unwrap_or(&NOTHING)
    }
}

/// An override in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// What would be shown without it.
    pub measured: EndpointState,
    /// When it ends.
    pub until: Timestamp,
}

impl EndpointView {
    /// The address, where the row is about one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        let with_port = self.label.parse::<SocketAddr>().map(|address| address.ip());
        with_port.or_else(|_| self.label.parse()).ok()
    }

    /// The row itself, or those of its addresses where it has any.
    pub fn places(&self) -> impl Iterator<Item = &Self> {
        let addresses = self.addresses.as_deref().unwrap_or_default();
        addresses.iter().chain(std::iter::once(self).filter(move |_| addresses.is_empty()))
    }

    /// What the probes say, whatever an operator has decided by hand.
    #[must_use]
    pub fn verdict(&self) -> EndpointState {
        match self.overridden {
            Some(overridden) => overridden.measured,
            None => self.state,
        }
    }

    /// Why it is as it is shown, in one word: the reason of the last attempt, `Overridden` or `Stale`.
    #[must_use]
    pub fn reason_word(&self) -> Option<&'static str> {
        match (self.overridden, self.reason) {
            (Some(_), _) => Some(OVERRIDDEN),
            (None, Some(reason)) => Some(reason.as_str()),
            (None, None) if self.stale => Some("Stale"),
            (None, None) => None,
        }
    }
}

/// The four counters of an endpoint. Failures count in a row until a success; they saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub success: u16,
    pub connect: u16,
    pub http: u16,
    pub timeout: u16,
}

impl Counters {
    fn pack(self) -> u64 {
        u64::from(self.success)
            | u64::from(self.connect) << 16
            | u64::from(self.http) << 32
            | u64::from(self.timeout) << 48
    }

    const fn unpack(packed: u64) -> Self {
        const fn part(packed: u64, shift: u32) -> u16 {
            ((packed >> shift) & 0xffff) as u16
        }
        Self { success: part(packed, 0), connect: part(packed, 16), http: part(packed, 32), timeout: part(packed, 48) }
    }
}

/// The one of an endpoint. Nobody holds it weakly, so no word is spent on counting who does.
pub type Live = triomphe::Arc<EndpointLive>;

/// What moves at every probe of an endpoint, and at every report of its traffic, shared by all its views.
#[derive(Debug, Default)]
pub struct EndpointLive {
    counters: AtomicU64,
    /// Of what a data plane reports, plus one; 0 where nothing was reported.
    traffic: AtomicU64,
    latency_micros: AtomicU32,
    lookup_micros: AtomicU32,
    status: AtomicU16,
}

impl EndpointLive {
    pub fn set(&self, counters: Counters, latency: Option<Duration>) {
        self.counters.store(counters.pack(), Relaxed);
        if let Some(latency) = latency {
            self.latency_micros.store(micros(latency), Relaxed);
        }
    }

    /// Of the last attempt: the HTTP status that was answered, and how long looking up the host's name took.
    pub fn set_found(&self, status: Option<u16>, lookup: Option<Duration>) {
        self.status.store(status.unwrap_or(0), Relaxed);
        self.lookup_micros.store(lookup.map_or(0, micros), Relaxed);
    }

    /// The HTTP status that the last attempt was answered with, where this process made it and it was.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        Some(self.status.load(Relaxed)).filter(|status| *status > 0)
    }

    /// How long the last attempt looked up the name of its host, where this process made it and it did.
    #[must_use]
    pub fn lookup(&self) -> Option<Duration> {
        duration(self.lookup_micros.load(Relaxed))
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::unpack(self.counters.load(Relaxed))
    }

    /// What a data plane has reported; `None`: nothing.
    pub fn set_traffic(&self, counters: Option<Counters>) {
        // A success and a failure are never counted at once, so that not every bit is ever set.
        self.traffic.store(counters.map_or(0, |counters| counters.pack().saturating_add(1)), Relaxed);
    }

    /// What a data plane has reported, as the state machine of its reports counts it; `None` where it has nothing.
    #[must_use]
    pub fn traffic(&self) -> Option<Counters> {
        self.traffic.load(Relaxed).checked_sub(1).map(Counters::unpack)
    }

    /// How long the last attempt took; `None` before the first.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        duration(self.latency_micros.load(Relaxed))
    }
}

/// Never 0, which is the word for nothing.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX).max(1)
}

fn duration(micros: u32) -> Option<Duration> {
    (micros > 0).then(|| Duration::from_micros(micros.into()))
}

/// A stretch of time in which a check was Unhealthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    pub start: Timestamp,
    /// `None` while it lasts.
    pub end: Option<Timestamp>,
    /// The reason of the first failing endpoint; `Stale` and the like where there is none.
    pub reason: String,
    /// The names of the targets that failed, at most eight.
    pub targets: Vec<String>,
}

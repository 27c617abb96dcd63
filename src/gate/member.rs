//! What a gate is told about one endpoint.

use jiff::Timestamp;

use crate::check::{Text, Word};

/// One endpoint as a gate sees it. Endpoints that are gone, or terminate, are not given at all: they leave the
/// denominator of floor and cap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Unique among the members of a gate and stable over restarts: ties are broken by its hash.
    pub identity: Text,
    /// What people see: `10.1.2.3:8080`.
    pub label: Text,
    pub verdict: Verdict,
    /// When it was healthy last, as far as that is known; not read while it is Healthy. It has to move only when the
    /// verdict does (the time it stopped being healthy), or ties would be broken anew at every probe.
    pub last_healthy: Option<Timestamp>,
    /// What the last decision said; `None` for one that no decision has seen yet.
    pub last: Option<Last>,
    /// What an operator says by hand and is in force now.
    pub word: Option<Word>,
    /// When that ends. For people only.
    pub word_until: Option<Timestamp>,
    /// It has changed too often of late: see [`super::Flap`].
    pub flapping: bool,
    /// Until when its return waits for that, where it does. For people: what is decided follows from `flapping`.
    pub held_until: Option<Timestamp>,
    /// It was lost together with most others: its loss is not followed for now, whatever becomes of the others.
    pub lost: bool,
}

/// What may be believed of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Also MostlyHealthy.
    Healthy,
    /// Also MostlyUnhealthy.
    Unhealthy,
    /// There was a verdict, and it is too old to be believed. An endpoint without a verdict that is found published
    /// from an earlier life is this, too: it was probed then.
    Stale,
    /// There never was a verdict. `initialState` does not count: it was declared, not measured.
    NeverProbed,
}

/// What was decided about an endpoint. Kept by whoever calls [`super::decide`] and handed back the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Last {
    pub published: bool,
    /// What the verdict alone asked for, before any limit, hold or override. It is this that `whenUnknown: FailStatic`
    /// keeps: what a limit published against the verdict must not count as desired once the verdict is too old.
    pub wanted: bool,
    /// Never probed and never published so far: even a frozen gate lets it in once it is healthy.
    pub newcomer: bool,
}

impl Last {
    /// What is found published from an earlier life: nothing more is known than that it was `ready` or not.
    #[must_use]
    pub const fn found(ready: bool) -> Self {
        Self { published: ready, wanted: ready, newcomer: false }
    }
}

/// Why a gate follows no verdict for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freeze {
    /// So much was lost at once that our own side is the likelier cause: see [`super::Detector`].
    CorrelatedFailure,
    /// The prober sees nothing any more.
    ProberIsolated,
    /// The API server does not answer, so what is published cannot be known.
    ApiServerUnreachable,
    /// The check is suspended.
    Suspended,
    /// It was frozen in an earlier life, and what is known since is too little.
    TakenOver,
}

impl Freeze {
    pub const ALL: [Self; 5] =
        [Self::CorrelatedFailure, Self::ProberIsolated, Self::ApiServerUnreachable, Self::Suspended, Self::TakenOver];

    /// Whether a success is believed meanwhile: one that has come back is let in.
    #[must_use]
    pub(super) const fn believes_success(self) -> bool {
        matches!(self, Self::CorrelatedFailure | Self::TakenOver)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CorrelatedFailure => "CorrelatedFailure",
            Self::ProberIsolated => "ProberIsolated",
            Self::ApiServerUnreachable => "ApiServerUnreachable",
            Self::Suspended => "Suspended",
            Self::TakenOver => "TakenOver",
        }
    }

    /// For people.
    #[must_use]
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::CorrelatedFailure => "most endpoints of several HealthChecks were lost at once",
            Self::ProberIsolated => "the prober is isolated",
            Self::ApiServerUnreachable => "the API server cannot be reached",
            Self::Suspended => "the HealthCheck is suspended",
            Self::TakenOver => "it was when this replica took over",
        }
    }
}

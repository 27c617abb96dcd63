//! What of a check may move traffic: the compiled form of `spec.gates[]`.

use super::{MinHealthy, PodSelector, PortRef, Text};

/// One gate. Only what passes its limits is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Unique in the check.
    pub name: Text,
    pub kind: GateKind,
    pub mode: GateMode,
    pub limits: GateLimits,
}

/// Through what a gate moves traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// Slices of our own, of a Service without a selector in the same namespace.
    EndpointSlice {
        service: Text,
        /// The Service's port; `None` where it has only one.
        port: Option<PortRef>,
    },
    /// A readiness-gate condition on pods.
    PodReadiness {
        condition_type: Text,
        /// Every matching pod, by the check's verdict. `None`: the pods of its targets, each by its own.
        selector: Option<PodSelector>,
    },
    /// The annotation on the EndpointSlices of `service` targets. It tells, and withholds nothing.
    Annotation,
}

/// Whether a gate acts, or only shows what it would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GateMode {
    #[default]
    Enforce,
    DryRun,
}

/// How far a gate may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// Fewer desired than this: `when_below` decides.
    pub min_ready: MinHealthy,
    /// Never hold back more than this share, 0–100, rounded down.
    pub max_removed_percent: u8,
    pub when_below: GatePolicy,
    /// For what has no verdict that may be believed.
    pub when_unknown: GatePolicy,
}

/// What is published where the verdicts alone may not decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GatePolicy {
    /// Publish as ready.
    FailOpen,
    /// Keep what was last published; where nothing was, as `FailOpen`.
    FailStatic,
    /// Publish as not ready.
    FailClosed,
}

impl GatePolicy {
    pub const ALL: [Self; 3] = [Self::FailOpen, Self::FailStatic, Self::FailClosed];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailOpen => "FailOpen",
            Self::FailStatic => "FailStatic",
            Self::FailClosed => "FailClosed",
        }
    }
}

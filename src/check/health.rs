//! The words for health, of one endpoint and of a whole check.

use std::fmt;

/// Health of a whole check, in one word: for columns, HTTP and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    Healthy,
    Degraded,
    Unhealthy,
    Unknown,
}

impl Health {
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Unknown];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Degraded => "Degraded",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }

    /// The word for `text`, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|health| health.as_str() == text)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a check has the health it has: the reason of its `Healthy` condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HealthReason {
    AllTargetsHealthy,
    MinimumMet,
    TargetsUnhealthy,
    Pending,
    Suspended,
    Stale,
    NoTargets,
    ProberIsolated,
    ProbeError,
}

impl HealthReason {
    pub const ALL: [Self; 9] = [
        Self::AllTargetsHealthy,
        Self::MinimumMet,
        Self::TargetsUnhealthy,
        Self::Pending,
        Self::Suspended,
        Self::Stale,
        Self::NoTargets,
        Self::ProberIsolated,
        Self::ProbeError,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AllTargetsHealthy => "AllTargetsHealthy",
            Self::MinimumMet => "MinimumMet",
            Self::TargetsUnhealthy => "TargetsUnhealthy",
            Self::Pending => "Pending",
            Self::Suspended => "Suspended",
            Self::Stale => "Stale",
            Self::NoTargets => "NoTargets",
            Self::ProberIsolated => "ProberIsolated",
            Self::ProbeError => "ProbeError",
        }
    }

    /// The reason for `text`, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for HealthReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// State of one endpoint. The `Mostly` states route like their parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointState {
    Healthy,
    /// Healthy, with at least one failure since the last success.
    MostlyHealthy,
    /// Unhealthy, with at least one success since the last failure.
    MostlyUnhealthy,
    Unhealthy,
    /// No verdict yet, or none that may still be believed.
    #[default]
    Unknown,
}

impl EndpointState {
    /// Its place in a list of what matters most: the worst is 0, and a state that wavers comes before one that does not.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::Unhealthy => 0,
            Self::MostlyUnhealthy => 1,
            Self::Unknown => 2,
            Self::MostlyHealthy => 3,
            Self::Healthy => 4,
        }
    }

    pub const ALL: [Self; 5] =
        [Self::Healthy, Self::MostlyHealthy, Self::MostlyUnhealthy, Self::Unhealthy, Self::Unknown];

    #[must_use]
    pub const fn is_healthy(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }

    #[must_use]
    pub const fn is_unhealthy(self) -> bool {
        matches!(self, Self::Unhealthy | Self::MostlyUnhealthy)
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::MostlyHealthy => "MostlyHealthy",
            Self::MostlyUnhealthy => "MostlyUnhealthy",
            Self::Unhealthy => "Unhealthy",
            Self::Unknown => "Unknown",
        }
    }

    /// The state without its doubt: as it was before the last result that speaks against it.
    #[must_use]
    pub const fn plain(self) -> Self {
        match self {
            Self::MostlyHealthy => Self::Healthy,
            Self::MostlyUnhealthy => Self::Unhealthy,
            plain => plain,
        }
    }

    /// The state for `text`, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How many members of a check are in which state; optional members are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u32,
    pub healthy: u32,
    pub unhealthy: u32,
    pub unknown: u32,
}

impl Counts {
    /// `"2/3"`: healthy of total.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}/{}", self.healthy, self.total)
    }
}

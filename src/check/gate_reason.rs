//! The words for what a gate does: the reasons of the `GatesApplied` condition.

use std::fmt;

/// What a gate does at present, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GateReason {
    /// The verdicts decide alone.
    Enforced,
    /// Nothing is written; what would be is shown.
    DryRun,
    /// Everything is published as ready.
    FailOpen,
    /// What was published last stays.
    FailStatic,
    /// Fewer than `minReady` are published as ready, as was asked.
    FailClosed,
    /// `maxRemovedPercent` keeps published what would be held back.
    Capped,
    /// Nothing changes: too much was lost at once, or the prober is cut off.
    Frozen,
    /// Some endpoints wait: they flap, or somebody overrides their verdict.
    Held,
    /// What it would write to belongs to another, or cannot be gated.
    Conflict,
    /// The operator may not write it.
    Forbidden,
    /// What it would write to is not there.
    NotFound,
    /// A write has failed, and is tried again.
    WriteFailed,
    /// The operator is being uninstalled: whatever the gate held is let go.
    Released,
    /// An override that cannot be read is ignored.
    InvalidOverride,
    /// Not evaluated yet, or there was no verdict so far that could decide anything.
    Pending,
}

impl GateReason {
    pub const ALL: [Self; 15] = [
        Self::Enforced,
        Self::DryRun,
        Self::FailOpen,
        Self::FailStatic,
        Self::FailClosed,
        Self::Capped,
        Self::Frozen,
        Self::Held,
        Self::Conflict,
        Self::Forbidden,
        Self::NotFound,
        Self::WriteFailed,
        Self::Released,
        Self::InvalidOverride,
        Self::Pending,
    ];

    /// Whether gates that are so count as applied; `None`: nobody knows yet.
    #[must_use]
    pub const fn is_applied(self) -> Option<bool> {
        match self {
            Self::Enforced
            | Self::DryRun
            | Self::FailOpen
            | Self::FailStatic
            | Self::FailClosed
            | Self::Capped
            | Self::Frozen
            | Self::Held => Some(true),
            Self::Conflict
            | Self::Forbidden
            | Self::NotFound
            | Self::WriteFailed
            | Self::Released
            | Self::InvalidOverride => Some(false),
            Self::Pending => None,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "Enforced",
            Self::DryRun => "DryRun",
            Self::FailOpen => "FailOpen",
            Self::FailStatic => "FailStatic",
            Self::FailClosed => "FailClosed",
            Self::Capped => "Capped",
            Self::Frozen => "Frozen",
            Self::Held => "Held",
            Self::Conflict => "Conflict",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::WriteFailed => "WriteFailed",
            Self::Released => "Released",
            Self::InvalidOverride => "InvalidOverride",
            Self::Pending => "Pending",
        }
    }

    /// The reason for `text`, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for GateReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

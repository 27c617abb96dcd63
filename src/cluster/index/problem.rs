//! What keeps a check from being probed as it is written.

use std::fmt;

/// Why a check is not, or not wholly, probed: the reason of `Ready=False`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProblemKind {
    /// The spec itself is wrong.
    InvalidSpec,
    /// Checks refer to each other in a circle.
    Cycle,
    /// Checks are nested too deep.
    TooDeep,
    /// Something it names is not there, or not as it is named.
    InvalidReference,
    /// We may not read what it names.
    Forbidden,
    /// Scripts are switched off.
    ScriptsDisabled,
}

impl ProblemKind {
    pub const ALL: [Self; 6] =
        [Self::InvalidSpec, Self::Cycle, Self::TooDeep, Self::InvalidReference, Self::Forbidden, Self::ScriptsDisabled];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::Cycle => "Cycle",
            Self::TooDeep => "TooDeep",
            Self::InvalidReference => "InvalidReference",
            Self::Forbidden => "Forbidden",
            Self::ScriptsDisabled => "ScriptsDisabled",
        }
    }

    /// Nothing of the check is probed, and nothing will change before somebody edits it.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::InvalidSpec | Self::Cycle | Self::TooDeep)
    }
}

/// One problem, with the path of the field and the mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub kind: ProblemKind,
    /// `spec.targets[0].port`; empty where no one field is to blame.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

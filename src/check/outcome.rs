//! What one attempt ended in.

use std::{net::IpAddr, time::Duration};

use super::{Class, Family, Reason};

/// The longest message kept for people, in characters.
const MESSAGE_LIMIT: usize = 256;

/// One attempt ends in exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// We looked and it is down. `reason` always has a class.
    Failure {
        class: Class,
        reason: Reason,
        message: String,
    },
    /// An answer that is neither good nor bad. Changes nothing.
    Neutral {
        /// What came, for people.
        message: String,
    },
    /// We could not look: our side's fault, never counted against the target.
    Local {
        reason: Reason,
        message: String,
    },
}

impl Outcome {
    /// A failure or, where the reason is one of our own side, a local outcome; the message is cleaned for people.
    #[must_use]
    pub fn from_reason(reason: Reason, message: impl AsRef<str>) -> Self {
        let message = clean_message(message.as_ref());
        match reason.class() {
            Some(class) => Self::Failure { class, reason, message },
            None => Self::Local { reason, message },
        }
    }

    /// The word for metrics: `success`, `failure`, `neutral` or `local`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure { .. } => "failure",
            Self::Neutral { .. } => "neutral",
            Self::Local { .. } => "local",
        }
    }

    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Failure { reason, .. } | Self::Local { reason, .. } => Some(*reason),
            Self::Success | Self::Neutral { .. } => None,
        }
    }

    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Failure { message, .. } | Self::Local { message, .. } | Self::Neutral { message } => message,
            Self::Success => "",
        }
    }
}

/// An outcome with what was measured on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// From the start of the attempt to its end, resolving included.
    pub latency: Duration,
    /// When the leaf certificate the target showed expires, in seconds since the epoch; `None` without TLS.
    pub certificate_expires: Option<i64>,
    /// The HTTP status that was answered, whatever it is worth; `None` where none came, and for all that is not HTTP.
    pub status: Option<u16>,
    /// How long the look-up of the host's name took; `None` for an address.
    pub lookup: Option<Duration>,
    /// Of a host given by name: what was found at each of its addresses. `None` where nobody could say which they are;
    /// then the outcome is that of every address it had.
    pub found: Option<Box<Found>>,
}

/// What was found at the addresses that a name leads to. One that answers is enough for the attempt as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// By address; those that may not be dialed are left out.
    pub reports: Vec<(IpAddr, Report)>,
    /// The family of which no name server said anything this time: what it had may still be there.
    pub unheard: Option<Family>,
}

impl Report {
    #[must_use]
    pub const fn new(outcome: Outcome, latency: Duration) -> Self {
        Self { outcome, latency, certificate_expires: None, status: None, lookup: None, found: None }
    }

    /// The outcomes of the attempt as a whole and at each address.
    pub fn outcomes(&mut self) -> impl Iterator<Item = &mut Outcome> {
        let found = self.found.iter_mut().flat_map(|found| &mut found.reports);
        std::iter::once(&mut self.outcome).chain(found.map(|(_, report)| &mut report.outcome))
    }
}

/// `text` on one line, control characters replaced, at most 256 characters (a cut ends in `…`).
#[must_use]
pub fn clean_message(text: &str) -> String {
    let mut clean: String =
        text.trim().chars().take(MESSAGE_LIMIT + 1).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() > MESSAGE_LIMIT {
        clean = clean.chars().take(MESSAGE_LIMIT - 1).collect();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_256_characters_and_no_control_character() {
        let long = "é\n".repeat(400);
        let clean = clean_message(&long);
        assert_eq!(clean.chars().count(), 256);
        assert!(clean.ends_with('…') && !clean.contains('\n'));
        assert_eq!(clean_message(&"x".repeat(256)), "x".repeat(256));
        assert_eq!(clean_message(" connection refused\n"), "connection refused");
    }

    #[test]
    fn a_reason_decides_whether_it_counts() {
        assert!(matches!(
            Outcome::from_reason(Reason::ConnectionRefused, "x"),
            Outcome::Failure { class: Class::Connect, .. }
        ));
        assert!(matches!(Outcome::from_reason(Reason::NoDescriptors, "x"), Outcome::Local { .. }));
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
    }
}

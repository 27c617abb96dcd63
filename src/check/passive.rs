//! What a data plane may tell of the traffic that it sends to an endpoint, and how that is judged.

use std::time::Duration;

use super::{Reason, StatusRange, Thresholds};

/// How reports about the endpoints of a check are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Statuses that count as a success.
    pub healthy: Vec<StatusRange>,
    /// Statuses that count as a failure, though they be healthy. What is in neither list is neutral.
    pub unhealthy: Vec<StatusRange>,
    /// `None` of a class: its failures eject nobody.
    pub limits: Thresholds,
    /// How long an ejection lasts where nothing is probed. `None`: endpoints are probed, and return by that.
    pub unprobed: Option<Duration>,
}

/// What the data plane has seen of one request, or of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Observed {
    /// An HTTP answer with this status, 100–599.
    Status(u16),
    /// A connection was made and served, of what has no status.
    Connected,
    /// No connection could be made, or it broke before the answer.
    ConnectFailure,
    /// No answer in time.
    Timeout,
}

/// What a report counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    Success,
    Failure(Reason),
    /// Changes no counter.
    Neutral,
}

impl Passive {
    #[must_use]
    pub fn judge(&self, observed: Observed) -> Judged {
        let listed = |list: &[StatusRange], status: u16| list.iter().any(|range| range.contains(status));
        match observed {
            Observed::Status(status) if listed(&self.unhealthy, status) => {
                Judged::Failure(Reason::PassiveUnexpectedStatus)
            }
            Observed::Status(status) if listed(&self.healthy, status) => Judged::Success,
            Observed::Status(_) => Judged::Neutral,
            Observed::Connected => Judged::Success,
            Observed::ConnectFailure => Judged::Failure(Reason::PassiveConnectFailure),
            Observed::Timeout => Judged::Failure(Reason::PassiveTimeout),
        }
    }
}

impl Observed {
    /// For people, behind a number of failures.
    #[must_use]
    pub fn told(self) -> String {
        match self {
            Self::Status(status) => format!("status '{status}'"),
            Self::Connected => "a connection".to_owned(),
            Self::ConnectFailure => "a failed connection".to_owned(),
            Self::Timeout => "a timeout".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Class;

    #[test]
    fn a_status_in_neither_list_is_neutral_and_the_unhealthy_list_has_the_last_word() {
        let range = |first, last| StatusRange { first, last };
        let passive = Passive {
            healthy: vec![range(200, 499)],
            unhealthy: vec![range(429, 429), range(500, 502)],
            limits: Thresholds { success: 5, failure: None, connect: Some(2), http: Some(5), timeout: Some(7) },
            unprobed: None,
        };
        let status = |status| passive.judge(Observed::Status(status));
        assert_eq!(status(204), Judged::Success);
        assert_eq!((status(199), status(503)), (Judged::Neutral, Judged::Neutral));
        let failed = Judged::Failure(Reason::PassiveUnexpectedStatus);
        assert_eq!((status(429), status(500), status(502)), (failed, failed, failed));
        assert_eq!(passive.judge(Observed::Connected), Judged::Success);
        for (observed, class) in [(Observed::ConnectFailure, Class::Connect), (Observed::Timeout, Class::Timeout)] {
            let Judged::Failure(reason) = passive.judge(observed) else { panic!("{observed:?}") };
            assert_eq!((reason.class(), reason.is_passive()), (Some(class), true));
        }
    }
}

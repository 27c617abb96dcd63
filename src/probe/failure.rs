//! How an attempt goes wrong: a reason with its message, and what the system's error numbers mean for a target.

use std::io;

use rustix::io::Errno;

use crate::check::{Outcome, Reason};

/// An attempt that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub reason: Reason,
    pub message: String,
    /// Known even where the certificate itself is why it failed. Seconds since the epoch.
    pub certificate_expires: Option<i64>,
    /// The HTTP status that was answered.
    pub status: Option<u16>,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), certificate_expires: None, status: None }
    }

    /// The same failure with more in front of its message.
    pub fn within(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub fn outcome(&self) -> Outcome {
        Outcome::from_reason(self.reason, &self.message)
    }

    /// Which of several addresses' failures speaks for all of them; the greatest does.
    ///
    /// What keeps us from looking at all comes first, as nothing is known then. An address we have no way to (IPv6
    /// where there is none) comes last: it must not hide that the other one is down.
    pub const fn weight(&self) -> u8 {
        match self.reason {
            Reason::NoRoute | Reason::EgressDenied => 0,
            reason => match reason.class() {
                Some(crate::check::Class::Connect) => 1,
                Some(crate::check::Class::Timeout) => 2,
                Some(crate::check::Class::Http) => 3,
                None => 4,
            },
        }
    }
}

/// A request that came to nothing, over a connection that may be older than the attempt.
#[derive(Debug)]
pub(super) struct Broken {
    pub failure: Failure,
    /// The connection ended, or was already gone, before a word of the answer came: on one that was kept this says
    /// nothing about the target.
    pub unheard: bool,
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self { failure, unheard: false }
    }
}

/// Where in an attempt the system reported an error; the same number means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// `socket` or `connect` itself returned it: our own machine said so, before anything was heard from the path.
    Local,
    /// It arrived after the connection attempt had started, or on the open connection.
    Arrived,
}

/// What `error` says about the target, or about us.
pub(super) fn from_io(error: &io::Error, moment: Moment) -> Failure {
    match Errno::from_io_error(error) {
        Some(errno) => from_errno(errno, moment),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(Reason::ConnectionClosed, "connection closed before an answer")
        }
        // What a target thinks of our certificate may come after the handshake.
        None => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(tls) => super::tls::explain(tls),
            None => Failure::new(Reason::ConnectionClosed, format!("connection broke: {error}")),
        },
    }
}

fn from_errno(errno: Errno, moment: Moment) -> Failure {
    let (reason, message) = match errno {
        Errno::CONNREFUSED => (Reason::ConnectionRefused, "connection refused"),
        Errno::CONNRESET => (Reason::ConnectionReset, "connection reset"),
        Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => (Reason::ConnectionClosed, "connection closed"),
        // The kernel gave up on its own SYN retries before our deadline came.
        Errno::TIMEDOUT => (Reason::TimeoutConnect, "no answer (Connect)"),
        Errno::MFILE | Errno::NFILE => {
            (Reason::NoDescriptors, "no file descriptor left to probe with; raise the limit (RLIMIT_NOFILE)")
        }
        Errno::NOBUFS | Errno::NOMEM => (Reason::ProberOverloaded, "no memory left for another connection"),
        Errno::ADDRNOTAVAIL | Errno::AGAIN => {
            (Reason::NoPorts, "no local port left to probe from; widen net.ipv4.ip_local_port_range")
        }
        Errno::AFNOSUPPORT | Errno::PFNOSUPPORT => {
            (Reason::NoRoute, "no route from here: this machine does not speak this address family")
        }
        _ => return by_moment(errno, moment),
    };
    Failure::new(reason, message)
}

fn by_moment(errno: Errno, moment: Moment) -> Failure {
    let (reason, message) = match (errno, moment) {
        (Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN, Moment::Local) => {
            (Reason::NoRoute, "no route from here")
        }
        // A blackhole route, or a link-local address without its link, is EINVAL; a prohibiting route or firewall
        // of our own is EACCES or EPERM.
        (Errno::INVAL, Moment::Local) => (Reason::NoRoute, "no route from here: the kernel takes no such destination"),
        (Errno::ACCESS | Errno::PERM, Moment::Local) => {
            (Reason::NoRoute, "no route from here: this machine's own rules forbid it")
        }
        (Errno::NETDOWN, Moment::Arrived) => (Reason::NoRoute, "the network here went down"),
        (Errno::NETUNREACH, Moment::Arrived) => (Reason::NetworkUnreachable, "network unreachable"),
        // ICMP's protocol-unreachable and, on IPv6, "administratively prohibited".
        (Errno::HOSTUNREACH | Errno::HOSTDOWN | Errno::NOPROTOOPT | Errno::ACCESS | Errno::PERM, Moment::Arrived) => {
            (Reason::HostUnreachable, "host unreachable")
        }
        (errno, Moment::Local) => {
            return Failure::new(Reason::CannotStart, format!("cannot connect: {}", io::Error::from(errno)));
        }
        (errno, Moment::Arrived) => {
            return Failure::new(Reason::ConnectionClosed, format!("connection broke: {}", io::Error::from(errno)));
        }
    };
    Failure::new(reason, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_number_is_ours_or_theirs() {
        use Moment::{Arrived, Local};
        let table = [
            (Errno::CONNREFUSED, Local, Reason::ConnectionRefused),
            (Errno::CONNREFUSED, Arrived, Reason::ConnectionRefused),
            (Errno::CONNRESET, Arrived, Reason::ConnectionReset),
            (Errno::PIPE, Arrived, Reason::ConnectionClosed),
            (Errno::TIMEDOUT, Arrived, Reason::TimeoutConnect),
            (Errno::HOSTUNREACH, Local, Reason::NoRoute),
            (Errno::HOSTUNREACH, Arrived, Reason::HostUnreachable),
            (Errno::NETUNREACH, Local, Reason::NoRoute),
            (Errno::NETUNREACH, Arrived, Reason::NetworkUnreachable),
            (Errno::ACCESS, Local, Reason::NoRoute),
            (Errno::ACCESS, Arrived, Reason::HostUnreachable),
            (Errno::INVAL, Local, Reason::NoRoute),
            (Errno::MFILE, Local, Reason::NoDescriptors),
            (Errno::NFILE, Local, Reason::NoDescriptors),
            (Errno::ADDRNOTAVAIL, Local, Reason::NoPorts),
            (Errno::AGAIN, Local, Reason::NoPorts),
            (Errno::AFNOSUPPORT, Local, Reason::NoRoute),
            (Errno::NOBUFS, Local, Reason::ProberOverloaded),
        ];
        for (errno, moment, reason) in table {
            let error = io::Error::from(errno);
            assert_eq!(from_io(&error, moment).reason, reason, "{errno:?} {moment:?}");
        }
    }

    #[test]
    fn nothing_our_own_machine_says_counts_against_the_target_but_refusal() {
        for errno in [Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::INVAL, Errno::PERM, Errno::MFILE, Errno::NOMEM] {
            let failure = from_io(&io::Error::from(errno), Moment::Local);
            assert!(matches!(failure.outcome(), Outcome::Local { .. }), "{errno:?}: {failure:?}");
        }
    }
}

//! The closed set of reasons an attempt can end for. They label metrics and events, so no free text is ever one.

use std::fmt;

/// Which counter a failure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The connection could not be made or broke: refused, reset, unreachable, TLS, a name that does not exist.
    Connect,
    /// An answer came and was wrong: status, body, exit code.
    Http,
    /// No answer in time, in whatever phase.
    Timeout,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Connect, Self::Http, Self::Timeout];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Timeout => "timeout",
        }
    }
}

macro_rules! reasons {
    ($($class:ident { $($name:ident),+ $(,)? })+) => {
        /// Why an attempt did not succeed. PascalCase everywhere a person or a machine reads it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($($name),+),+ }

        impl Reason {
            pub const ALL: &[Self] = &[$($(Self::$name),+),+];

            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($(Self::$name => stringify!($name)),+),+ }
            }

            const fn group(self) -> Group {
                match self { $($(Self::$name)|+ => Group::$class),+ }
            }
        }
    };
}

enum Group {
    Connect,
    Http,
    Timeout,
    Local,
}

reasons! {
    Connect {
        ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, NameNotFound,
        TlsHandshakeFailed, CertificateInvalid, CertificateExpired, ConnectionClosed, PassiveConnectFailure,
    }
    Http {
        UnexpectedStatus, UnexpectedBody, BodyTooLarge, MalformedResponse, HeadersTooLarge, RedirectRefused, TooSlow,
        CertificateExpiring, ReceiveMismatch, GrpcNotServing, GrpcServiceUnknown, GrpcUnimplemented, ExitCode, KilledBySignal,
        PassiveUnexpectedStatus,
    }
    Timeout {
        TimeoutResolve, TimeoutConnect, TimeoutTls, TimeoutRequest, TimeoutResponse, TimeoutReceive, TimeoutScript,
        PassiveTimeout,
    }
    Local {
        NoDescriptors, NoPorts, ResolverUnreachable, NoRoute, EgressDenied, SecretMissing, SecretForbidden,
        RunnerUnreachable, CannotStart, ScriptLimitReached, ScriptsDisabled, ProberOverloaded, ProberIsolated,
    }
}

impl Reason {
    /// The failure class, or `None` for a reason of our own side (a local outcome counts for nothing).
    #[must_use]
    pub const fn class(self) -> Option<Class> {
        match self.group() {
            Group::Connect => Some(Class::Connect),
            Group::Http => Some(Class::Http),
            Group::Timeout => Some(Class::Timeout),
            Group::Local => None,
        }
    }

    /// Whether traffic has shown it, as a data plane reports, and no probe of ours.
    #[must_use]
    pub const fn is_passive(self) -> bool {
        matches!(self, Self::PassiveConnectFailure | Self::PassiveUnexpectedStatus | Self::PassiveTimeout)
    }

    /// The reason for `text`, if it is one of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

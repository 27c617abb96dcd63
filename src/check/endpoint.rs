//! One address and port of a target, and the attempt made on it.

use std::sync::Arc;

use super::{Host, ObjectKey, Probe, ReferenceKind};

/// One place that is probed and judged alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The target it belongs to.
    pub target: Arc<str>,
    /// What it is across edits and restarts: pod UID and port, or declared name, address and port.
    pub identity: Arc<str>,
    /// What people see: `10.1.2.3:8080`, `[fd00::1]:53`, a name with its port; empty for a script with no place.
    pub label: Arc<str>,
    /// What is dialed; `None` for a script with no place.
    pub dial: Option<Dial>,
    pub optional: bool,
    pub probe: Arc<Probe>,
}

/// An address or name, and the port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dial {
    pub host: Host,
    /// The port that is dialed; a script may have none.
    pub port: Option<u16>,
}

/// One attempt: a value in; a [`super::Report`] out.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub check: ObjectKey,
    pub target: Arc<str>,
    pub dial: Option<Dial>,
    pub probe: Arc<Probe>,
}

impl ReferenceKind {
    /// The plural resource name of the Kubernetes API.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ConfigMap => "configmaps",
        }
    }
}

//! One address and port of a target, and the attempt made on it.

use std::{net::IpAddr, sync::Arc};

use super::{Host, Kept, ObjectKey, Place, PortRef, Probe, ProbeKind, ReferenceKind, Resolve, Target, Text};

/// One place that is probed and judged alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The target it belongs to.
    pub target: Text,
    /// What it is across edits and restarts: pod UID and port, or declared name, address and port.
    pub identity: Text,
    /// What people see: `10.1.2.3:8080`, `[fd00::1]:53`, a name with its port; empty for a script with no place.
    pub label: Text,
    /// What is dialed; `None` for a script with no place.
    pub dial: Option<Dial>,
    /// The port that traffic goes to.
    pub port: Option<u16>,
    /// What is judged where `dial` is a name that leads to several addresses.
    pub resolve: Resolve,
    pub optional: bool,
    pub probe: Arc<Probe>,
}

impl Endpoint {
    /// Whether it is found by a DNS name.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.dial.as_ref().is_some_and(|dial| matches!(dial.host, Host::Name(_)))
    }
}

/// An address or name, and the port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dial {
    pub host: Host,
    /// The port that is dialed; a script may have none.
    pub port: Option<u16>,
}

/// What kind of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The word of the Kubernetes API (`addressType` of an EndpointSlice).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.as_str() == text)
    }
}

/// One attempt: a value in; a [`super::Report`] out.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub check: ObjectKey,
    pub target: Text,
    pub dial: Option<Dial>,
    pub probe: Arc<Probe>,
    /// Where a name was last known to lead to: asked there while no name server says anything else.
    pub known: Vec<IpAddr>,
    /// What the attempt before left, where the probe keeps something (`reuseConnection`) and somebody holds it.
    pub kept: Option<Kept>,
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

impl Target {
    /// The one endpoint of a target that says itself where it is: a host, or a script with no place. `None` for targets
    /// that only a cluster can resolve, and for other checks.
    #[must_use]
    pub fn own_endpoint(&self) -> Option<Endpoint> {
        let host = match &self.place {
            Place::Host(host) => Some(host.clone()),
            Place::Nowhere => None,
            Place::Service { .. } | Place::Pods { .. } | Place::Check { .. } => return None,
        };
        let traffic_port = match &self.port {
            Some(PortRef::Number(port)) => Some(*port),
            // A host has no names for its ports; `compile` refuses one.
            Some(PortRef::Name(_)) | None => None,
        };
        let default_port = match &self.probe.kind {
            ProbeKind::Http(http) => Some(http.scheme.default_port()),
            ProbeKind::Tcp(_) | ProbeKind::Grpc(_) | ProbeKind::Script(_) => None,
        };
        let dialed_port = self.probe.port().or(traffic_port).or(default_port);
        let port = traffic_port.or(dialed_port);
        let label: Text = host.as_ref().map_or_else(String::new, |host| host.with_port(port)).into();
        Some(Endpoint {
            target: self.name.clone(),
            // Declared name, address and port.
            identity: label.clone(),
            label,
            dial: host.map(|host| Dial { host, port: dialed_port }),
            port,
            resolve: self.resolve,
            optional: self.optional,
            probe: self.probe.clone(),
        })
    }
}

impl Host {
    /// `10.0.0.1:80`, `[fd00::1]:80`, `db.example:5432`; without a port, the host alone.
    #[must_use]
    pub fn with_port(&self, port: Option<u16>) -> String {
        match (self, port) {
            (Self::Address(address), Some(port)) => std::net::SocketAddr::new(*address, port).to_string(),
            (Self::Address(address), None) => address.to_string(),
            (Self::Name(name), Some(port)) => format!("{name}:{port}"),
            (Self::Name(name), None) => name.to_string(),
        }
    }
}

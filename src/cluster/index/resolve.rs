//! From a target to its endpoints. Pure: reads what the index holds.

use std::net::SocketAddr;

use super::{
    Sources,
    facts::{PodFacts, ServiceFacts, ServicePort, SliceFacts},
    problem::{Problem, ProblemKind},
};
use crate::check::{Check, Dial, Endpoint, Host, ObjectKey, Place, PodSelector, PortRef, Target, Text};

/// The endpoints of a check, and what stands in the way of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    pub endpoints: Vec<Endpoint>,
    pub problems: Vec<Problem>,
}

/// Resolves every target of `check`.
#[must_use]
pub fn resolve(check: &Check, sources: &Sources) -> Resolved {
    let mut resolved = Resolved::default();
    for (index, target) in check.targets.iter().enumerate() {
        let mut view = TargetView { check, index, target, sources, resolved: &mut resolved };
        match &target.place {
            Place::Service { name } => view.service(name),
            Place::Pods { selector } => view.pods(selector),
            Place::Host(_) | Place::Nowhere => resolved.endpoints.extend(target.own_endpoint()),
            // Members by name: the engine follows them.
            Place::Check { .. } => {}
        }
    }
    resolved
}

struct TargetView<'a> {
    check: &'a Check,
    index: usize,
    target: &'a Target,
    sources: &'a Sources,
    resolved: &'a mut Resolved,
}

impl TargetView<'_> {
    fn problem(&mut self, kind: ProblemKind, field: &str, message: String) {
        let path = format!("spec.targets[{}].{field}", self.index);
        self.resolved.problems.push(Problem { kind, path, message });
    }

    fn add(&mut self, identity: String, label: String, dial: Option<Dial>) {
        self.resolved.endpoints.push(Endpoint {
            target: self.target.name.clone(),
            identity: identity.into(),
            label: label.into(),
            dial,
            port: None,
            resolve: self.target.resolve,
            optional: self.target.optional,
            probe: self.target.probe.clone(),
        });
    }

    /// An endpoint at an address; `traffic` is the port it serves on, the probe may dial another.
    fn add_address(&mut self, identity: String, traffic: SocketAddr) {
        let dialed = self.target.probe.port().unwrap_or(traffic.port());
        let dial = Dial { host: Host::Address(traffic.ip()), port: Some(dialed) };
        self.add(identity, traffic.to_string(), Some(dial));
    }

    fn service(&mut self, name: &Text) {
        let key = ObjectKey::of(self.check.key.namespace.clone(), name.clone());
        if let Some(refusal) = self.sources.refusal(super::SourceKind::Services, &key.namespace) {
            return self.problem(ProblemKind::Forbidden, "service.name", refusal.to_owned());
        }
        if let Some(refusal) = self.sources.refusal(super::SourceKind::Slices, &key.namespace) {
            return self.problem(ProblemKind::Forbidden, "service.name", refusal.to_owned());
        }
        let Some(service) = self.sources.services.get(&key) else {
            let message =
                format!("Service '{name}' not found in namespace '{}'; create it or correct the name", key.namespace);
            return self.problem(ProblemKind::InvalidReference, "service.name", message);
        };
        if service.external_name {
            let message =
                format!("Service '{name}' is of type ExternalName and has no endpoints; name its host in host instead");
            return self.problem(ProblemKind::InvalidReference, "service.name", message);
        }
        match service_port(service, self.target.port.as_ref()) {
            Ok(port) => {
                let slices = self.sources.slices.get(&key).map(|slices| slices.values()).into_iter().flatten();
                for slice in slices {
                    self.slice(slice, &port.name);
                }
            }
            Err(message) => self.problem(ProblemKind::InvalidReference, "port", message),
        }
    }

    fn slice(&mut self, slice: &SliceFacts, port_name: &str) {
        let Some((_, port)) = slice.ports.iter().find(|(name, _)| **name == *port_name) else { return };
        for endpoint in &slice.endpoints {
            let traffic = SocketAddr::new(endpoint.address, *port);
            let identity = match &endpoint.pod_uid {
                // A pod of two families has one slice, and one address, in each.
                Some(uid) => pod_identity(uid, *port, traffic.is_ipv6()),
                None => format!("address:{traffic}"),
            };
            // While endpoints move from one slice to another they may be in both for a moment.
            let twice = self
                .resolved
                .endpoints
                .iter()
                .any(|other| other.target == self.target.name && *other.identity == *identity);
            if !twice {
                self.add_address(identity, traffic);
            }
        }
    }

    fn pods(&mut self, selector: &PodSelector) {
        let namespace = self.check.key.namespace.clone();
        if let Some(refusal) = self.sources.refusal(super::SourceKind::Pods, &namespace) {
            return self.problem(ProblemKind::Forbidden, "pods", refusal.to_owned());
        }
        let pods = self.sources.pods.get(&namespace);
        let running: Vec<_> = pods
            .into_iter()
            .flat_map(|pods| pods.values())
            .filter(|pod| selector.matches(&pod.labels))
            .filter_map(|pod| Some((pod, pod.running_at?)))
            .collect();
        let mut unnamed = 0;
        let total = running.len();
        for (pod, address) in running {
            match pod_port(pod, self.target) {
                Some(port) => {
                    let identity = pod_identity(&pod.uid, port, false);
                    self.add_address(identity, SocketAddr::new(address, port));
                }
                None => unnamed += 1,
            }
        }
        if unnamed > 0
            && let Some(PortRef::Name(name)) = &self.target.port
        {
            let message = format!(
                "{unnamed} of {total} matching pods have no container port named '{name}'; correct the name, or give the number"
            );
            self.problem(ProblemKind::InvalidReference, "port", message);
        }
    }
}

/// The pod that an identity is of.
#[must_use]
pub fn pod_uid(identity: &str) -> Option<&str> {
    identity.strip_prefix("pod:")?.split(':').next()
}

fn pod_identity(uid: &str, port: u16, second_family: bool) -> String {
    format!("pod:{uid}:{port}{}", if second_family { "/6" } else { "" })
}

/// The port of `pod` that `target` means. A script, or a probe with a port of its own, needs none.
fn pod_port(pod: &PodFacts, target: &Target) -> Option<u16> {
    match &target.port {
        Some(PortRef::Number(number)) => Some(*number),
        Some(PortRef::Name(name)) => pod.named_ports.iter().find(|(known, _)| known == name).map(|(_, number)| *number),
        None => target.probe.port(),
    }
}

/// The port of the Service that is meant: `None` is the only one.
///
/// # Errors
/// Why there is none, for people.
pub fn service_port<'a>(service: &'a ServiceFacts, wanted: Option<&PortRef>) -> Result<&'a ServicePort, String> {
    let name = &service.key.name;
    let known = || {
        let ports = service.ports.iter().map(|port| match &*port.name {
            "" => port.number.to_string(),
            name => format!("{} ({name})", port.number),
        });
        match ports.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => "it has no TCP port".to_owned(),
            list => format!("it has {list}"),
        }
    };
    let found = match wanted {
        None if service.ports.len() == 1 => service.ports.first(),
        None => return Err(format!("Service '{name}' has not exactly one TCP port, so say which: {}", known())),
        Some(PortRef::Number(number)) => service.ports.iter().find(|port| port.number == *number),
        Some(PortRef::Name(wanted)) => service.ports.iter().find(|port| port.name == *wanted),
    };
    found.ok_or_else(|| {
        let wanted = match wanted {
            Some(PortRef::Number(number)) => number.to_string(),
            Some(PortRef::Name(name)) => format!("named '{name}'"),
            None => String::new(),
        };
        format!("Service '{name}' has no TCP port {wanted}; {}", known())
    })
}

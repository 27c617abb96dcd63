//! The rules over the gates, and over what they ask of the targets.

use std::net::IpAddr;

use super::{
    DEFAULT_NAMESPACE, Problems,
    spec_rules::parse_percent,
    target_rules::{check_selector, is_label_name, is_port},
};
use crate::api::{Annotations, EndpointSliceGate, Gate, HealthCheckSpec, IntOrString, PodReadinessGate, rules};

/// A name of the Service itself leads back to what the gate writes. CEL cannot tell: it does not know the namespace.
const HOST_OF_SERVICE: &str =
    "host is the gated Service itself, whose endpoints would be its own address: name the hosts behind it";

pub fn check(spec: &HealthCheckSpec, namespace: Option<&str>, problems: &mut Problems) {
    for (index, gate) in spec.gates.iter().enumerate() {
        let path = format!("spec.gates[{index}]");
        check_gate(gate, &path, problems);
        if let Some(slice) = &gate.endpoint_slice {
            let path = format!("{path}.endpointSlice");
            check_slice(slice, spec, &path, problems);
            check_hosts_of_service(slice, spec, namespace.unwrap_or(DEFAULT_NAMESPACE), problems);
            let earlier = spec.gates[..index].iter().filter_map(|gate| gate.endpoint_slice.as_ref());
            problems.require(
                !earlier.into_iter().any(|other| same_port(other, slice)),
                path,
                rules::SLICES_NOT_DIFFERENT,
            );
        }
        if let Some(readiness) = &gate.pod_readiness {
            let path = format!("{path}.podReadiness");
            check_readiness(readiness, spec, &path, problems);
            let mut earlier = spec.gates[..index].iter().filter_map(|gate| gate.pod_readiness.as_ref());
            let twice = earlier.any(|other| other.condition_type == readiness.condition_type);
            problems.require(!twice, format!("{path}.conditionType"), rules::CONDITIONS_NOT_DIFFERENT);
        }
        if gate.annotation.is_some() {
            let path = format!("{path}.annotation");
            let service = spec.targets.iter().any(|target| target.service.is_some());
            problems.require(service, &path, rules::ANNOTATION_WITHOUT_SERVICE);
            problems.require(spec.annotations == Annotations::On, &path, rules::ANNOTATIONS_OFF);
            let first = spec.gates[..index].iter().all(|gate| gate.annotation.is_none());
            problems.require(first, path, rules::ANNOTATIONS_NOT_ONE);
        }
    }
    if spec.gates.iter().any(|gate| gate.endpoint_slice.is_some()) {
        check_published_targets(spec, problems);
    }
}

fn check_gate(gate: &Gate, path: &str, problems: &mut Problems) {
    let kinds = [gate.endpoint_slice.is_some(), gate.pod_readiness.is_some(), gate.annotation.is_some()];
    problems.require(kinds.into_iter().filter(|given| *given).count() == 1, path, rules::GATE_KIND_NOT_ONE);
    let well_formed = match &gate.min_ready {
        None => true,
        Some(IntOrString::Int(count)) => (0..=rules::MAX_MIN_HEALTHY).contains(count),
        Some(IntOrString::String(text)) => parse_percent(text).is_some(),
    };
    problems.require(well_formed, format!("{path}.minReady"), rules::MIN_READY);
}

fn check_slice(slice: &EndpointSliceGate, spec: &HealthCheckSpec, path: &str, problems: &mut Problems) {
    problems.require(slice.port.as_ref().is_none_or(is_port), format!("{path}.port"), rules::PORT_FORMAT);
    let mut targets = spec.targets.iter();
    let addresses = targets.any(|target| target.host.is_some() || target.service.is_some() || target.pods.is_some());
    problems.require(addresses, path, rules::SLICE_WITHOUT_ADDRESSES);
    let mut services = spec.targets.iter().filter_map(|target| target.service.as_ref());
    let own = services.any(|service| service.name == slice.service);
    problems.require(!own, format!("{path}.service"), rules::SLICE_OF_TARGET);
}

/// Without a port it is the only one there is, so it is the same as any.
fn same_port(one: &EndpointSliceGate, other: &EndpointSliceGate) -> bool {
    one.service == other.service && (one.port.is_none() || other.port.is_none() || one.port == other.port)
}

/// What an `endpointSlice` gate asks of the targets.
fn check_published_targets(spec: &HealthCheckSpec, problems: &mut Problems) {
    for (index, target) in spec.targets.iter().enumerate() {
        let path = format!("spec.targets[{index}]");
        let brings_no_port = target.host.is_some() || target.pods.is_some();
        problems.require(!brings_no_port || target.port.is_some(), format!("{path}.port"), rules::SLICE_WITHOUT_PORT);
        let address = target.host.as_deref().and_then(|host| host.parse::<IpAddr>().ok());
        problems.require(address.is_none_or(is_publishable), format!("{path}.host"), rules::SLICE_ADDRESS);
    }
}

/// Whether an EndpointSlice takes the address, and a client can have a connection to it.
#[must_use]
pub fn is_publishable(address: IpAddr) -> bool {
    let link_local_or_broadcast = match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let address = address.to_canonical();
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local_or_broadcast)
}

fn check_hosts_of_service(slice: &EndpointSliceGate, spec: &HealthCheckSpec, namespace: &str, problems: &mut Problems) {
    let short = format!("{}.{namespace}", slice.service);
    for (index, target) in spec.targets.iter().enumerate() {
        let Some(host) = &target.host else { continue };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let rest = host.strip_prefix(&short);
        let own = rest.is_some_and(|rest| matches!(rest, "" | ".svc") || rest.starts_with(".svc."));
        problems.require(!own, format!("spec.targets[{index}].host"), HOST_OF_SERVICE);
    }
}

fn check_readiness(readiness: &PodReadinessGate, spec: &HealthCheckSpec, path: &str, problems: &mut Problems) {
    let name = readiness.condition_type.strip_prefix(rules::CONDITION_TYPE_PREFIX);
    problems.require(name.is_some_and(is_label_name), format!("{path}.conditionType"), rules::CONDITION_TYPE);
    match &readiness.selector {
        Some(selector) => check_selector(selector, &format!("{path}.selector"), problems),
        None => {
            let pods = spec.targets.iter().any(|target| target.service.is_some() || target.pods.is_some());
            problems.require(pods, path, rules::READINESS_WITHOUT_PODS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same as the API server's, and what CEL's `isGlobalUnicast` says.
    #[test]
    fn an_address_of_a_slice_is_one_that_clients_can_reach() {
        for address in
            ["10.0.0.1", "192.0.2.1", "100.64.0.1", "198.18.0.1", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"]
        {
            assert!(is_publishable(address.parse().expect("an address")), "{address}");
        }
        for address in [
            "0.0.0.0",
            "127.0.0.1",
            "127.8.9.10",
            "169.254.169.254",
            "224.0.0.1",
            "239.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff0e::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.0.1",
        ] {
            assert!(!is_publishable(address.parse().expect("an address")), "{address}");
        }
    }
}

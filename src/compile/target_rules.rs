//! The rules over one target.

use std::net::IpAddr;

use super::{Mode, Problems, probe_rules};
use crate::api::{HealthCheckSpec, IntOrString, LabelSelector, SelectorOperator, Target, probe::Probe, rules};

const SERVICE_NEEDS_CLUSTER: &str =
    "a service target needs a cluster to look its endpoints up: use host when running from files";
const PODS_NEED_CLUSTER: &str = "a pods target needs a cluster to look the pods up: use host when running from files";

pub fn check(target: &Target, spec: &HealthCheckSpec, path: &str, mode: Mode, problems: &mut Problems) {
    check_place(target, path, problems);
    check_port(target, path, problems);
    problems.require(
        target.host.is_some() || target.resolve.is_none(),
        format!("{path}.resolve"),
        rules::RESOLVE_WITHOUT_HOST,
    );
    if let Some(host) = &target.host {
        problems.require(is_host(host), format!("{path}.host"), rules::HOST_FORMAT);
    }
    if let Some(pods) = &target.pods {
        check_selector(&pods.selector, &format!("{path}.pods.selector"), problems);
    }
    if mode == Mode::Standalone {
        problems.require(target.service.is_none(), format!("{path}.service"), SERVICE_NEEDS_CLUSTER);
        problems.require(target.pods.is_none(), format!("{path}.pods"), PODS_NEED_CLUSTER);
    }
    if let Some(probe) = &target.probe {
        probe_rules::check(probe, &format!("{path}.probe"), mode, problems);
    }
    check_probe_fits(target, target.probe.as_ref().or(spec.probe.as_ref()), path, problems);
}

fn check_place(target: &Target, path: &str, problems: &mut Problems) {
    let places =
        [target.host.is_some(), target.service.is_some(), target.pods.is_some(), target.health_check.is_some()];
    problems.require(places.into_iter().filter(|given| *given).count() <= 1, path, rules::PLACE_NOT_ONE);
    if target.health_check.is_some() {
        problems.require(target.port.is_none(), format!("{path}.port"), rules::COMPOSITE_WITH_PORT);
        problems.require(target.probe.is_none(), format!("{path}.probe"), rules::COMPOSITE_WITH_PROBE);
    }
    let addresses = target.host.is_some() || target.service.is_some() || target.pods.is_some();
    problems.require(addresses || target.zone.is_none(), format!("{path}.zone"), rules::ZONE_WITHOUT_ADDRESSES);
}

fn check_port(target: &Target, path: &str, problems: &mut Problems) {
    let Some(port) = &target.port else { return };
    let path = format!("{path}.port");
    problems.require(is_port(port), &path, rules::PORT_FORMAT);
    problems.require(has_place(target), &path, rules::PORT_WITHOUT_PLACE);
    let named = matches!(port, IntOrString::String(_));
    problems.require(!(named && target.host.is_some()), &path, rules::PORT_NAME_ON_HOST);
}

/// The number of a port, or a name it may have.
pub fn is_port(port: &IntOrString) -> bool {
    match port {
        IntOrString::Int(number) => (1..=65535).contains(number),
        IntOrString::String(name) => is_port_name(name),
    }
}

/// A script alone may be nowhere; all else needs a port, which a Service or a scheme may bring.
fn check_probe_fits(target: &Target, probe: Option<&Probe>, path: &str, problems: &mut Problems) {
    let script = probe.is_some_and(|probe| probe.script.is_some());
    problems.require(has_place(target) || script, path, rules::PLACE_MISSING);

    let needs_port = target.host.is_some() || target.pods.is_some();
    let tcp_port = probe.and_then(|probe| probe.tcp.as_ref()).is_some_and(|tcp| tcp.port.is_some());
    let http_port =
        probe.and_then(|probe| probe.http.as_ref()).is_some_and(|http| target.host.is_some() || http.port.is_some());
    let grpc_port = probe.and_then(|probe| probe.grpc.as_ref()).is_some_and(|grpc| grpc.port.is_some());
    let has_port = target.port.is_some() || script || tcp_port || http_port || grpc_port;
    problems.require(!needs_port || has_port, format!("{path}.port"), rules::PORT_MISSING);
}

fn has_place(target: &Target) -> bool {
    target.host.is_some() || target.service.is_some() || target.pods.is_some() || target.health_check.is_some()
}

pub fn check_selector(selector: &LabelSelector, path: &str, problems: &mut Problems) {
    let empty = selector.match_labels.is_empty() && selector.match_expressions.is_empty();
    problems.require(!empty, path, rules::SELECTOR_EMPTY);
    let labels = selector.match_labels.iter().all(|(key, value)| is_label_key(key) && is_label_value(value));
    problems.require(labels, format!("{path}.matchLabels"), rules::SELECTOR_LABELS);
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let takes_values = matches!(requirement.operator, SelectorOperator::In | SelectorOperator::NotIn);
        let path = format!("{path}.matchExpressions[{index}].values");
        problems.require(takes_values != requirement.values.is_empty(), path, rules::SELECTOR_VALUES);
    }
}

/// An IP address, or a DNS name whose last label is not digits alone (that would be a mistyped address).
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    !numeric && name.split('.').all(is_dns_name_label)
}

/// Up to 63 letters, digits, `-` and `_`, with no `-` at either end. `_` is no letter of host names, but real zones
/// have it.
fn is_dns_name_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
}

/// RFC 6335, section 5.1: letters, digits and single `-` between them, at least one letter.
fn is_port_name(name: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.len() <= IntOrString::MAX_LENGTH
        && name.split('-').all(part)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
}

pub fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_label_prefix(prefix) && is_label_name(name),
        None => is_label_name(key),
    }
}

fn is_label_prefix(prefix: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    prefix.len() <= 253 && prefix.bytes().all(allowed) && edge(prefix.bytes().next()) && edge(prefix.bytes().last())
}

pub fn is_label_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 63 && name.bytes().all(allowed) && edge(name.bytes().next()) && edge(name.bytes().last())
}

pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_label_name(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_or_names() {
        for host in ["10.0.0.1", "fd00::1", "db", "db-1.corp.example", "db.corp.example.", "_sip.x", "a_b", "1a", "1.a"]
        {
            assert!(is_host(host), "{host}");
        }
        let long = "a".repeat(64);
        for host in [
            "",
            ".",
            "10.0.0.300",
            "10.0.0",
            "[::1]",
            "db:5432",
            "http://db",
            "db/x",
            "-a",
            "a-",
            "a..b",
            "ä",
            &long,
            "1",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }

    #[test]
    fn port_names_are_those_of_the_rfc() {
        for name in ["http", "p-1", "8080a", "a"] {
            assert!(is_port_name(name), "{name}");
        }
        for name in ["", "8080", "Http", "a--b", "-a", "a-", "a_b", "sixteen-letters-"] {
            assert!(!is_port_name(name), "{name}");
        }
    }
}

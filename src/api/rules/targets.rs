//! The rules of `spec.targets`.

use kube::core::Rule;

pub const PLACE_NOT_ONE: &str = "a target takes one of host, service, pods and healthCheck: remove the others";
pub const PLACE_MISSING: &str =
    "a target without host, service, pods or healthCheck needs a script probe: add one of them, or probe.script";
pub const COMPOSITE_WITH_PORT: &str = "a healthCheck target takes the verdict of that object: remove port";
pub const COMPOSITE_WITH_PROBE: &str = "a healthCheck target takes the verdict of that object: remove probe";
pub const PORT_WITHOUT_PLACE: &str = "port means nothing without host, service or pods: remove port or add one of them";
pub const PORT_NAME_ON_HOST: &str = "a host has no named ports: write port as a number, without quotes";
pub const PORT_MISSING: &str =
    "a tcp, http or grpc probe has no port to connect to: add port to the target or to its probe";

#[must_use]
pub fn one_place() -> Rule {
    Rule::new("[has(self.host), has(self.service), has(self.pods), has(self.healthCheck)].filter(x, x).size() <= 1")
        .message(PLACE_NOT_ONE)
}

#[must_use]
pub fn composite_without_port() -> Rule {
    Rule::new("!has(self.healthCheck) || !has(self.port)").message(COMPOSITE_WITH_PORT).field_path(".port")
}

#[must_use]
pub fn composite_without_probe() -> Rule {
    Rule::new("!has(self.healthCheck) || !has(self.probe)").message(COMPOSITE_WITH_PROBE).field_path(".probe")
}

#[must_use]
pub fn port_has_place() -> Rule {
    Rule::new("!has(self.port) || has(self.host) || has(self.service) || has(self.pods) || has(self.healthCheck)")
        .message(PORT_WITHOUT_PLACE)
        .field_path(".port")
}

#[must_use]
pub fn host_port_is_number() -> Rule {
    Rule::new("!has(self.host) || !has(self.port) || type(self.port) == int")
        .message(PORT_NAME_ON_HOST)
        .field_path(".port")
}

#[must_use]
pub fn placeless_targets_are_scripts() -> Rule {
    Rule::new(
        "self.targets.all(t, has(t.host) || has(t.service) || has(t.pods) || has(t.healthCheck) || \
         (has(t.probe) ? has(t.probe.script) : (has(self.probe) && has(self.probe.script))))",
    )
    .message(PLACE_MISSING)
    .field_path(".targets")
}

/// Targets whose port nothing can fill in: a host asked by TCP (HTTP has the port of its scheme), and pods.
#[must_use]
pub fn targets_have_ports() -> Rule {
    let own = "has(t.probe.script) || (has(t.probe.tcp) && has(t.probe.tcp.port)) || \
               (has(t.probe.grpc) && has(t.probe.grpc.port)) || \
               (has(t.probe.http) && (has(t.host) || has(t.probe.http.port)))";
    let shared = own.replace("t.probe.", "self.probe.");
    Rule::new(format!(
        "self.targets.all(t, !(has(t.host) || has(t.pods)) || has(t.port) || \
         (has(t.probe) ? ({own}) : (has(self.probe) && ({shared}))))"
    ))
    .message(PORT_MISSING)
    .field_path(".targets")
}

pub const HOST_FORMAT: &str =
    "host must be an IP address (IPv6 without brackets) or a DNS name, without scheme, port or path";
pub const SERVER_NAME_FORMAT: &str =
    "serverName must be an IP address (IPv6 without brackets) or a DNS name, without scheme, port or path";
/// Labels of letters, digits, `-` and `_` (which real zones have), parted by dots, perhaps a dot at the end.
pub const DNS_NAME_PATTERN: &str =
    "^([0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?[.])*[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?[.]?$";
/// A last label of digits alone is a mistyped address, never a name (RFC 3696, section 2).
const DIGITS_AT_END: &str = "(^|[.])[0-9]+[.]?$";

#[must_use]
pub fn host_format(message: &'static str) -> Rule {
    Rule::new(format!("isIP(self) || (self.matches('{DNS_NAME_PATTERN}') && !self.matches('{DIGITS_AT_END}'))"))
        .message(message)
}

pub const PORT_FORMAT: &str = "port must be a number from 1 to 65535 without quotes, or a port name of at most 15 lower-case letters, digits and single '-', with at least one letter";

/// Port names as RFC 6335, section 5.1, has them.
#[must_use]
pub fn port_format() -> Rule {
    Rule::new(
        "type(self) == int ? (self >= 1 && self <= 65535) : \
         (self.matches('^[0-9a-z]+(-[0-9a-z]+)*$') && self.matches('[a-z]'))",
    )
    .message(PORT_FORMAT)
}

pub const SELECTOR_EMPTY: &str =
    "an empty selector would match every pod of the namespace: add matchLabels or matchExpressions";
pub const SELECTOR_VALUES: &str = "In and NotIn need values; Exists and DoesNotExist take none";
pub const SELECTOR_LABELS: &str =
    "matchLabels must hold label keys and label values: [prefix/]name of at most 63 letters, digits, '-', '_' and '.'";

#[must_use]
pub fn selector_selects() -> Rule {
    Rule::new(
        "(has(self.matchLabels) && self.matchLabels.size() > 0) || \
         (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
    )
    .message(SELECTOR_EMPTY)
}

#[must_use]
pub fn selector_values() -> Rule {
    Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && self.values.size() > 0)")
        .message(SELECTOR_VALUES)
        .field_path(".values")
}

/// A label key: an optional DNS prefix, and a name.
pub const LABEL_KEY_PATTERN: &str =
    "^([0-9a-z]([-0-9a-z.]{0,251}[0-9a-z])?/)?[0-9A-Za-z]([-0-9A-Za-z_.]{0,61}[0-9A-Za-z])?$";
/// A label value, which may be empty.
pub const LABEL_VALUE_PATTERN: &str = "^([0-9A-Za-z]([-0-9A-Za-z_.]{0,61}[0-9A-Za-z])?)?$";

#[must_use]
pub fn selector_labels() -> Rule {
    Rule::new(format!(
        "self.all(key, key.matches('{LABEL_KEY_PATTERN}') && self[key].matches('{LABEL_VALUE_PATTERN}'))"
    ))
    .message(SELECTOR_LABELS)
}

pub const RESOLVE_WITHOUT_HOST: &str =
    "resolve is about the addresses of a host given by name: remove resolve or set host";

#[must_use]
pub fn resolve_has_host() -> Rule {
    Rule::new("!has(self.resolve) || has(self.host)").message(RESOLVE_WITHOUT_HOST).field_path(".resolve")
}

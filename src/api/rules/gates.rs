//! The rules over `spec.gates`, and over targets that a gate publishes.
//!
//! Those over the whole spec compare each of at most 8 gates with each of at most 64 targets, or with the other gates.

use kube::core::Rule;

use super::MAX_MIN_HEALTHY;

pub const GATE_KIND_NOT_ONE: &str = "a gate takes exactly one of endpointSlice, podReadiness and annotation";

#[must_use]
pub fn one_gate_kind() -> Rule {
    Rule::new("[has(self.endpointSlice), has(self.podReadiness), has(self.annotation)].filter(x, x).size() == 1")
        .message(GATE_KIND_NOT_ONE)
}

pub const MIN_READY: &str = "minReady must be a number from 0 to 100000 or a percentage from \"0%\" to \"100%\"";

#[must_use]
pub fn min_ready() -> Rule {
    Rule::new(format!(
        "type(self) == int ? (self >= 0 && self <= {MAX_MIN_HEALTHY}) : self.matches('^(100|[1-9]?[0-9])%$')"
    ))
    .message(MIN_READY)
}

/// What every condition type of ours begins with, so that whose it is can be read off a pod.
pub const CONDITION_TYPE_PREFIX: &str = "healthcheck-operator.dev/";
/// The prefix, and a name of 63 characters.
pub const MAX_CONDITION_TYPE: usize = CONDITION_TYPE_PREFIX.len() + 63;
pub const CONDITION_TYPE: &str = "conditionType must begin with healthcheck-operator.dev/ and go on with at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends";
const CONDITION_TYPE_PATTERN: &str = "^healthcheck-operator[.]dev/[0-9A-Za-z]([-0-9A-Za-z_.]{0,61}[0-9A-Za-z])?$";

#[must_use]
pub fn condition_type() -> Rule {
    Rule::new(format!("self.matches('{CONDITION_TYPE_PATTERN}')")).message(CONDITION_TYPE)
}

pub const ZONE_WITHOUT_ADDRESSES: &str =
    "zone means nothing without host, service or pods: remove zone or add one of them";

#[must_use]
pub fn zone_has_addresses() -> Rule {
    Rule::new("!has(self.zone) || has(self.host) || has(self.service) || has(self.pods)")
        .message(ZONE_WITHOUT_ADDRESSES)
        .field_path(".zone")
}

pub const SLICE_WITHOUT_ADDRESSES: &str =
    "no target has an address that an endpointSlice gate could publish: add a host, service or pods target";
pub const SLICE_WITHOUT_PORT: &str =
    "an endpointSlice gate publishes the target's own port, never that of its probe: add port to the target";
pub const SLICE_ADDRESS: &str = "an EndpointSlice takes no loopback, link-local, multicast, broadcast or unspecified address: give the one that clients reach the target by";
pub const SLICE_OF_TARGET: &str = "a target is this very Service, whose endpoints would be what the gate writes: gate another Service, or name its hosts or pods in targets";
pub const SLICES_NOT_DIFFERENT: &str = "two endpointSlice gates write the same port of the same Service: remove one, or give both the name of a different port";

/// `rule` where some gate is an `endpointSlice` gate.
fn with_slices(rule: &str) -> String {
    format!("!has(self.gates) || !self.gates.exists(g, has(g.endpointSlice)) || {rule}")
}

#[must_use]
pub fn endpoint_slice_gate_has_addresses() -> Rule {
    Rule::new(with_slices("self.targets.exists(t, has(t.host) || has(t.service) || has(t.pods))"))
        .message(SLICE_WITHOUT_ADDRESSES)
        .field_path(".gates")
}

/// A Service may bring its own port; a host and pods bring none.
#[must_use]
pub fn endpoint_slice_gate_has_ports() -> Rule {
    Rule::new(with_slices("self.targets.all(t, has(t.port) || !(has(t.host) || has(t.pods)))"))
        .message(SLICE_WITHOUT_PORT)
        .field_path(".targets")
}

/// `ValidateEndpointIP` of the API server refuses loopback, link-local and unspecified addresses; no client has a
/// connection to the others.
#[must_use]
pub fn endpoint_slice_gate_takes_addresses() -> Rule {
    Rule::new(with_slices("self.targets.all(t, !has(t.host) || !isIP(t.host) || ip(t.host).isGlobalUnicast())"))
        .message(SLICE_ADDRESS)
        .field_path(".targets")
}

#[must_use]
pub fn endpoint_slice_gate_is_no_target() -> Rule {
    Rule::new(
        "!has(self.gates) || self.gates.all(g, !has(g.endpointSlice) || \
         !self.targets.exists(t, has(t.service) && t.service.name == g.endpointSlice.service))",
    )
    .message(SLICE_OF_TARGET)
    .field_path(".gates")
}

/// A gate without a port is about the only one there is, so it meets every other gate of its Service.
#[must_use]
pub fn endpoint_slice_gates_differ() -> Rule {
    Rule::new(
        "!has(self.gates) || self.gates.all(g, !has(g.endpointSlice) || self.gates.exists_one(h, \
         has(h.endpointSlice) && h.endpointSlice.service == g.endpointSlice.service && \
         (!has(g.endpointSlice.port) || !has(h.endpointSlice.port) || g.endpointSlice.port == h.endpointSlice.port)))",
    )
    .message(SLICES_NOT_DIFFERENT)
    .field_path(".gates")
}

pub const READINESS_WITHOUT_PODS: &str = "a podReadiness gate without selector is about the pods of the targets, and there are none: add a service or pods target, or selector";
pub const CONDITIONS_NOT_DIFFERENT: &str =
    "two podReadiness gates write the same conditionType: remove one, or give it another conditionType";

#[must_use]
pub fn pod_readiness_gate_has_pods() -> Rule {
    Rule::new(
        "!has(self.gates) || self.gates.all(g, !has(g.podReadiness) || has(g.podReadiness.selector)) || \
         self.targets.exists(t, has(t.service) || has(t.pods))",
    )
    .message(READINESS_WITHOUT_PODS)
    .field_path(".gates")
}

#[must_use]
pub fn pod_readiness_gates_differ() -> Rule {
    Rule::new(
        "!has(self.gates) || self.gates.all(g, !has(g.podReadiness) || self.gates.exists_one(h, \
         has(h.podReadiness) && h.podReadiness.conditionType == g.podReadiness.conditionType))",
    )
    .message(CONDITIONS_NOT_DIFFERENT)
    .field_path(".gates")
}

pub const ANNOTATION_WITHOUT_SERVICE: &str =
    "an annotation gate annotates the EndpointSlices of service targets, and there are none: add a service target";
pub const ANNOTATIONS_NOT_ONE: &str = "one annotation gate is about every service target: remove the others";
pub const ANNOTATIONS_OFF: &str =
    "an annotation gate does nothing while annotations is Off: set annotations to On or remove the gate";

#[must_use]
pub fn annotation_gate_has_service() -> Rule {
    Rule::new("!has(self.gates) || !self.gates.exists(g, has(g.annotation)) || self.targets.exists(t, has(t.service))")
        .message(ANNOTATION_WITHOUT_SERVICE)
        .field_path(".gates")
}

#[must_use]
pub fn annotation_gate_is_one() -> Rule {
    Rule::new("!has(self.gates) || self.gates.filter(g, has(g.annotation)).size() <= 1")
        .message(ANNOTATIONS_NOT_ONE)
        .field_path(".gates")
}

#[must_use]
pub fn annotation_gate_is_on() -> Rule {
    Rule::new("!has(self.gates) || self.annotations == 'On' || !self.gates.exists(g, has(g.annotation))")
        .message(ANNOTATIONS_OFF)
        .field_path(".gates")
}

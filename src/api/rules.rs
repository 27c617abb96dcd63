//! The rules of the schema: what is asked (CEL), and the message that names the mend.
//!
//! Each message stands here once, for the API server, for `compile` and for the tests that hold the two together.
//! Everything a rule touches has a bounded length, or the API server refuses the CRD as too expensive.

mod gates;
mod targets;

use kube::core::Rule;

use super::Duration;

pub use gates::*;
pub use targets::*;

/// A span from `min` to `max`, both included, with the message for what lies outside.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
    pub message: &'static str,
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

macro_rules! interval_span {
    ($field:literal) => {
        Span { min: SHORTEST_INTERVAL, max: LONGEST_INTERVAL, message: concat!($field, " must be from 100ms to 24h") }
    };
}

pub const INTERVAL: Span = interval_span!("interval");
pub const UNHEALTHY_INTERVAL: Span = interval_span!("unhealthyInterval");
pub const CONFIRM_INTERVAL: Span = interval_span!("confirmInterval");
pub const TIMEOUT: Span =
    Span { min: Duration::from_millis(1), max: LONGEST_INTERVAL, message: "timeout must be from 1ms to 24h" };
/// 30 days: ten times the default of the longest interval.
pub const STALE_AFTER: Span = Span {
    min: SHORTEST_INTERVAL,
    max: Duration::from_secs(720 * 3600),
    message: "staleAfter must be from 100ms to 720h",
};

impl Span {
    /// Whether `duration` lies inside.
    #[must_use]
    pub fn contains(&self, duration: Duration) -> bool {
        self.min <= duration && duration <= self.max
    }

    /// The rule for a field of type [`Duration`]. A text that is no duration gets the pattern's message alone.
    #[must_use]
    pub fn rule(&self) -> Rule {
        let Self { min, max, message } = self;
        Rule::new(format!(
            "!self.matches('{}') || (duration(self) >= duration('{min}') && duration(self) <= duration('{max}'))",
            Duration::PATTERN
        ))
        .message(*message)
    }
}

pub const TIMEOUT_ABOVE_INTERVAL: &str = "timeout must not be above interval: lower timeout or raise interval";
pub const TIMEOUT_ABOVE_UNHEALTHY_INTERVAL: &str =
    "timeout must not be above unhealthyInterval: lower timeout or raise unhealthyInterval";
pub const TIMEOUT_ABOVE_CONFIRM_INTERVAL: &str =
    "timeout must not be above confirmInterval: lower timeout or raise confirmInterval";
pub const STALE_AFTER_NOT_ABOVE_INTERVAL: &str =
    "staleAfter must be above interval, or every verdict is stale before the next: raise staleAfter";
pub const STALE_AFTER_NOT_ABOVE_UNHEALTHY_INTERVAL: &str =
    "staleAfter must be above unhealthyInterval, or every verdict is stale before the next: raise staleAfter";
pub const STALE_AFTER_NOT_ABOVE_CONFIRM_INTERVAL: &str =
    "staleAfter must be above confirmInterval, or every verdict is stale before the next: raise staleAfter";

/// The duration at `left` stands in relation `operator` to the one at `right`; absent and malformed ones pass.
fn compare(left: &str, operator: &str, right: &str, message: &'static str) -> Rule {
    let pattern = Duration::PATTERN;
    Rule::new(format!(
        "!has(self.{left}) || !has(self.{right}) || !self.{left}.matches('{pattern}') || \
         !self.{right}.matches('{pattern}') || duration(self.{left}) {operator} duration(self.{right})"
    ))
    .message(message)
    .field_path(format!(".{left}"))
}

#[must_use]
pub fn timeout_within(interval: &str, message: &'static str) -> Rule {
    compare("timeout", "<=", interval, message)
}

#[must_use]
pub fn stale_after_above(interval: &str, message: &'static str) -> Rule {
    compare("staleAfter", ">", interval, message)
}

pub const CONNECT_THRESHOLD_UNREACHABLE: &str =
    "failureThresholds.connect above failureThreshold can never be reached: raise failureThreshold to it";
pub const HTTP_THRESHOLD_UNREACHABLE: &str =
    "failureThresholds.http above failureThreshold can never be reached: raise failureThreshold to it";
pub const TIMEOUT_THRESHOLD_UNREACHABLE: &str =
    "failureThresholds.timeout above failureThreshold can never be reached: raise failureThreshold to it";

#[must_use]
pub fn reachable_threshold(class: &str, message: &'static str) -> Rule {
    Rule::new(format!(
        "!has(self.failureThresholds) || !has(self.failureThresholds.{class}) || \
         self.failureThresholds.{class} <= self.failureThreshold"
    ))
    .message(message)
    .field_path(format!(".failureThresholds.{class}"))
}

/// The largest `minHealthy` count.
pub const MAX_MIN_HEALTHY: i64 = 100_000;
pub const MIN_HEALTHY: &str = "minHealthy must be a number from 0 to 100000 or a percentage from \"0%\" to \"100%\"";
pub const MIN_HEALTHY_IMPOSSIBLE: &str =
    "minHealthy is above the number of targets that are not optional: lower minHealthy or add targets";

#[must_use]
pub fn min_healthy() -> Rule {
    Rule::new(format!(
        "type(self) == int ? (self >= 0 && self <= {MAX_MIN_HEALTHY}) : self.matches('^(100|[1-9]?[0-9])%$')"
    ))
    .message(MIN_HEALTHY)
}

/// A `service` or `pods` target has as many members as it has endpoints, so nothing can be said before they are known.
#[must_use]
pub fn min_healthy_possible() -> Rule {
    Rule::new(
        "type(self.minHealthy) != int || self.targets.exists(t, has(t.service) || has(t.pods)) || \
         self.minHealthy <= self.targets.filter(t, !t.optional).size()",
    )
    .message(MIN_HEALTHY_IMPOSSIBLE)
    .field_path(".minHealthy")
}

/// `metadata.name` may have 253 characters; the name part of an annotation key 63.
pub const MAX_NAME: usize = 63;
pub const NAME_TOO_LONG: &str =
    "metadata.name must have at most 63 characters, so that it fits into an annotation key: shorten it";

#[must_use]
pub fn name_fits() -> Rule {
    Rule::new(format!("self.metadata.name.size() <= {MAX_NAME}")).message(NAME_TOO_LONG)
}

pub const PROBE_NOT_ONE: &str =
    "a probe takes exactly one of tcp, http, grpc and script: write tcp: {} for one with nothing to set";
/// Names of services, or "".
pub const GRPC_SERVICE_PATTERN: &str = "^[!-~]*$";
/// A name or address, an IPv6 one in brackets, and perhaps a port (RFC 3986, section 3.2).
pub const AUTHORITY_PATTERN: &str = "^([0-9A-Za-z._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$";

#[must_use]
pub fn one_probe() -> Rule {
    Rule::new("[has(self.tcp), has(self.http), has(self.grpc), has(self.script)].filter(x, x).size() == 1")
        .message(PROBE_NOT_ONE)
}

pub const PATH_FORMAT: &str =
    "path must begin with '/' and be visible ASCII without '#': percent-encode everything else";

#[must_use]
pub fn path_format() -> Rule {
    Rule::new("self.matches('^/[!\"$-~]*$')").message(PATH_FORMAT)
}

pub const STATUSES: &str =
    "expectedStatuses takes statuses from 100 to 599 and ranges such as \"200-399\", lower end first";
pub const UNHEALTHY_STATUSES: &str =
    "unhealthyStatuses takes statuses from 100 to 599 and ranges such as \"500-599\", lower end first";

pub const HEALTHY_STATUSES: &str =
    "healthyStatuses takes statuses from 100 to 599 and ranges such as \"200-399\", lower end first";
pub const EJECTION_TIME: Span =
    Span { min: Duration::from_secs(1), max: LONGEST_INTERVAL, message: "ejectionTime must be from 1s to 24h" };
pub const EJECTION_TIME_WITH_PROBES: &str = "ejectionTime has no effect where endpoints are probed, as they return by \
     their probe: set activeProbes to Off or remove ejectionTime";

#[must_use]
pub fn ejection_time_without_probes() -> Rule {
    Rule::new("!has(self.ejectionTime) || self.activeProbes == 'Off'")
        .message(EJECTION_TIME_WITH_PROBES)
        .field_path(".ejectionTime")
}

pub const NO_TRAFFIC_INTERVAL: Span = interval_span!("noTrafficInterval");
pub const NO_TRAFFIC_INTERVAL_WITHOUT_PROBES: &str = "noTrafficInterval has no effect where nothing is probed: set \
     activeProbes to On or remove noTrafficInterval";
pub const NO_TRAFFIC_INTERVAL_BELOW_INTERVAL: &str = "noTrafficInterval must not be below interval, as endpoints without \
     traffic are probed less often: raise noTrafficInterval or remove it";
pub const STALE_AFTER_NOT_ABOVE_NO_TRAFFIC_INTERVAL: &str =
    "staleAfter must be above passive.noTrafficInterval, or every verdict is stale before the next: raise staleAfter";

#[must_use]
pub fn no_traffic_interval_with_probes() -> Rule {
    Rule::new("!has(self.noTrafficInterval) || self.activeProbes == 'On'")
        .message(NO_TRAFFIC_INTERVAL_WITHOUT_PROBES)
        .field_path(".noTrafficInterval")
}

/// The one of `spec.passive` stands in relation `operator` to the duration at `field`.
fn compare_no_traffic(operator: &str, field: &str, message: &'static str) -> Rule {
    let pattern = Duration::PATTERN;
    Rule::new(format!(
        "!has(self.passive) || !has(self.passive.noTrafficInterval) || !has(self.{field}) || \
         !self.passive.noTrafficInterval.matches('{pattern}') || !self.{field}.matches('{pattern}') || \
         duration(self.passive.noTrafficInterval) {operator} duration(self.{field})"
    ))
    .message(message)
}

#[must_use]
pub fn no_traffic_interval_not_below_interval() -> Rule {
    compare_no_traffic(">=", "interval", NO_TRAFFIC_INTERVAL_BELOW_INTERVAL).field_path(".passive.noTrafficInterval")
}

#[must_use]
pub fn stale_after_above_no_traffic_interval() -> Rule {
    compare_no_traffic("<", "staleAfter", STALE_AFTER_NOT_ABOVE_NO_TRAFFIC_INTERVAL).field_path(".staleAfter")
}

#[must_use]
pub fn statuses(message: &'static str) -> Rule {
    Rule::new(
        "self.all(s, type(s) == int ? (s >= 100 && s <= 599) : \
         (s.matches('^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$') && \
         (s.size() == 3 || s.substring(0, 3) <= s.substring(4))))",
    )
    .message(message)
}

pub const BODY_WITHOUT_METHOD: &str = "body is sent with POST and PUT alone: set method to one of them or remove body";
pub const EXPECTED_BODY_WITH_HEAD: &str = "an answer to HEAD has no body: set method to another or remove expectedBody";
pub const BODY_RULE_NOT_ONE: &str = "expectedBody takes exactly one of contains, regex and jsonPointer";
pub const POINTER_WITHOUT_EQUALS: &str = "jsonPointer and equals go together: add the other, or remove both";
pub const REGEX_FORMAT: &str = "regex is not a regular expression";
/// Tokens behind slashes, in which `~` stands as `~0` and `/` as `~1` (RFC 6901, section 3).
pub const JSON_POINTER_PATTERN: &str = "^(/([^/~]|~[01])*)*$";
pub const MAX_LATENCY: Span =
    Span { min: Duration::from_millis(1), max: LONGEST_INTERVAL, message: "maxLatency must be from 1ms to 24h" };
pub const MAX_LATENCY_ABOVE_TIMEOUT: &str = "maxLatency above timeout never decides: lower it or raise timeout, \
     which is 2s, or the shortest interval, where it is not written";
pub const MIN_CERTIFICATE_VALIDITY: Span = Span {
    min: Duration::from_secs(1),
    max: Duration::from_secs(87_600 * 3600),
    message: "minCertificateValidity must be from 1s to 87600h",
};
pub const VALIDITY_WITHOUT_HTTPS: &str =
    "minCertificateValidity has no effect with scheme HTTP: set scheme to HTTPS or remove minCertificateValidity";

#[must_use]
pub fn body_with_method() -> Rule {
    Rule::new("!has(self.body) || self.method in ['POST', 'PUT']").message(BODY_WITHOUT_METHOD).field_path(".body")
}

#[must_use]
pub fn expected_body_with_method() -> Rule {
    Rule::new("!has(self.expectedBody) || self.method != 'HEAD'")
        .message(EXPECTED_BODY_WITH_HEAD)
        .field_path(".expectedBody")
}

#[must_use]
pub fn one_body_rule() -> Rule {
    Rule::new("[has(self.contains), has(self.regex), has(self.jsonPointer)].filter(x, x).size() == 1")
        .message(BODY_RULE_NOT_ONE)
}

#[must_use]
pub fn pointer_with_equals() -> Rule {
    Rule::new("has(self.jsonPointer) == has(self.equals)").message(POINTER_WITHOUT_EQUALS)
}

#[must_use]
pub fn validity_with_https() -> Rule {
    Rule::new("!has(self.minCertificateValidity) || self.scheme == 'HTTPS'")
        .message(VALIDITY_WITHOUT_HTTPS)
        .field_path(".minCertificateValidity")
}

/// RFC 4648, section 4: the standard alphabet, with its padding.
pub const BASE64_PATTERN: &str = "^([0-9A-Za-z+/]{4})*([0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?$";

pub const TLS_WITHOUT_HTTPS: &str = "tls has no effect with scheme HTTP: set scheme to HTTPS or remove tls";

#[must_use]
pub fn tls_with_https() -> Rule {
    Rule::new("!has(self.tls) || self.scheme == 'HTTPS'").message(TLS_WITHOUT_HTTPS).field_path(".tls")
}

pub const CA_WITHOUT_VERIFY: &str = "caRef has no effect with mode SkipVerify: set mode to Verify or remove caRef";
pub const CA_NOT_ONE: &str = "caRef takes exactly one of configMap and secret";

#[must_use]
pub fn ca_with_verify() -> Rule {
    Rule::new("!has(self.caRef) || self.mode == 'Verify'").message(CA_WITHOUT_VERIFY).field_path(".caRef")
}

#[must_use]
pub fn one_ca() -> Rule {
    Rule::new("has(self.configMap) != has(self.secret)").message(CA_NOT_ONE)
}

/// Headers that belong to one connection (RFC 9110, section 7.6.1), or that the client must set by itself.
pub const FORBIDDEN_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
pub const FORBIDDEN_HEADER_PREFIX: &str = "x-forwarded-";
pub const HEADER_FORBIDDEN: &str = "hop-by-hop headers, X-Forwarded-*, Host and Content-Length cannot be set: remove the header (for Host use the field host)";
pub const HEADER_SOURCE_NOT_ONE: &str = "a header takes exactly one of value and valueFrom";

#[must_use]
pub fn header_allowed() -> Rule {
    let list = FORBIDDEN_HEADERS.map(|name| format!("'{name}'")).join(", ");
    Rule::new(format!("!(self.lowerAscii() in [{list}]) && !self.lowerAscii().startsWith('{FORBIDDEN_HEADER_PREFIX}')"))
        .message(HEADER_FORBIDDEN)
}

#[must_use]
pub fn one_header_source() -> Rule {
    Rule::new("has(self.value) != has(self.valueFrom)").message(HEADER_SOURCE_NOT_ONE)
}

/// Header names are tokens (RFC 9110, section 5.1).
pub const HEADER_NAME_PATTERN: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// Visible ASCII, blanks only between.
pub const HEADER_VALUE_PATTERN: &str = "^([!-~]([\\t -~]*[!-~])?)?$";

pub const SCRIPT_NOT_ONE: &str = "a script takes exactly one of command and source";
pub const SCRIPT_TIMEOUT: Span = Span {
    min: Duration::from_millis(1),
    max: LONGEST_INTERVAL,
    message: "timeout of a script must be from 1ms to 24h",
};
pub const SCRIPT_TIMEOUT_ABOVE_INTERVAL: &str =
    "timeout of the script must not be above interval, unhealthyInterval or confirmInterval: lower it or raise them";
pub const ENV_RESERVED: &str = "names that begin with HEALTHCHECK_TARGET_ are set by the operator: choose another name";
pub const ENV_RESERVED_PREFIX: &str = "HEALTHCHECK_TARGET_";
pub const ENV_NAME_PATTERN: &str = "^[A-Za-z_][0-9A-Za-z_]*$";
pub const NO_NUL_PATTERN: &str = "^[^\\x00]*$";

#[must_use]
pub fn one_script() -> Rule {
    Rule::new("has(self.command) != has(self.source)").message(SCRIPT_NOT_ONE)
}

#[must_use]
pub fn env_not_reserved() -> Rule {
    Rule::new(format!("!self.startsWith('{ENV_RESERVED_PREFIX}')")).message(ENV_RESERVED)
}

/// The default probe's script ends within every interval.
#[must_use]
pub fn script_timeout_within_intervals() -> Rule {
    Rule::new(format!(
        "!has(self.probe) || !has(self.probe.script) || !has(self.probe.script.timeout) || {}",
        within_every_interval("self.probe.script.timeout")
    ))
    .message(SCRIPT_TIMEOUT_ABOVE_INTERVAL)
    .field_path(".probe.script.timeout")
}

/// The targets' own scripts end within every interval.
#[must_use]
pub fn target_script_timeouts_within_intervals() -> Rule {
    Rule::new(format!(
        "self.targets.all(t, !has(t.probe) || !has(t.probe.script) || !has(t.probe.script.timeout) || {})",
        within_every_interval("t.probe.script.timeout")
    ))
    .message(SCRIPT_TIMEOUT_ABOVE_INTERVAL)
    .field_path(".targets")
}

/// The default probe's answer may be awaited for as long as it may take.
#[must_use]
pub fn max_latency_within_timeout() -> Rule {
    Rule::new(format!(
        "!has(self.probe) || !has(self.probe.http) || !has(self.probe.http.maxLatency) || {}",
        within_timeout("self.probe.http.maxLatency")
    ))
    .message(MAX_LATENCY_ABOVE_TIMEOUT)
    .field_path(".probe.http.maxLatency")
}

/// The targets' own, too.
#[must_use]
pub fn target_max_latencies_within_timeout() -> Rule {
    Rule::new(format!(
        "self.targets.all(t, !has(t.probe) || !has(t.probe.http) || !has(t.probe.http.maxLatency) || {})",
        within_timeout("t.probe.http.maxLatency")
    ))
    .message(MAX_LATENCY_ABOVE_TIMEOUT)
    .field_path(".targets")
}

/// `latency` is at most `timeout` or, where that is not written, its default.
fn within_timeout(latency: &str) -> String {
    let pattern = Duration::PATTERN;
    format!(
        "(has(self.timeout) ? (!{latency}.matches('{pattern}') || !self.timeout.matches('{pattern}') || \
         duration({latency}) <= duration(self.timeout)) : \
         (!{latency}.matches('{pattern}') || duration({latency}) <= duration('2s')) && ({}))",
        within_every_interval(latency)
    )
}

fn within_every_interval(timeout: &str) -> String {
    let pattern = Duration::PATTERN;
    let within = ["interval", "unhealthyInterval", "confirmInterval"].map(|interval| {
        format!(
            "(!has(self.{interval}) || !self.{interval}.matches('{pattern}') || \
             duration({timeout}) <= duration(self.{interval}))"
        )
    });
    format!("!{timeout}.matches('{pattern}') || ({})", within.join(" && "))
}

/// A DNS label (RFC 1123), as Kubernetes names Services and we name targets.
pub const DNS_LABEL_PATTERN: &str = "^[0-9a-z]([-0-9a-z]*[0-9a-z])?$";
/// A DNS subdomain, as Kubernetes names objects.
pub const DNS_SUBDOMAIN_PATTERN: &str = "^[0-9a-z]([-0-9a-z.]*[0-9a-z])?$";
/// A key of a Secret or ConfigMap.
pub const DATA_KEY_PATTERN: &str = "^[-._0-9A-Za-z]+$";

/// What a pattern of the schema asks, in words.
#[must_use]
pub fn meaning_of(pattern: &str) -> Option<&'static str> {
    const MEANINGS: [(&str, &str); 14] = [
        (Duration::PATTERN, "a duration: numbers with the units h, m, s or ms, such as 10s, 1m30s or 500ms"),
        (DNS_LABEL_PATTERN, "a DNS label: lower-case letters, digits and '-', with a letter or digit at both ends"),
        (
            DNS_SUBDOMAIN_PATTERN,
            "the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
        ),
        (LABEL_KEY_PATTERN, "a label key: [prefix/]name of at most 63 letters, digits, '-', '_' and '.'"),
        (LABEL_VALUE_PATTERN, "a label value: at most 63 letters, digits, '-', '_' and '.'"),
        (HEADER_NAME_PATTERN, "a header name: letters, digits and any of !#$%&'*+-.^_`|~"),
        (HEADER_VALUE_PATTERN, "visible ASCII without blanks at either end"),
        (DATA_KEY_PATTERN, "a key of a Secret or ConfigMap: letters, digits, '-', '_' and '.'"),
        (ENV_NAME_PATTERN, "a variable's name: letters, digits and '_', not beginning with a digit"),
        (GRPC_SERVICE_PATTERN, "visible ASCII without blanks"),
        (AUTHORITY_PATTERN, "a host with or without a port, an IPv6 address in brackets, without scheme or path"),
        (BASE64_PATTERN, "base64, with its padding"),
        (JSON_POINTER_PATTERN, "a JSON pointer: \"\" or tokens behind slashes, '~' written as ~0 and '/' as ~1"),
        (NO_NUL_PATTERN, "text without NUL characters"),
    ];
    MEANINGS.iter().find(|(known, _)| *known == pattern).map(|(_, meaning)| *meaning)
}

//! The rules over one probe.

use super::{Mode, Problems, target_rules::is_host};
use crate::{
    api::{
        IntOrString,
        probe::{CaReference, ExpectedBody, Header, HttpProbe, Method, Probe, Scheme, ScriptProbe, Tls, TlsMode},
        rules,
    },
    check::{Pattern, StatusRange},
};

const SECRET_NEEDS_CLUSTER: &str = "a Secret needs a cluster to be read from: give value when running from files";
const CERTIFICATE_NEEDS_CLUSTER: &str =
    "a client certificate is read from a Secret, which needs a cluster: remove clientCertRef when running from files";
const CA_NEEDS_CLUSTER: &str =
    "a caRef needs a cluster to be read from: without one the authorities of this machine are trusted";

pub fn check(probe: &Probe, path: &str, mode: Mode, problems: &mut Problems) {
    let kinds = [probe.tcp.is_some(), probe.http.is_some(), probe.grpc.is_some(), probe.script.is_some()];
    problems.require(kinds.into_iter().filter(|given| *given).count() == 1, path, rules::PROBE_NOT_ONE);
    if let Some(tls) = probe.tcp.as_ref().and_then(|tcp| tcp.tls.as_ref()) {
        check_tls(tls, &format!("{path}.tcp.tls"), mode, problems);
    }
    if let Some(tls) = probe.grpc.as_ref().and_then(|grpc| grpc.tls.as_ref()) {
        check_tls(tls, &format!("{path}.grpc.tls"), mode, problems);
    }
    if let Some(http) = &probe.http {
        check_http(http, &format!("{path}.http"), mode, problems);
    }
    if let Some(script) = &probe.script {
        check_script(script, &format!("{path}.script"), problems);
    }
}

fn check_http(http: &HttpProbe, path: &str, mode: Mode, problems: &mut Problems) {
    problems.require(is_path(&http.path), format!("{path}.path"), rules::PATH_FORMAT);
    if let Some(host) = &http.host {
        problems.require(is_host(host), format!("{path}.host"), rules::HOST_FORMAT);
    }
    for (index, header) in http.headers.iter().enumerate() {
        check_header(header, &format!("{path}.headers[{index}]"), mode, problems);
    }
    let sends = matches!(http.method, Method::Post | Method::Put);
    problems.require(sends || http.body.is_none(), format!("{path}.body"), rules::BODY_WITHOUT_METHOD);
    let unhealthy = http.unhealthy_statuses.iter().flatten();
    for (field, statuses, message) in [
        ("expectedStatuses", &mut http.expected_statuses.iter() as &mut dyn Iterator<Item = _>, rules::STATUSES),
        ("unhealthyStatuses", &mut unhealthy.into_iter(), rules::UNHEALTHY_STATUSES),
    ] {
        for (index, status) in statuses.enumerate() {
            problems.require(parse_statuses(status).is_some(), format!("{path}.{field}[{index}]"), message);
        }
    }
    if let Some(body) = &http.expected_body {
        let path = format!("{path}.expectedBody");
        problems.require(http.method != Method::Head, &path, rules::EXPECTED_BODY_WITH_HEAD);
        check_expected_body(body, &path, problems);
    }
    let spans = [
        ("maxLatency", http.max_latency, rules::MAX_LATENCY),
        ("minCertificateValidity", http.min_certificate_validity, rules::MIN_CERTIFICATE_VALIDITY),
    ];
    for (field, value, span) in spans {
        problems.require(value.is_none_or(|value| span.contains(value)), format!("{path}.{field}"), span.message);
    }
    let idle = http.min_certificate_validity.is_some() && http.scheme == Scheme::Http;
    problems.require(!idle, format!("{path}.minCertificateValidity"), rules::VALIDITY_WITHOUT_HTTPS);
    if let Some(tls) = &http.tls {
        let path = format!("{path}.tls");
        problems.require(http.scheme == Scheme::Https, &path, rules::TLS_WITHOUT_HTTPS);
        check_tls(tls, &path, mode, problems);
    }
}

fn check_expected_body(body: &ExpectedBody, path: &str, problems: &mut Problems) {
    let rules = [body.contains.is_some(), body.regex.is_some(), body.json_pointer.is_some()];
    problems.require(rules.into_iter().filter(|given| *given).count() == 1, path, rules::BODY_RULE_NOT_ONE);
    problems.require(body.json_pointer.is_some() == body.equals.is_some(), path, rules::POINTER_WITHOUT_EQUALS);
    // The API server cannot tell: CEL would give up on the whole rule.
    if let Some(Err(why)) = body.regex.as_deref().map(Pattern::new) {
        problems.add(format!("{path}.regex"), format!("{}: {why}", rules::REGEX_FORMAT));
    }
}

/// `/` and visible ASCII; `#` begins a fragment, which is never sent.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

fn check_header(header: &Header, path: &str, mode: Mode, problems: &mut Problems) {
    let name = header.name.to_ascii_lowercase();
    let forbidden =
        rules::FORBIDDEN_HEADERS.contains(&name.as_str()) || name.starts_with(rules::FORBIDDEN_HEADER_PREFIX);
    problems.require(!forbidden, format!("{path}.name"), rules::HEADER_FORBIDDEN);
    problems.require(header.value.is_some() != header.value_from.is_some(), path, rules::HEADER_SOURCE_NOT_ONE);
    if mode == Mode::Standalone {
        problems.require(header.value_from.is_none(), format!("{path}.valueFrom"), SECRET_NEEDS_CLUSTER);
    }
}

fn check_tls(tls: &Tls, path: &str, mode: Mode, problems: &mut Problems) {
    if let Some(name) = &tls.server_name {
        problems.require(is_host(name), format!("{path}.serverName"), rules::SERVER_NAME_FORMAT);
    }
    if mode == Mode::Standalone {
        problems.require(tls.client_cert_ref.is_none(), format!("{path}.clientCertRef"), CERTIFICATE_NEEDS_CLUSTER);
    }
    let Some(CaReference { config_map, secret }) = &tls.ca_ref else { return };
    let path = format!("{path}.caRef");
    problems.require(tls.mode == TlsMode::Verify, &path, rules::CA_WITHOUT_VERIFY);
    problems.require(config_map.is_some() != secret.is_some(), &path, rules::CA_NOT_ONE);
    problems.require(mode == Mode::Cluster, &path, CA_NEEDS_CLUSTER);
}

fn check_script(script: &ScriptProbe, path: &str, problems: &mut Problems) {
    problems.require(script.command.is_some() != script.source.is_some(), path, rules::SCRIPT_NOT_ONE);
    if let Some(timeout) = script.timeout {
        let inside = rules::SCRIPT_TIMEOUT.contains(timeout);
        problems.require(inside, format!("{path}.timeout"), rules::SCRIPT_TIMEOUT.message);
    }
    for (index, variable) in script.env.iter().enumerate() {
        let reserved = variable.name.starts_with(rules::ENV_RESERVED_PREFIX);
        problems.require(!reserved, format!("{path}.env[{index}].name"), rules::ENV_RESERVED);
    }
}

/// `200`, `"200"` or `"200-399"`, within 100–599, lower end first.
pub fn parse_statuses(statuses: &IntOrString) -> Option<StatusRange> {
    let (first, last) = match statuses {
        IntOrString::Int(status) => {
            let status = u16::try_from(*status).ok()?;
            (status, status)
        }
        IntOrString::String(text) => match text.split_once('-') {
            Some((first, last)) => (parse_status(first)?, parse_status(last)?),
            None => (parse_status(text)?, parse_status(text)?),
        },
    };
    (100 <= first && first <= last && last <= 599).then_some(StatusRange { first, last })
}

/// Three digits: no sign, no blank.
fn parse_status(text: &str) -> Option<u16> {
    (text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let range = |first, last| Some(StatusRange { first, last });
        assert_eq!(parse_statuses(&200.into()), range(200, 200));
        assert_eq!(parse_statuses(&"204".into()), range(204, 204));
        assert_eq!(parse_statuses(&"200-399".into()), range(200, 399));
        assert_eq!(parse_statuses(&"200-200".into()), range(200, 200));
        for text in ["", "99", "600", "399-200", "200-", "-200", "2xx", "200-399-500", "200 - 399", "+20"] {
            assert_eq!(parse_statuses(&text.into()), None, "{text}");
        }
        for number in [99, 600, -200, 70_000] {
            assert_eq!(parse_statuses(&number.into()), None, "{number}");
        }
    }
}

//! The rules over a whole spec.

use super::{Mode, Problems, build::default_timeout, probe_rules, target_rules};
use crate::api::{ActiveProbes, Duration, HealthCheckSpec, IntOrString, Passive, rules, rules::Span};

pub fn check(spec: &HealthCheckSpec, mode: Mode, problems: &mut Problems) {
    check_durations(spec, problems);
    check_thresholds(spec, problems);
    check_min_healthy(spec, problems);
    if let Some(passive) = &spec.passive {
        check_passive(passive, problems);
        check_no_traffic_interval(spec, passive, problems);
    }
    if let Some(probe) = &spec.probe {
        probe_rules::check(probe, "spec.probe", mode, problems);
        check_script_timeout(spec, probe, "spec.probe", problems);
        check_max_latency(spec, probe, "spec.probe", problems);
    }
    for (index, target) in spec.targets.iter().enumerate() {
        let path = format!("spec.targets[{index}]");
        target_rules::check(target, spec, &path, mode, problems);
        if let Some(probe) = &target.probe {
            check_script_timeout(spec, probe, &format!("{path}.probe"), problems);
            check_max_latency(spec, probe, &format!("{path}.probe"), problems);
        }
    }
}

fn check_durations(spec: &HealthCheckSpec, problems: &mut Problems) {
    let spans: [(&str, Option<Duration>, Span); 5] = [
        ("spec.interval", Some(spec.interval), rules::INTERVAL),
        ("spec.unhealthyInterval", spec.unhealthy_interval, rules::UNHEALTHY_INTERVAL),
        ("spec.confirmInterval", spec.confirm_interval, rules::CONFIRM_INTERVAL),
        ("spec.timeout", spec.timeout, rules::TIMEOUT),
        ("spec.staleAfter", spec.stale_after, rules::STALE_AFTER),
    ];
    for (path, duration, span) in spans {
        problems.require(duration.is_none_or(|duration| span.contains(duration)), path, span.message);
    }

    let intervals = [
        (Some(spec.interval), rules::TIMEOUT_ABOVE_INTERVAL, rules::STALE_AFTER_NOT_ABOVE_INTERVAL),
        (
            spec.unhealthy_interval,
            rules::TIMEOUT_ABOVE_UNHEALTHY_INTERVAL,
            rules::STALE_AFTER_NOT_ABOVE_UNHEALTHY_INTERVAL,
        ),
        (spec.confirm_interval, rules::TIMEOUT_ABOVE_CONFIRM_INTERVAL, rules::STALE_AFTER_NOT_ABOVE_CONFIRM_INTERVAL),
    ];
    for (interval, timeout_message, stale_message) in intervals {
        let Some(interval) = interval else { continue };
        problems.require(spec.timeout.is_none_or(|timeout| timeout <= interval), "spec.timeout", timeout_message);
        problems.require(spec.stale_after.is_none_or(|age| age > interval), "spec.staleAfter", stale_message);
    }
}

fn check_thresholds(spec: &HealthCheckSpec, problems: &mut Problems) {
    let Some(thresholds) = &spec.failure_thresholds else { return };
    for (class, threshold, message) in [
        ("connect", thresholds.connect, rules::CONNECT_THRESHOLD_UNREACHABLE),
        ("http", thresholds.http, rules::HTTP_THRESHOLD_UNREACHABLE),
        ("timeout", thresholds.timeout, rules::TIMEOUT_THRESHOLD_UNREACHABLE),
    ] {
        let reachable = threshold.is_none_or(|threshold| threshold <= spec.failure_threshold);
        problems.require(reachable, format!("spec.failureThresholds.{class}"), message);
    }
}

fn check_passive(passive: &Passive, problems: &mut Problems) {
    for (field, statuses, message) in [
        ("healthyStatuses", &passive.healthy_statuses, rules::HEALTHY_STATUSES),
        ("unhealthyStatuses", &passive.unhealthy_statuses, rules::UNHEALTHY_STATUSES),
    ] {
        for (index, status) in statuses.iter().enumerate() {
            let path = format!("spec.passive.{field}[{index}]");
            problems.require(probe_rules::parse_statuses(status).is_some(), path, message);
        }
    }
    let (path, time) = ("spec.passive.ejectionTime", passive.ejection_time);
    let span = rules::EJECTION_TIME;
    problems.require(time.is_none_or(|time| span.contains(time)), path, span.message);
    let used = time.is_none() || passive.active_probes == ActiveProbes::Off;
    problems.require(used, path, rules::EJECTION_TIME_WITH_PROBES);
}

fn check_no_traffic_interval(spec: &HealthCheckSpec, passive: &Passive, problems: &mut Problems) {
    let Some(interval) = passive.no_traffic_interval else { return };
    let (path, span) = ("spec.passive.noTrafficInterval", rules::NO_TRAFFIC_INTERVAL);
    problems.require(span.contains(interval), path, span.message);
    let probed = passive.active_probes == ActiveProbes::On;
    problems.require(probed, path, rules::NO_TRAFFIC_INTERVAL_WITHOUT_PROBES);
    problems.require(interval >= spec.interval, path, rules::NO_TRAFFIC_INTERVAL_BELOW_INTERVAL);
    let fresh = spec.stale_after.is_none_or(|age| age > interval);
    problems.require(fresh, "spec.staleAfter", rules::STALE_AFTER_NOT_ABOVE_NO_TRAFFIC_INTERVAL);
}

fn check_min_healthy(spec: &HealthCheckSpec, problems: &mut Problems) {
    let path = "spec.minHealthy";
    match &spec.min_healthy {
        IntOrString::Int(count) => {
            problems.require((0..=rules::MAX_MIN_HEALTHY).contains(count), path, rules::MIN_HEALTHY);
            let countable = spec.targets.iter().all(|target| target.service.is_none() && target.pods.is_none());
            let members = spec.targets.iter().filter(|target| !target.optional).count();
            let possible = usize::try_from(*count).is_ok_and(|count| count <= members) || *count < 0;
            problems.require(!countable || possible, path, rules::MIN_HEALTHY_IMPOSSIBLE);
        }
        IntOrString::String(text) => problems.require(parse_percent(text).is_some(), path, rules::MIN_HEALTHY),
    }
}

/// `"0%"` to `"100%"`, without leading zeros.
pub fn parse_percent(text: &str) -> Option<u8> {
    let digits = text.strip_suffix('%')?;
    let percent: u8 = digits.parse().ok()?;
    (percent <= 100 && percent.to_string() == digits).then_some(percent)
}

fn check_max_latency(spec: &HealthCheckSpec, probe: &crate::api::probe::Probe, path: &str, problems: &mut Problems) {
    let Some(latency) = probe.http.as_ref().and_then(|http| http.max_latency) else { return };
    let timeout = spec.timeout.map_or_else(|| default_timeout(spec), Duration::to_std);
    let within = latency.to_std() <= timeout;
    problems.require(within, format!("{path}.http.maxLatency"), rules::MAX_LATENCY_ABOVE_TIMEOUT);
}

fn check_script_timeout(spec: &HealthCheckSpec, probe: &crate::api::probe::Probe, path: &str, problems: &mut Problems) {
    let Some(timeout) = probe.script.as_ref().and_then(|script| script.timeout) else { return };
    let within = [Some(spec.interval), spec.unhealthy_interval, spec.confirm_interval]
        .into_iter()
        .flatten()
        .all(|interval| timeout <= interval);
    problems.require(within, format!("{path}.script.timeout"), rules::SCRIPT_TIMEOUT_ABOVE_INTERVAL);
}

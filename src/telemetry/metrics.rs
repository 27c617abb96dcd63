//! The operator's own metrics. Labels come from closed sets only.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{GateGauges, ObservationMetrics};

/// Labels of `healthcheck_operator_probes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProbeLabels {
    pub kind: &'static str,
    pub outcome: &'static str,
    /// Empty for a success.
    pub reason: &'static str,
}

/// Labels of `healthcheck_operator_probe_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    pub kind: &'static str,
    /// No reason beside it: a histogram is a dozen series, and of which failures there were `probes_total` tells.
    pub outcome: &'static str,
}

/// Labels of `healthcheck_operator_api_requests_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabels {
    pub kind: &'static str,
    pub verb: &'static str,
    /// `success`, `conflict`, `forbidden`, `not_found`, `throttled`, `server_error`, `timeout`, `unreachable`, `error`.
    pub result: &'static str,
}

/// Labels of `healthcheck_operator_watch_last_event_timestamp_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    pub kind: &'static str,
}

/// Handles to every metric the operator keeps of itself; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    pub probes: Family<ProbeLabels, Counter>,
    pub probe_duration: Family<DurationLabels, Histogram>,
    pub scheduling_lag: Histogram,
    pub skipped_rounds: Counter,
    /// Rounds that sent nothing: an equal probe of another endpoint was under way, and answered both.
    pub shared_rounds: Counter,
    /// How many times as long as declared intervals are, for want of permits or CPU.
    pub interval_stretch: Gauge<f64, AtomicU64>,
    pub in_flight_probes: Gauge,
    /// Idle connections of probes with `reuseConnection`.
    pub kept_connections: Gauge,
    /// Of those, the ones that were gone when they were wanted.
    pub lost_connections: Counter,
    pub endpoints: Gauge,
    pub api_requests: Family<ApiLabels, Counter>,
    pub api_request_duration: Family<ApiLabels, Histogram>,
    pub watch_last_event: Family<WatchLabels, Gauge>,
    pub leader: Gauge,
    pub config_reload_success: Gauge,
    pub gates: GateGauges,
    pub observations: ObservationMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 16));
        Self {
            probes: Family::default(),
            probe_duration: Family::new_with_constructor(seconds),
            scheduling_lag: Histogram::new(exponential_buckets(0.000_1, 4.0, 10)),
            skipped_rounds: Counter::default(),
            shared_rounds: Counter::default(),
            interval_stretch: one(),
            in_flight_probes: Gauge::default(),
            kept_connections: Gauge::default(),
            lost_connections: Counter::default(),
            endpoints: Gauge::default(),
            api_requests: Family::default(),
            api_request_duration: Family::new_with_constructor(seconds),
            watch_last_event: Family::default(),
            leader: Gauge::default(),
            config_reload_success: Gauge::default(),
            gates: GateGauges::default(),
            observations: ObservationMetrics::default(),
        }
    }
}

fn one() -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(1.0);
    gauge
}

impl Metrics {
    /// Registers everything under `healthcheck_operator_`, and the gates under `healthcheck_gate_`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.gates.clone()));
        let registry = registry.sub_registry_with_prefix("healthcheck_operator");
        registry.register("probes", "Probes that ended, by kind, outcome and reason", self.probes.clone());
        registry.register_with_unit(
            "probe_duration",
            "How long a probe took, by kind and outcome",
            Unit::Seconds,
            self.probe_duration.clone(),
        );
        registry.register_with_unit(
            "scheduling_lag",
            "How much later than due a probe started",
            Unit::Seconds,
            self.scheduling_lag.clone(),
        );
        registry.register("skipped_rounds", "Rounds left out because they were overdue", self.skipped_rounds.clone());
        registry.register("shared_rounds", "Rounds that took the answer of an equal probe", self.shared_rounds.clone());
        registry.register(
            "interval_stretch_ratio",
            "How many times as long as declared intervals were in the last ten seconds, for want of permits or CPU",
            self.interval_stretch.clone(),
        );
        registry.register("in_flight_probes", "Probes running now", self.in_flight_probes.clone());
        registry.register(
            "kept_connections",
            "Idle connections of probes with reuseConnection",
            self.kept_connections.clone(),
        );
        registry.register(
            "lost_connections",
            "Kept connections that the next probe of their endpoint found gone",
            self.lost_connections.clone(),
        );
        registry.register("endpoints", "Endpoints being probed", self.endpoints.clone());
        registry.register("api_requests", "Requests to the Kubernetes API", self.api_requests.clone());
        registry.register_with_unit(
            "api_request_duration",
            "How long a request to the Kubernetes API took",
            Unit::Seconds,
            self.api_request_duration.clone(),
        );
        registry.register_with_unit(
            "watch_last_event_timestamp",
            "When the last event of a watch arrived, in seconds since the epoch",
            Unit::Seconds,
            self.watch_last_event.clone(),
        );
        self.observations.register(registry);
        registry.register("leader", "1 while this replica probes and writes", self.leader.clone());
        registry.register(
            "config_reload_success",
            "1 when the last reading of the files succeeded, 0 when the last good version still runs",
            self.config_reload_success.clone(),
        );
    }

    /// For one who notes the ends of probes.
    #[must_use]
    pub fn probe_meter(&self) -> ProbeMeter {
        ProbeMeter { probes: self.probes.clone(), probe_duration: self.probe_duration.clone(), known: vec![] }
    }
}

/// Notes the ends of probes. Most end like one before, so that each series is looked up once and kept at hand.
pub struct ProbeMeter {
    probes: Family<ProbeLabels, Counter>,
    probe_duration: Family<DurationLabels, Histogram>,
    known: Vec<(ProbeLabels, Counter, Histogram)>,
}

impl ProbeMeter {
    /// Notes the end of a probe. `reason` is empty for a success.
    pub fn ended(&mut self, kind: &'static str, outcome: &'static str, reason: &'static str, took: Duration) {
        let labels = ProbeLabels { kind, outcome, reason };
        let at = self.known.iter().position(|(known, ..)| *known == labels).unwrap_or_else(|| {
            let probes = self.probes.get_or_create_owned(&labels);
            let duration = self.probe_duration.get_or_create_owned(&DurationLabels { kind, outcome });
            self.known.push((labels, probes, duration));
            self.known.len() - 1
        });
        let (_, probes, duration) = &self.known[at];
        probes.inc();
        duration.observe(took.as_secs_f64());
    }
}

impl fmt::Debug for ProbeMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeMeter").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

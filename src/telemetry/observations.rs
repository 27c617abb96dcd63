//! What became of the reports of data planes.

use std::fmt;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// Where reports come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `POST /v1/observations`
    Api,
    /// Access logs by HTTP.
    HttpLogger,
    /// Access logs by gRPC.
    Envoy,
}

impl Source {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::HttpLogger => "http_logger",
            Self::Envoy => "envoy",
        }
    }
}

/// Labels of `healthcheck_operator_observations_total` and `healthcheck_operator_observation_batches_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ObservationLabels {
    pub source: &'static str,
    pub result: &'static str,
}

/// Handles to the counters of what data planes report; cheap to clone.
#[derive(Clone, Default)]
pub struct ObservationMetrics {
    /// `accepted`, `unknown_check`, `unknown_endpoint`, `not_passive`, `suspended`, `late`, `unattributed`, `dropped`.
    observations: Family<ObservationLabels, Counter>,
    /// `accepted`, `malformed`, `too_large`, `busy`, `refused`, `not_judging`.
    batches: Family<ObservationLabels, Counter>,
}

impl fmt::Debug for ObservationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObservationMetrics").finish_non_exhaustive()
    }
}

impl ObservationMetrics {
    /// Counts `number` observations of which the same became.
    pub fn add(&self, source: Source, result: &'static str, number: u64) {
        if number > 0 {
            let labels = ObservationLabels { source: source.as_str(), result };
            self.observations.get_or_create(&labels).inc_by(number);
        }
    }

    /// Counts observations that were read, and then lost.
    pub fn dropped(&self, source: Source, number: u64) {
        self.add(source, "dropped", number);
    }

    /// How many observations the same has become of so far.
    #[must_use]
    pub fn number(&self, source: Source, result: &'static str) -> u64 {
        self.observations.get_or_create(&ObservationLabels { source: source.as_str(), result }).get()
    }

    /// Counts a batch.
    pub fn batch(&self, source: Source, result: &'static str) {
        self.batches.get_or_create(&ObservationLabels { source: source.as_str(), result }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "observations",
            "Observations that data planes reported, by where they come from and what became of them",
            self.observations.clone(),
        );
        registry.register(
            "observation_batches",
            "Batches of observations and of access logs, by where they come from and what became of them",
            self.batches.clone(),
        );
    }
}

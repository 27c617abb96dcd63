//! `healthcheck_gate_*`: what the gates do, kept by whoever decides and read at each scrape.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::check::{GateReason, Text};

/// What is told of one gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSeries {
    pub gate: Text,
    /// Endpoints published as ready; in a dry run, that would be.
    pub ready: u32,
    /// Endpoints that are not.
    pub withheld: u32,
    /// One of [`GateReason`].
    pub rule: &'static str,
}

type ByCheck = BTreeMap<(Text, Text), Vec<GateSeries>>;

/// The gates of every check that has any; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct GateGauges(Arc<Mutex<ByCheck>>);

impl GateGauges {
    /// What the gates of a check do now; none: it has no gates.
    pub fn set(&self, namespace: &Text, name: &Text, series: Vec<GateSeries>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.clone(), name.clone());
        if series.is_empty() {
            all.remove(&key);
        } else {
            all.insert(key, series);
        }
    }

    /// Nobody decides any more.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Collector for GateGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if all.is_empty() {
            return Ok(());
        }
        let gates = || all.iter().flat_map(|(key, gates)| gates.iter().map(move |gate| (key, gate)));
        for (name, help, value) in [
            (
                "healthcheck_gate_ready",
                "Endpoints that the gate publishes as ready, or would",
                (|gate| gate.ready) as fn(&GateSeries) -> u32,
            ),
            ("healthcheck_gate_withheld", "Endpoints that the gate holds back, or would", |gate| gate.withheld),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for ((namespace, check), gate) in gates() {
                let labels = [("namespace", &**namespace), ("name", &**check), ("gate", &*gate.gate)];
                let gauge = ConstGauge::new(i64::from(value(gate)));
                gauge.encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        let help = "1 for the rule that decides what the gate publishes, 0 for the others";
        let mut family = encoder.encode_descriptor("healthcheck_gate_effective", help, None, MetricType::Gauge)?;
        for ((namespace, check), gate) in gates() {
            for rule in GateReason::ALL.map(GateReason::as_str) {
                let labels = [("namespace", &**namespace), ("name", &**check), ("gate", &*gate.gate), ("rule", rule)];
                let gauge = ConstGauge::new(i64::from(rule == gate.rule));
                gauge.encode(family.encode_family(&labels.as_slice())?)?;
            }
        }
        Ok(())
    }
}

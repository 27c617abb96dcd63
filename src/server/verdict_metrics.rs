//! `healthcheck_*`: the verdicts, read off the board at each scrape, so that what is removed leaves no series behind.

use std::{collections::HashSet, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    check::{EndpointState, Health},
    engine::{Board, CheckView},
};

#[derive(Debug)]
pub struct VerdictMetrics {
    pub board: Arc<Board>,
}

impl Collector for VerdictMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let checks = self.board.all();
        if checks.is_empty() {
            return Ok(());
        }
        let believed = self.board.is_current();
        health(&mut encoder, &checks, believed)?;
        if believed {
            endpoints(&mut encoder, &checks)?;
            since(&mut encoder, &checks)?;
        }
        transitions(&mut encoder, &checks)
    }
}

fn health_now(view: &CheckView, believed: bool) -> Health {
    if believed { view.health } else { Health::Unknown }
}

fn check_labels(view: &CheckView, health: Health) -> [(&'static str, &str); 3] {
    [("namespace", &*view.key.namespace), ("name", &*view.key.name), ("health", health.as_str())]
}

/// All four words of every check, so that an alert on one finds a 0 and not a hole. A suspended check is none of them:
/// whoever suspended it knows that nobody looks.
fn health(encoder: &mut DescriptorEncoder<'_>, checks: &[Arc<CheckView>], believed: bool) -> fmt::Result {
    let help = "1 for the word that is the health of the check now, 0 for the others; all 0 while it is suspended";
    let mut family = encoder.encode_descriptor("healthcheck_health", help, None, MetricType::Gauge)?;
    for view in checks {
        for health in Health::ALL {
            let is = i64::from(!view.suspended && health == health_now(view, believed));
            gauge(&mut family, &check_labels(view, health).as_slice(), is)?;
        }
    }
    Ok(())
}

fn endpoints(encoder: &mut DescriptorEncoder<'_>, checks: &[Arc<CheckView>]) -> fmt::Result {
    let help = "1 while the endpoint is healthy, 0 while it is not, absent while that is unknown";
    let mut family = encoder.encode_descriptor("healthcheck_endpoint_healthy", help, None, MetricType::Gauge)?;
    let mut seen = HashSet::new();
    for view in checks {
        seen.clear();
        for endpoint in view.endpoints.iter().filter(|endpoint| endpoint.state != EndpointState::Unknown) {
            // One series twice would make the whole scrape invalid.
            if seen.insert((&endpoint.target, &endpoint.label)) {
                let labels = [
                    ("namespace", &*view.key.namespace),
                    ("name", &*view.key.name),
                    ("target", &*endpoint.target),
                    ("endpoint", &*endpoint.label),
                ];
                gauge(&mut family, &labels.as_slice(), i64::from(endpoint.state.is_healthy()))?;
            }
        }
    }
    Ok(())
}

fn transitions(encoder: &mut DescriptorEncoder<'_>, checks: &[Arc<CheckView>]) -> fmt::Result {
    let help = "How often the check has become this word since this process saw it first";
    let mut family = encoder.encode_descriptor("healthcheck_transitions", help, None, MetricType::Counter)?;
    for view in checks {
        for health in Health::ALL {
            let count = ConstCounter::new(view.transitions[health as usize]);
            count.encode(family.encode_family(&check_labels(view, health).as_slice())?)?;
        }
    }
    Ok(())
}

fn since(encoder: &mut DescriptorEncoder<'_>, checks: &[Arc<CheckView>]) -> fmt::Result {
    let name = "healthcheck_since_timestamp_seconds";
    let help = "Since when the check is what it is, in seconds since the epoch";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for view in checks {
        gauge(&mut family, &check_labels(view, view.health).as_slice(), view.since.as_second())?;
    }
    Ok(())
}

fn gauge(family: &mut MetricEncoder<'_>, labels: &&[(&'static str, &str)], value: i64) -> fmt::Result {
    ConstGauge::new(value).encode(family.encode_family(labels)?)
}

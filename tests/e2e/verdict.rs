//! What the operator says of one target, and when it said so.

use std::time::{Duration, Instant};

use anyhow::Context;
use healthcheck_operator::api::HealthCheck;
use serde_json::{Value, json};

use crate::room::SOON;
use crate::support::recorder::{Change, Recorder};
use crate::support::wait::wait_until;
use crate::traffic::GRACE;

/// For how long after a verdict requests are looked at: what fails late must have a chance to.
pub const WATCHED: Duration = Duration::from_secs(3).saturating_add(GRACE);

/// How a target is routed: what is Mostly something routes like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Healthy,
    Unhealthy,
    Unknown,
}

/// A check that decides within a second or two, as one does who cares.
pub fn quick(probe: Value, targets: &[Value]) -> Value {
    json!({
        "interval": "500ms", "timeout": "400ms", "failureThreshold": 2, "successThreshold": 2,
        "minHealthy": 1, "probe": probe, "targets": targets,
    })
}

/// The states that a target went through, each with the moment it was seen first.
///
/// # Errors
/// When the recording has a gap.
pub fn states(recorder: &Recorder<HealthCheck>, check: &str, target: &str) -> anyhow::Result<Vec<(Instant, State)>> {
    let mut states: Vec<(Instant, State)> = Vec::new();
    for (seen, change) in recorder.timed()? {
        let Change::Now(object) = change else { continue };
        if object.metadata.name.as_deref() != Some(check) {
            continue;
        }
        let Some(status) = object.status else { continue };
        let Some(target) = status.targets.iter().find(|status| status.name == target) else { continue };
        let state = match target.state.as_str() {
            "Healthy" | "MostlyHealthy" => State::Healthy,
            "Unhealthy" | "MostlyUnhealthy" => State::Unhealthy,
            _ => State::Unknown,
        };
        if states.last().is_none_or(|(_, last)| *last != state) {
            states.push((seen, state));
        }
    }
    Ok(states)
}

/// Waits until a target came to a state after `since`, and returns when.
///
/// # Errors
/// After [`SOON`], with its states.
pub async fn seen(
    recorder: &Recorder<HealthCheck>,
    check: &str,
    target: &str,
    state: State,
    since: Instant,
) -> anyhow::Result<Instant> {
    wait_until(&format!("{target} of {check} to be {state:?}"), SOON, || async {
        let states = states(recorder, check, target)?;
        let found = states.iter().find(|(seen, is)| *seen >= since && *is == state);
        found.map(|(seen, _)| *seen).with_context(|| format!("{states:?}"))
    })
    .await
}

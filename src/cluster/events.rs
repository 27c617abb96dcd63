//! Events: one for each transition that was written, none for anything else.

mod recorder;

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::mpsc;

use self::recorder::{Recorder, Told};
use super::client::CallError;
use crate::{
    api::{API_VERSION, KIND, status::GateStatus},
    check::{GateReason, Health, HealthReason, ObjectKey, Text},
    engine::CheckView,
};

/// The longest note the API takes, in bytes (`events.k8s.io/v1`).
const NOTE_LIMIT: usize = 1024;
const ATTEMPTS: u32 = 3;

/// A verdict that changed, as it was written.
#[derive(Clone, Debug)]
pub struct Transition {
    pub check: ObjectKey,
    pub uid: Text,
    pub health: Health,
    pub view: Arc<CheckView>,
}

/// A gate whose rule changed, as it was written.
#[derive(Clone, Debug)]
pub struct GateChange {
    pub check: ObjectKey,
    pub uid: Text,
    pub gate: GateStatus,
}

/// An override that cannot be read, as it was written to the condition.
#[derive(Clone, Debug)]
pub struct OverrideProblem {
    pub check: ObjectKey,
    pub uid: Text,
    pub message: String,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub enum News {
    Verdict(Transition),
    Gate(GateChange),
    Override(OverrideProblem),
}

impl News {
    #[must_use]
    pub const fn check(&self) -> &ObjectKey {
        match self {
            Self::Verdict(transition) => &transition.check,
            Self::Gate(change) => &change.check,
            Self::Override(problem) => &problem.check,
        }
    }

    const fn uid(&self) -> &Text {
        match self {
            Self::Verdict(transition) => &transition.uid,
            Self::Gate(change) => &change.uid,
            Self::Override(problem) => &problem.uid,
        }
    }

    fn told(&self) -> Told {
        match self {
            Self::Verdict(transition) => transition.told(),
            Self::Gate(change) => change.told(),
            Self::Override(problem) => Told {
                warning: true,
                reason: GateReason::InvalidOverride.as_str().to_owned(),
                note: fit(problem.message.clone()),
                action: "Override",
            },
        }
    }
}

impl GateChange {
    fn told(&self) -> Told {
        let gate = &self.gate;
        let counts = format!("{} desired, {} published as ready", gate.desired_ready, gate.published_ready);
        let message = gate.message.as_deref().unwrap_or(&counts);
        let expected = [GateReason::Enforced, GateReason::DryRun].map(GateReason::as_str);
        Told {
            warning: !expected.contains(&gate.effective.as_str()),
            reason: format!("Gate{}", gate.effective),
            note: fit(format!("gate {} of this HealthCheck: {message}", gate.name)),
            action: "Gate",
        }
    }
}

fn fit(mut note: String) -> String {
    while note.len() > NOTE_LIMIT {
        note.pop();
    }
    note
}

impl Transition {
    /// What tells this transition from another of the same check at a glance: `UnhealthyConnectionRefused`,
    /// `UnknownStale`, `Healthy`.
    fn reason(&self) -> String {
        let failing = self.view.endpoints.iter().filter(|row| row.state.is_unhealthy());
        let detail = match self.health {
            Health::Healthy => "",
            Health::Unknown => self.view.reason.as_str(),
            Health::Degraded | Health::Unhealthy => {
                failing.filter_map(|row| row.reason_word()).next().unwrap_or_default()
            }
        };
        format!("{}{detail}", self.health)
    }

    fn note(&self) -> String {
        let mut note = format!("{} of {} targets healthy", self.view.counts.healthy, self.view.counts.total);
        if !self.view.message.is_empty() {
            note = format!("{note}: {}", self.view.message);
        }
        fit(note)
    }

    fn told(&self) -> Told {
        let warning = match self.health {
            Health::Healthy => false,
            // Somebody asked for it.
            Health::Unknown => self.view.reason != HealthReason::Suspended,
            Health::Degraded | Health::Unhealthy => true,
        };
        Told { warning, reason: self.reason(), note: self.note(), action: "Probe" }
    }
}

/// Publishes `news` until there is no more.
pub async fn publish(client: Client, prober: String, mut news: mpsc::Receiver<News>) {
    let mut recorder = Recorder::new(client, super::patch::FIELD_MANAGER, prober);
    // Namespaces in which we may write none: said once, until one is let through.
    let mut refused: HashSet<Text> = HashSet::new();
    while let Some(news) = news.recv().await {
        let reference = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            name: Some(news.check().name.to_string()),
            namespace: Some(news.check().namespace.to_string()),
            uid: Some(news.uid().to_string()),
            ..ObjectReference::default()
        };
        let told = news.told();
        let mut pending = recorder.begin(&told, &reference);
        for attempt in 1..=ATTEMPTS {
            match recorder.write(&mut pending, &told, &reference).await {
                Ok(()) => {
                    refused.remove(&news.check().namespace);
                    break;
                }
                Err(error) if error.is_outage() && attempt < ATTEMPTS => {
                    tokio::time::sleep(Duration::from_millis(500) * attempt).await;
                }
                Err(CallError::Forbidden(message)) => {
                    if refused.insert(news.check().namespace.clone()) {
                        tracing::warn!(check = %news.check(), "cannot write events: {message}; grant create and patch on events in events.k8s.io, or start with --disable-events");
                    }
                    break;
                }
                Err(error) => {
                    tracing::warn!(check = %news.check(), reason = told.reason, "event not written: {error}");
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Counts;

    #[test]
    fn the_reason_tells_transitions_apart_and_the_note_fits() {
        let view = CheckView {
            key: ObjectKey::new("shop", "db"),
            uid: "u".into(),
            generation: 1,
            labels: Arc::default(),
            suspended: false,
            health: Health::Unknown,
            reason: HealthReason::Stale,
            message: "é".repeat(900),
            since: jiff::Timestamp::UNIX_EPOCH,
            counts: Counts { total: 3, healthy: 1, unhealthy: 1, unknown: 1 },
            targets: Arc::default(),
            unlisted: Health::Unknown,
            endpoints: Arc::from([]),
            outages: Arc::from([]),
            probes: "tcp".into(),
            interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(1),
            transitions: [0; 4],
            live: Arc::default(),
        };
        let of = |health| Transition { check: view.key.clone(), uid: "u".into(), health, view: Arc::new(view.clone()) };
        assert_eq!(of(Health::Unknown).reason(), "UnknownStale");
        assert_eq!(of(Health::Healthy).reason(), "Healthy");
        let suspended = CheckView { reason: HealthReason::Suspended, ..view.clone() };
        let suspended = Transition { view: Arc::new(suspended), ..of(Health::Unknown) };
        assert!(!suspended.told().warning, "asked for by a person");
        assert!(of(Health::Unknown).told().warning);
        let note = of(Health::Unhealthy).note();
        assert!(note.starts_with("1 of 3 targets healthy: é") && note.len() <= NOTE_LIMIT);
    }
}

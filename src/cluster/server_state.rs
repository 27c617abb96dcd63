//! What is remembered of a HealthCheck as the API server has it. There is one of these for each, so it is small.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::ObjectMeta;

use super::status::{fingerprint, headline};
use crate::{
    api::{HealthCheckStatus, status::GateStatus},
    check::{
        Health, Text,
        shared::{self, Pool},
    },
};

static SAID: LazyLock<Pool<Arc<Said>>> = LazyLock::new(Pool::default);

/// An object's own identity and what its status says, without the rows.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    pub uid: Text,
    pub generation: i64,
    /// Empty where there is an epoch, which is the better fence.
    pub resource_version: String,
    pub epoch: Option<i64>,
    pub prober: Option<Text>,
    pub health: Option<Health>,
    pub observed_at: Option<Timestamp>,
    pub(super) conditions: Box<[Stated]>,
    pub gates: Vec<GateStatus>,
    pub fingerprint: u64,
    pub headline: u64,
}

/// A condition. Most objects say the same, each since another time.
#[derive(Clone, Debug)]
pub(super) struct Stated {
    said: Arc<Said>,
    since: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    kind: String,
    status: String,
    reason: String,
    message: String,
    observed_generation: Option<i64>,
}

impl Stated {
    fn of(condition: &Condition) -> Self {
        let Condition { type_, status, reason, message, observed_generation, last_transition_time } = condition.clone();
        let said = Said { kind: type_, status, reason, message, observed_generation };
        Self { said: SAID.share(said), since: last_transition_time.0 }
    }

    fn whole(&self) -> Condition {
        let Said { kind, status, reason, message, observed_generation } = (*self.said).clone();
        Condition { type_: kind, status, reason, message, observed_generation, last_transition_time: Time(self.since) }
    }
}

impl ServerState {
    #[must_use]
    pub fn of(meta: &ObjectMeta, status: Option<&HealthCheckStatus>) -> Self {
        let mut state = Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            ..Self::default()
        };
        let version = meta.resource_version.clone().unwrap_or_default();
        match status {
            Some(status) => state.wrote(status, version),
            None => state.wrote(&HealthCheckStatus::default(), version),
        }
        state
    }

    /// The same object after `status` was written to it.
    pub fn wrote(&mut self, status: &HealthCheckStatus, resource_version: String) {
        *self = Self {
            uid: self.uid.clone(),
            generation: self.generation,
            resource_version: if status.epoch.is_some() { String::new() } else { resource_version },
            epoch: status.epoch,
            prober: status.prober.as_deref().map(shared::text),
            health: status.health.as_deref().and_then(Health::parse),
            observed_at: status.observed_at.as_ref().map(|time| time.0),
            conditions: status.conditions.iter().map(Stated::of).collect(),
            gates: status.gates.clone(),
            fingerprint: fingerprint(status),
            headline: headline(status),
        };
    }

    /// The same for whoever does not confirm it: what was read is then the only fence.
    #[must_use]
    pub fn without_epoch(mut self, meta: &ObjectMeta) -> Self {
        self.epoch = None;
        self.resource_version = meta.resource_version.clone().unwrap_or_default();
        self
    }

    /// Somebody has said who confirms the status, and nothing else.
    pub fn claimed(&mut self, status: &HealthCheckStatus) {
        self.epoch = status.epoch;
        self.prober = status.prober.as_deref().map(shared::text);
        self.resource_version = String::new();
    }

    /// The conditions of its status.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        self.conditions.iter().map(Stated::whole).collect()
    }

    /// Whether a condition has a message that begins so.
    #[must_use]
    pub fn tells(&self, message: &str) -> bool {
        self.conditions.iter().any(|stated| stated.said.message.starts_with(message))
    }

    #[must_use]
    pub fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }
}

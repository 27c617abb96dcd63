//! What is remembered of a HealthCheck as the API server has it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ObjectMeta;

use super::status::{fingerprint, headline};
use crate::{
    api::{HealthCheckStatus, status::GateStatus},
    check::Health,
};

/// An object's own identity and what its status says, without the rows.
#[derive(Clone, Debug, Default)]
pub struct ServerState {
    pub uid: Arc<str>,
    pub generation: i64,
    pub resource_version: String,
    pub epoch: Option<i64>,
    pub prober: Option<String>,
    pub health: Option<Health>,
    pub observed_at: Option<Timestamp>,
    pub conditions: Vec<Condition>,
    pub gates: Vec<GateStatus>,
    pub fingerprint: u64,
    pub headline: u64,
}

impl ServerState {
    #[must_use]
    pub fn of(meta: &ObjectMeta, status: Option<&HealthCheckStatus>) -> Self {
        let empty = HealthCheckStatus::default();
        let status = status.unwrap_or(&empty);
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation.unwrap_or(0),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            epoch: status.epoch,
            prober: status.prober.clone(),
            health: status.health.as_deref().and_then(Health::parse),
            observed_at: status.observed_at.as_ref().map(|time| time.0),
            conditions: status.conditions.clone(),
            gates: status.gates.clone(),
            fingerprint: fingerprint(status),
            headline: headline(status),
        }
    }

    /// The same object after `status` was written to it.
    pub fn wrote(&mut self, status: &HealthCheckStatus, resource_version: String) {
        *self = Self {
            uid: self.uid.clone(),
            generation: self.generation,
            resource_version,
            epoch: status.epoch,
            prober: status.prober.clone(),
            health: status.health.as_deref().and_then(Health::parse),
            observed_at: status.observed_at.as_ref().map(|time| time.0),
            conditions: status.conditions.clone(),
            gates: status.gates.clone(),
            fingerprint: fingerprint(status),
            headline: headline(status),
        };
    }
}

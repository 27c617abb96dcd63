//! What is known of one HealthCheck: as its watch told it, and as it is kept.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    api::status::GateStatus,
    check::{Check, Labels, ObjectKey, Place, Text},
    cluster::{index::Problem, referred::Referred, server_state::ServerState},
    compile,
    engine::Prior,
};

/// A HealthCheck as far as anybody here needs it.
#[derive(Debug)]
pub struct CheckFacts {
    pub key: ObjectKey,
    pub uid: Text,
    pub generation: i64,
    pub labels: Labels,
    pub created: Option<Timestamp>,
    /// What an operator says by hand, as it is written.
    pub overrides: Option<Text>,
    pub compiled: Result<Arc<Check>, Vec<compile::Problem>>,
    pub server: Box<ServerState>,
    /// What an earlier life left in the status.
    pub prior: Option<Box<Prior>>,
    /// What its probes read when they run.
    pub references: Vec<Referred>,
}

/// Which object of a name, and which state of its spec: its uid and generation.
pub type Version = (Text, i64);

/// A check as it is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) uid: Text,
    pub(super) generation: i64,
    pub(super) labels: Labels,
    pub(super) created: Option<Timestamp>,
    pub(super) overrides: Option<Text>,
    /// What its gates did when it was first seen, by its status.
    pub(super) found_gates: Arc<[GateStatus]>,
    /// What is wrong with the spec itself.
    pub(super) broken: Vec<Problem>,
    pub(super) prior: Option<Box<Prior>>,
    /// The engine runs it.
    pub(super) sent: bool,
    /// The Secrets and ConfigMaps that it reads.
    pub(super) references: Vec<Referred>,
    /// What was found of them; `None`: not looked up yet.
    pub(super) reference_problems: Option<Vec<Problem>>,
}

impl Entry {
    pub(super) fn version(&self) -> Version {
        (self.uid.clone(), self.generation)
    }
}

/// The checks that are members of `check`.
pub(super) fn members_of(check: &Check) -> impl Iterator<Item = ObjectKey> {
    check.targets.iter().filter_map(|target| match &target.place {
        Place::Check { name } => Some(ObjectKey::of(check.key.namespace.clone(), name.clone())),
        _ => None,
    })
}

//! From the resource as users write it to what is asked: every rule checked, every default filled in.
//!
//! The same for files and for a cluster, with no clock and no I/O. The rules are those of the CRD, written once more
//! (an older CRD may have let an object in); all problems are told at once, each with the path of its field.

mod build;
mod gate_rules;
pub mod graph;
pub mod metadata;
mod probe_rules;
mod problem;
pub mod schema;
mod spec_rules;
mod target_rules;
#[cfg(test)]
mod tests;

use crate::{
    api::{HealthCheck, rules},
    check::Check,
};

pub use build::DEFAULT_NAMESPACE;
#[cfg(feature = "cluster")]
pub use gate_rules::is_publishable;
pub use probe_rules::{is_path, parse_statuses};
pub use problem::{Problem, Problems};

/// Where the checks are to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In a cluster: Services, pods, Secrets and ConfigMaps can be looked up.
    #[default]
    Cluster,
    /// From files alone: what only a cluster knows is a problem.
    Standalone,
}

/// The check that `object` declares.
///
/// # Errors
/// Everything that is wrong with the object, at once.
pub fn compile(object: &HealthCheck, mode: Mode) -> Result<Check, Vec<Problem>> {
    let problems = validate(object, mode);
    if problems.is_empty() { Ok(build::check(object)) } else { Err(problems) }
}

/// Everything that is wrong with `object`; empty where nothing is.
#[must_use]
pub fn validate(object: &HealthCheck, mode: Mode) -> Vec<Problem> {
    let mut problems = Problems::default();
    if object.metadata.name.as_ref().is_some_and(|name| name.chars().count() > rules::MAX_NAME) {
        problems.add("metadata.name", rules::NAME_TOO_LONG);
    }
    match serde_json::to_value(&object.spec) {
        Ok(spec) => schema::check_spec(&spec, &mut problems),
        Err(error) => problems.add("spec", format!("cannot be read: {error}")),
    }
    spec_rules::check(&object.spec, mode, &mut problems);
    gate_rules::check(&object.spec, object.metadata.namespace.as_deref(), &mut problems);
    problems.into_vec()
}

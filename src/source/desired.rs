//! From checks in files to what the engine shall run.

use std::sync::Arc;

use crate::{check::Check, engine::Desired};

/// `check` with the endpoints of its hosts and scripts; nothing is known of it from before.
#[must_use]
pub fn desired(check: Arc<Check>) -> Desired {
    let endpoints = check.targets.iter().filter_map(crate::check::Target::own_endpoint).collect();
    Desired { check, endpoints, prior: None }
}

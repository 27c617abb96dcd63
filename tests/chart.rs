//! The Helm chart, under both Helm majors: what it renders, what it refuses, what it grants, and
//! that its generated parts are in step with what they are generated from.
// The same without the feature: once is enough.
#![cfg(feature = "cluster")]

#[path = "chart/alerts.rs"]
mod alerts;
#[path = "chart/drift.rs"]
mod drift;
#[path = "chart/notes.rs"]
mod notes;
#[path = "chart/objects.rs"]
mod objects;
#[path = "chart/rbac.rs"]
mod rbac;
#[path = "chart/refused.rs"]
mod refused;
#[path = "chart/schemas.rs"]
mod schemas;
#[path = "chart/security.rs"]
mod security;
mod support;
#[path = "chart/tilt.rs"]
mod tilt;
#[path = "chart/tools.rs"]
mod tools;

//! The `HealthCheck` resource as users write and read it: the one source of the CRD.
//!
//! Group `healthcheck-operator.dev`, version `v1alpha1`. The rules of the schema and their messages live in
//! [`rules`]; `compile` applies the same ones to files and to objects an older schema let in.

pub mod conditions;
pub mod crd;
mod duration;
mod gate;
mod int_or_string;
mod passive;
pub mod probe;
pub mod rules;
mod spec;
pub mod status;
mod target;

pub use duration::{Duration, ParseDurationError};
pub use gate::{AnnotationGate, EndpointSliceGate, Gate, GateMode, GatePolicy, PodReadinessGate};
pub use int_or_string::IntOrString;
pub use passive::{ActiveProbes, Passive, PassiveThresholds};
pub use spec::{Annotations, FailureThresholds, HealthCheck, HealthCheckSpec, InitialState};
pub use status::HealthCheckStatus;
pub use target::{
    CheckReference, LabelSelector, PodsReference, Resolve, SelectorOperator, SelectorRequirement, ServiceReference,
    Target,
};

/// API group of every resource of ours, and the prefix of our annotations.
pub const GROUP: &str = "healthcheck-operator.dev";
/// The one version there is.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of our resources.
pub const API_VERSION: &str = "healthcheck-operator.dev/v1alpha1";
/// The annotation by which an operator decides by hand: see [`crate::check::Overrides`].
pub const OVERRIDE_ANNOTATION: &str = "healthcheck-operator.dev/override";
/// `kind` of a check.
pub const KIND: &str = "HealthCheck";

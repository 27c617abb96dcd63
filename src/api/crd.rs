//! The CustomResourceDefinition, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use super::HealthCheck;

/// The definition of `healthchecks.healthcheck-operator.dev`.
#[must_use]
pub fn definition() -> CustomResourceDefinition {
    HealthCheck::crd()
}

/// The schema of a whole HealthCheck, as the API server gets it.
#[must_use]
pub fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The definition as YAML, ready for `kubectl apply -f -`.
///
/// # Errors
/// When the definition cannot be written as YAML, which a test rules out.
pub fn yaml() -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(&definition())
}

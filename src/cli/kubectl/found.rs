//! HealthChecks as the API server has them.

use anyhow::{Context as _, anyhow};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, Client, Config, ResourceExt as _, api::ListParams};

use super::ClusterArgs;
use crate::{
    api::HealthCheckStatus,
    check::{Health, ObjectKey},
    cli::exit::Failed,
    cluster::{CallError, Object, call, client, list_all},
    telemetry::Metrics,
};

/// A cluster, and the namespace that was asked for.
pub struct Cluster {
    pub config: Config,
    pub client: Client,
    pub namespace: String,
}

impl Cluster {
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn open(args: &ClusterArgs) -> anyhow::Result<Self> {
        let config = args.connection.connection().load().await?;
        let client = client(&config, &Metrics::default())?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { config, client, namespace })
    }

    pub fn api(&self) -> Api<Object> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The HealthChecks of these names, in their order.
    ///
    /// # Errors
    /// With the first name that is nobody's, or whatever the API server answered.
    pub async fn named(&self, names: &[String]) -> anyhow::Result<Vec<Object>> {
        let mut found = vec![];
        for name in names {
            match call(self.api().get(name)).await {
                Ok(object) => found.push(object),
                Err(CallError::NotFound(why)) => {
                    return Err(anyhow!(why)).with_context(|| {
                        format!(
                            "no HealthCheck '{name}' in namespace '{}': see `kubectl get healthchecks -A`",
                            self.namespace
                        )
                    });
                }
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(found)
    }

    /// All HealthChecks of the namespace, or of all namespaces.
    ///
    /// # Errors
    /// Whatever the API server answered.
    pub async fn all(&self, everywhere: bool, labels: Option<&str>) -> anyhow::Result<Vec<Object>> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.api() };
        let mut params = ListParams::default();
        if let Some(labels) = labels {
            params = params.labels(labels);
        }
        let mut found = vec![];
        list_all(&[api], &params, |object| found.push(object)).await.map_err(|error| refused(&error))?;
        Ok(found)
    }
}

/// What the API server said; only a name or a flag would be the user's to mend.
pub fn refused(error: &CallError) -> anyhow::Error {
    let error = match error {
        CallError::NotFound(_) => anyhow!(
            "the cluster has no HealthChecks: the CRD is not installed (`healthcheck-operator crds | kubectl apply -f -`)"
        ),
        other => anyhow!("{other}"),
    };
    Failed::wrap(error)
}

pub fn key(object: &Object) -> ObjectKey {
    ObjectKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

pub fn is_suspended(object: &Object) -> bool {
    object.spec.as_ref().is_ok_and(|spec| spec.suspend)
}

/// The verdict; `Unknown` where nobody gave one.
pub fn health(object: &Object) -> Health {
    let said = object.status.as_ref().and_then(|status| status.health.as_deref());
    said.and_then(Health::parse).unwrap_or(Health::Unknown)
}

/// Why the verdict is what it is; empty where all is well.
pub fn why(object: &Object) -> String {
    if let Err(problem) = &object.spec {
        return format!("{}: {}", problem.field_path, problem.message);
    }
    if is_suspended(object) {
        return "suspended".to_owned();
    }
    let Some(status) = &object.status else {
        return "no operator has looked at it yet".to_owned();
    };
    let not_ready = condition(status, "Ready").filter(|ready| ready.0 == "False");
    let verdict = condition(status, "Healthy").filter(|_| health(object) != Health::Healthy);
    not_ready.or(verdict).map(|(_, message)| message.to_owned()).unwrap_or_default()
}

fn condition<'a>(status: &'a HealthCheckStatus, name: &str) -> Option<(&'a str, &'a str)> {
    let condition = status.conditions.iter().find(|condition| condition.type_ == name)?;
    Some((&condition.status, &condition.message))
}

/// How long ago, in the two largest units that matter; `-` where nobody knows.
pub fn ago(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| "-".to_owned(), |time| lasted(now.duration_since(time.0)))
}

/// A span as people say it; what is in the future by clocks that differ is now.
pub fn lasted(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{minutes}m{:02}s", seconds % 60),
        600..7200 => format!("{minutes}m"),
        7200..86_400 => format!("{hours}h{:02}m", minutes % 60),
        86_400..864_000 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> Object {
        serde_json::from_value(value).expect("readable")
    }

    #[test]
    fn spans_are_told_in_their_largest_units() {
        let told = |seconds| lasted(SignedDuration::from_secs(seconds));
        let spans = [-5, 0, 119, 120, 599, 600, 7199, 7200, 86_399, 90_000, 863_999, 864_000];
        let expected = ["0s", "0s", "119s", "2m00s", "9m59s", "10m", "119m", "2h00m", "23h59m", "1d1h", "9d23h", "10d"];
        assert_eq!(spans.map(told), expected);
    }

    #[test]
    fn why_is_told_where_all_is_not_well() {
        let spec = json!({"targets": [{"name": "t", "host": "x", "port": 1}]});
        let with =
            |status: serde_json::Value| object(json!({"metadata": {"name": "a"}, "spec": spec, "status": status}));
        let conditions = |ready: &str| {
            json!([
                {"type": "Ready", "status": ready, "reason": "R", "message": "not accepted", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Healthy", "status": "False", "reason": "R", "message": "all down", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ])
        };
        let unhealthy = with(json!({"health": "Unhealthy", "conditions": conditions("True")}));
        assert_eq!((health(&unhealthy), why(&unhealthy).as_str()), (Health::Unhealthy, "all down"));
        assert_eq!(why(&with(json!({"health": "Unhealthy", "conditions": conditions("False")}))), "not accepted");
        assert_eq!(why(&with(json!({"health": "Healthy", "conditions": conditions("True")}))), "");
        let unseen = object(json!({"metadata": {"name": "a"}, "spec": spec}));
        assert_eq!((health(&unseen), why(&unseen).as_str()), (Health::Unknown, "no operator has looked at it yet"));
        let unreadable = object(json!({"metadata": {"name": "a"}, "spec": {"targets": 7}}));
        assert!(why(&unreadable).starts_with("spec.targets: "), "{}", why(&unreadable));
    }
}

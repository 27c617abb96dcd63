//! What statuses say once everything is let go. A replica that lives says so itself; this is for when none does.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{Client, ResourceExt};

use super::{
    Release, Report, WRITES,
    checks::{each, key},
    pass::{Pass, Tally},
};
use crate::{
    api::{HealthCheckStatus, conditions},
    check::{GateReason, ObjectKey, Text},
    cluster::{
        checks::Object,
        client::CallError,
        gates::report::{GateReport, GatesReport, RELEASED_MESSAGE, tell as tell_gates},
        patch::{StatusChange, write_status},
        server_state::ServerState,
        status::Acceptance,
    },
};

/// Says of every HealthCheck of ours with gates, where everything is let go, that they hold nothing any more, and nothing
/// else.
pub async fn tell(client: &Client, release: &Release, tally: &Tally, last: &Pass, report: &mut Report) {
    let mut changes = vec![];
    let listed = each(client, &release.selection, |check| {
        let Some(status) = check.status.as_ref().filter(|status| !status.gates.is_empty()) else { return };
        if !last.is_done(&check.namespace().unwrap_or_default()) {
            return;
        }
        report.told += 1;
        if !is_told(status) {
            changes.extend(changed(&check, tally));
        }
    })
    .await;
    if let Err(error) = listed {
        report.left.push(format!("what the statuses of HealthChecks say: {error}"));
    }
    let writes = changes.into_iter().map(|(key, known, status)| async move {
        let change = StatusChange::Gates(Box::new(status));
        let result = write_status(client, &key, &known, &change).await;
        (key, result)
    });
    let mut ended = stream::iter(writes).buffer_unordered(WRITES);
    while let Some((key, result)) = ended.next().await {
        match result {
            // Somebody who lives has written, or it is gone.
            Ok(_) | Err(CallError::Conflict(_) | CallError::Invalid(_) | CallError::NotFound(_)) => {}
            Err(error) => {
                report.told -= 1;
                report.left.push(format!("what the status of HealthCheck {key} says: {error}"));
            }
        }
    }
}

fn is_told(status: &HealthCheckStatus) -> bool {
    let condition = conditions::find(&status.conditions, conditions::GATES_APPLIED);
    condition.is_some_and(|condition| condition.reason == GateReason::Released.as_str())
}

/// What the status of `check` is to be, and what it is written to.
fn changed(check: &Object, tally: &Tally) -> Option<(ObjectKey, ServerState, HealthCheckStatus)> {
    let key = key(check);
    let mut status = check.status.clone()?;
    let previous = std::mem::take(&mut status.gates);
    let declared: Vec<Text> = previous.iter().map(|gate| gate.name.as_str().into()).collect();
    let acceptance = Acceptance { gates: Some(declared), ..Acceptance::default() };
    let gates = previous.iter().map(|gate| {
        let published = tally.get(&(key.clone(), gate.name.clone())).map(|objects| objects.values().sum());
        GateReport {
            desired: gate.desired_ready,
            published: published.unwrap_or(gate.published_ready),
            ..GateReport::idle(&gate.name.as_str().into(), GateReason::Released, RELEASED_MESSAGE)
        }
    });
    let report = GatesReport {
        uid: check.metadata.uid.as_deref().unwrap_or_default().into(),
        generation: status.observed_generation.unwrap_or_default(),
        gates: gates.collect(),
    };
    tell_gates(&mut status, &acceptance, Some(&report), &previous, Timestamp::now());
    // Fenced by the version that was read: whoever has written since knows better.
    let known = ServerState::of(&check.metadata, check.status.as_ref()).without_epoch(&check.metadata);
    Some((key, known, status))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(gates: &Value) -> Object {
        let object = json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3},
            "spec": {"targets": [{"name": "t", "host": "10.0.0.1", "port": 1}]},
            "status": {
                "observedGeneration": 3, "health": "Degraded", "epoch": 4, "gates": gates,
                "conditions": [{
                    "type": "Healthy", "status": "True", "reason": "MinimumMet", "message": "2/3",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        });
        serde_json::from_value(object).expect("readable")
    }

    #[test]
    fn of_a_gate_it_is_said_that_it_is_released_and_what_is_published() {
        let check = check(&json!([
            {"name": "a", "effective": "Enforced", "desiredReady": 2, "publishedReady": 2},
            {"name": "b", "effective": "Frozen", "desiredReady": 1, "publishedReady": 1},
        ]));
        assert!(!is_told(check.status.as_ref().expect("a status")));
        let slices = [("one".to_owned(), 100), ("two".to_owned(), 3)].into();
        let tally = Tally::from([((key(&check), "a".to_owned()), slices)]);
        let (_, known, status) = changed(&check, &tally).expect("a status");
        assert_eq!((known.epoch, known.resource_version.as_str()), (None, "7"));
        let said: Vec<_> = status.gates.iter().map(|gate| (&*gate.effective, gate.published_ready)).collect();
        assert_eq!(said, [("Released", 103), ("Released", 1)]);
        assert!(is_told(&status) && status.conditions.len() == 2);
        assert_eq!(status.health.as_deref(), Some("Degraded"), "that is somebody else's word");
    }
}

//! What the annotation of a check on the EndpointSlices of its Services says (`api.md`, *Annotations*). Pure.
//!
//! It is a cache, written on transitions only: what is there already is left alone as long as it says the same, even
//! where a failing endpoint now fails for another reason.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{check::HealthReason, engine::CheckView};

/// The longest value, in bytes.
const LIMIT: usize = 4096;

/// The value for `view`; `None` while there is nothing to say yet.
#[must_use]
pub fn value(view: &CheckView) -> Option<String> {
    if view.reason == HealthReason::Pending {
        return None;
    }
    let unhealthy: BTreeMap<&str, &str> = view
        .endpoints
        .iter()
        .filter(|row| row.state.is_unhealthy() && !row.label.is_empty())
        .map(|row| (&*row.label, row.reason_word().unwrap_or(row.state.as_str())))
        .collect();
    let head = json!({
        "health": view.health.as_str(),
        "summary": view.counts.summary(),
        "since": view.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    Some(fit(head, &unhealthy))
}

/// As many endpoints as fit, and the number of those that do not.
fn fit(head: Value, unhealthy: &BTreeMap<&str, &str>) -> String {
    let mut kept = unhealthy.len();
    loop {
        let mut value = head.clone();
        if !unhealthy.is_empty() {
            let list: Map<String, Value> =
                unhealthy.iter().take(kept).map(|(endpoint, reason)| ((*endpoint).to_owned(), json!(reason))).collect();
            value["unhealthy"] = Value::Object(list);
        }
        if kept < unhealthy.len() {
            value["truncated"] = json!(unhealthy.len() - kept);
        }
        let text = value.to_string();
        if text.len() <= LIMIT || kept == 0 {
            return text;
        }
        // Close to what fits at once, then one by one.
        kept = (kept * LIMIT / text.len()).min(kept - 1);
    }
}

/// Whether `text` is an annotation of ours: other annotations may share the prefix.
#[must_use]
pub fn is_ours(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value["health"].is_string() && value["summary"].is_string())
}

/// Whether two values tell of the same transition: the reasons of endpoints aside, they are the same.
#[must_use]
pub fn says_the_same(one: &str, other: &str) -> bool {
    fn essence(text: &str) -> Option<Value> {
        let mut value: Value = serde_json::from_str(text).ok()?;
        for reason in value["unhealthy"].as_object_mut().into_iter().flat_map(|list| list.values_mut()) {
            *reason = Value::Null;
        }
        Some(value)
    }
    one == other || matches!((essence(one), essence(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        check::{Counts, EndpointState, Health, ObjectKey, Reason},
        engine::{EndpointView, Live, Remarks},
    };

    fn view(failing: usize, reason: Reason) -> CheckView {
        let row = |index: usize| EndpointView {
            target: "svc".into(),
            label: format!("10.0.{}.{}:8080", index / 250, index % 250).into(),
            identity: index.to_string().into(),
            kind: crate::check::Kind::Tcp,
            optional: false,
            state: EndpointState::Unhealthy,
            stale: false,
            measured: true,
            since: jiff::Timestamp::UNIX_EPOCH.into(),
            remarks: Remarks { reason: Some(reason), ..Remarks::default() }.kept(),
            named: false,
            live: Live::default(),
        };
        CheckView {
            key: ObjectKey::new("shop", "db"),
            uid: "u".into(),
            generation: 1,
            labels: Arc::default(),
            suspended: false,
            health: Health::Degraded,
            reason: HealthReason::MinimumMet,
            message: String::new(),
            since: jiff::Timestamp::UNIX_EPOCH,
            counts: Counts { total: 3, healthy: 2, unhealthy: 1, unknown: 0 },
            targets: Arc::default(),
            unlisted: Health::Unknown,
            endpoints: (0..failing).map(row).collect(),
            outages: Arc::from([]),
            probes: "tcp".into(),
            interval: Duration::from_secs(1),
            idle_interval: Duration::from_secs(1),
            transitions: [0; 4],
            live: Arc::default(),
        }
    }

    #[test]
    fn the_value_is_as_documented() {
        let text = value(&view(1, Reason::TimeoutConnect)).expect("decided");
        let parsed: Value = serde_json::from_str(&text).expect("JSON");
        let wanted = json!({
            "health": "Degraded", "summary": "2/3", "since": "1970-01-01T00:00:00Z",
            "unhealthy": {"10.0.0.0:8080": "TimeoutConnect"},
        });
        assert_eq!(parsed, wanted);
        assert!(is_ours(&text) && !is_ours("yes") && !is_ours("{}"));
    }

    #[test]
    fn it_never_grows_beyond_its_limit_and_says_what_is_left_out() {
        for failing in [0, 90, 100, 110, 1000, 5000] {
            let text = value(&view(failing, Reason::ConnectionRefused)).expect("decided");
            assert!(text.len() <= LIMIT, "{failing}: {}", text.len());
            let parsed: Value = serde_json::from_str(&text).expect("JSON");
            let listed = parsed["unhealthy"].as_object().map_or(0, Map::len);
            assert_eq!(listed + parsed["truncated"].as_u64().unwrap_or(0) as usize, failing);
        }
    }

    #[test]
    fn another_reason_alone_is_no_transition() {
        let refused = value(&view(1, Reason::ConnectionRefused)).expect("decided");
        assert!(says_the_same(&refused, &value(&view(1, Reason::TimeoutConnect)).expect("decided")));
        assert!(!says_the_same(&refused, &value(&view(2, Reason::ConnectionRefused)).expect("decided")));
        assert!(!says_the_same(&refused, "{}") && !says_the_same("x", "y"));
    }

    #[test]
    fn nothing_is_said_before_the_first_verdict() {
        let pending = CheckView { reason: HealthReason::Pending, ..view(0, Reason::ConnectionRefused) };
        assert_eq!(value(&pending), None);
    }
}

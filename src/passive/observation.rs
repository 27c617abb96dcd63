//! The body of `POST /v1/observations`: a list of what was seen.

use std::{borrow::Cow, collections::HashMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess, Visitor},
};

use crate::{
    check::{ObjectKey, Observed},
    engine::{About, Observation, When},
};

/// The most reports of one batch.
pub const MAX_REPORTS: usize = 10_000;
/// The most that one report may stand for. No threshold is above 100.
const MAX_COUNT: u32 = 1_000_000;

/// A batch, read and not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub reports: Vec<Observation>,
    /// Every HealthCheck that is named, once, in the order of first mention.
    pub checks: Vec<Arc<ObjectKey>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    health_check: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    outcome: Outcome,
    #[serde(default = "one")]
    count: u32,
    /// RFC 3339; left out: now.
    #[serde(default)]
    time: Option<Timestamp>,
}

const fn one() -> u32 {
    1
}

struct Outcome(Observed);

/// Reads a batch.
///
/// # Errors
/// What is wrong, with the place of it: `[3].outcome.status: …`. Nothing of such a batch is taken.
pub fn parse(body: &[u8]) -> Result<Written, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let items: Vec<Item<'_>> = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let why = error.into_inner();
        if path == "." { why.to_string() } else { format!("{path}: {why}") }
    })?;
    json.end().map_err(|error| error.to_string())?;
    let mut written = Written { reports: Vec::with_capacity(items.len()), checks: vec![] };
    let mut known: HashMap<Cow<'_, str>, Arc<ObjectKey>> = HashMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let at = |why: String| format!("[{index}].{why}");
        if item.count == 0 || item.count > MAX_COUNT {
            return Err(at(format!("count: must be from 1 to {MAX_COUNT}")));
        }
        let check = match known.get(&item.health_check) {
            Some(key) => key.clone(),
            None => {
                let key = Arc::new(key(&item.health_check).map_err(at)?);
                known.insert(item.health_check, key.clone());
                written.checks.push(key.clone());
                key
            }
        };
        let about = About::Endpoint { check, endpoint: item.endpoint.into() };
        let when = item.time.map(|time| When { began: time, ended: time });
        written.reports.push(Observation { about, observed: item.outcome.0, count: item.count, when });
    }
    Ok(written)
}

fn key(text: &str) -> Result<ObjectKey, String> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        !namespace.is_empty() && !name.is_empty() && !name.contains('/') && text.len() <= 512
    });
    let (namespace, name) = parts.ok_or("healthCheck: must be \"NAMESPACE/NAME\"")?;
    Ok(ObjectKey::new(namespace, name))
}

impl<'de> Deserialize<'de> for Outcome {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OutcomeVisitor)
    }
}

struct OutcomeVisitor;

impl OutcomeVisitor {
    fn word<E: de::Error>(word: &str) -> Result<Outcome, E> {
        match word {
            "connectFailure" => Ok(Outcome(Observed::ConnectFailure)),
            "timeout" => Ok(Outcome(Observed::Timeout)),
            other => Err(E::unknown_variant(other, &["status", "connectFailure", "timeout"])),
        }
    }
}

impl<'de> Visitor<'de> for OutcomeVisitor {
    type Value = Outcome;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{\"status\": CODE}, \"connectFailure\" or \"timeout\"")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Outcome, E> {
        Self::word(word)
    }

    /// `{"status": 503}`; `{"timeout": true}` and the like for those who write an object in every case.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outcome, A::Error> {
        let Some(word) = map.next_key::<Cow<'_, str>>()? else {
            return Err(de::Error::invalid_length(0, &self));
        };
        let outcome = if word == "status" {
            let status: u16 = map.next_value()?;
            if !(100..600).contains(&status) {
                return Err(de::Error::custom("status must be from 100 to 599"));
            }
            Outcome(Observed::Status(status))
        } else {
            map.next_value::<IgnoredAny>()?;
            Self::word(&word)?
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(outcome),
            Some(_) => Err(de::Error::custom("an outcome is exactly one of status, connectFailure and timeout")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(body: &str) -> Result<Vec<(String, Observed, u32)>, String> {
        let written = parse(body.as_bytes())?;
        let one = |report: Observation| {
            let About::Endpoint { check, endpoint } = report.about else { panic!("an address") };
            (format!("{check} {endpoint}"), report.observed, report.count)
        };
        Ok(written.reports.into_iter().map(one).collect())
    }

    #[test]
    fn every_form_of_an_outcome_is_read() {
        let body = r#"[
            {"healthCheck": "shop/db", "endpoint": "10.0.0.1:80", "outcome": {"status": 503}, "count": 7},
            {"healthCheck": "shop/db", "endpoint": "pg-a", "outcome": "connectFailure"},
            {"healthCheck": "shop/web", "endpoint": "[fd00::1]:80", "outcome": {"timeout": true}}
        ]"#;
        let expected = [
            ("shop/db 10.0.0.1:80".to_owned(), Observed::Status(503), 7),
            ("shop/db pg-a".to_owned(), Observed::ConnectFailure, 1),
            ("shop/web [fd00::1]:80".to_owned(), Observed::Timeout, 1),
        ];
        assert_eq!(seen(body), Ok(expected.into()));
        let checks = parse(body.as_bytes()).expect("valid").checks;
        assert_eq!(checks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/db", "shop/web"]);
        assert_eq!(seen("[]"), Ok(vec![]));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let item = |rest: &str| format!(r#"[{{"healthCheck": "a/b", "endpoint": "x", {rest}}}]"#);
        for (body, part) in [
            ("", "EOF"),
            ("{}", "expected a sequence"),
            ("[] []", "trailing"),
            (r#"[{"endpoint": "x", "outcome": "timeout"}]"#, "missing field `healthCheck`"),
            (r#"[{"healthCheck": "a", "endpoint": "x", "outcome": "timeout"}]"#, "[0].healthCheck: must be"),
            (r#"[{"healthCheck": "a/b/c", "endpoint": "x", "outcome": "timeout"}]"#, "[0].healthCheck: must be"),
            (&item(r#""outcome": {"status": 600}"#), "[0].outcome: status must be from 100 to 599"),
            (&item(r#""outcome": {"status": 99}"#), "from 100 to 599"),
            (&item(r#""outcome": {"status": "503"}"#), "[0].outcome"),
            (&item(r#""outcome": "refused""#), "[0].outcome: unknown variant `refused`"),
            (&item(r#""outcome": {}"#), "invalid length 0"),
            (&item(r#""outcome": {"status": 200, "timeout": true}"#), "exactly one of"),
            (&item(r#""outcome": "timeout", "count": 0"#), "[0].count: must be from 1 to 1000000"),
            (&item(r#""outcome": "timeout", "count": 1000001"#), "[0].count: must be"),
            (&item(r#""outcome": "timeout", "time": "yesterday""#), "[0].time: "),
            (&item(r#""outcome": "timeout", "time": 1704507612"#), "[0].time: "),
            (&item(r#""outcome": "timeout", "times": 3"#), "[0].times: unknown field"),
        ] {
            let why = seen(body).expect_err(part);
            assert!(why.contains(part), "{body}: {why}");
        }
        assert!(seen(&item(r#""outcome": {"status": 599}, "count": 1000000"#)).is_ok());
        let timed = parse(item(r#""outcome": "timeout", "time": "2030-01-02T03:04:05.678+01:00""#).as_bytes());
        let when = timed.expect("valid").reports[0].when.expect("a time");
        assert_eq!((when.began, when.ended), ("2030-01-02T02:04:05.678Z".parse().expect("a time"), when.began));
    }
}

//! What is asked beyond what is declared, as JSON has it.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use super::Refusal;
use crate::{
    api,
    check::{Check, Endpoint, Probe, ProbeKind, StatusRange, Text},
    compile::{is_path, parse_statuses},
};

/// The longest timeout that may be asked for.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// Which of the declared endpoints are probed, and what is asked of them in place of what is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Question {
    /// One target alone; `None`: all of them.
    pub target: Option<String>,
    method: Option<Text>,
    path: Option<Text>,
    expected: Option<Vec<StatusRange>>,
    timeout: Option<Duration>,
}

impl Question {
    /// Reads `{target, method, path, expectedStatus, timeout}`, all of them optional; nothing is `{}`.
    ///
    /// # Errors
    /// Names the field and the mend.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let body: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        let Value::Object(fields) = body else { return Err("the body must be an object, such as {}".to_owned()) };
        let mut question = Self::default();
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "target" => question.target = Some(text(name, value)?.to_owned()),
                "method" => question.method = Some(method(text(name, value)?)?),
                "path" => question.path = Some(path(text(name, value)?)?),
                "expectedStatus" => question.expected = Some(statuses(value)?),
                "timeout" => question.timeout = Some(timeout(text(name, value)?)?),
                _ => {
                    return Err(format!("{name}: no such field; want target, method, path, expectedStatus or timeout"));
                }
            }
        }
        Ok(question)
    }

    /// As declared, of all targets or of one.
    #[must_use]
    pub fn as_declared(target: Option<String>) -> Self {
        Self { target, ..Self::default() }
    }

    /// Those of `endpoints` that are asked, each with its probe as the question has it.
    ///
    /// # Errors
    /// When there is none, or what is asked means nothing to one of them.
    pub(super) fn choose(&self, check: &Check, endpoints: Vec<Endpoint>) -> Result<Vec<Endpoint>, Refusal> {
        if let Some(target) = &self.target
            && !check.targets.iter().any(|declared| *declared.name == **target)
        {
            return Err(Refusal::NotFound(format!("HealthCheck \"{}\" has no target \"{target}\"", check.key)));
        }
        let chosen = |endpoint: &Endpoint| self.target.as_ref().is_none_or(|target| *endpoint.target == **target);
        let chosen: Vec<_> = endpoints.into_iter().filter(chosen).collect();
        if chosen.is_empty() {
            let why = "has no endpoint that could be probed: it has none now, or follows another HealthCheck";
            return Err(Refusal::Invalid(match &self.target {
                Some(target) => format!("target: '{target}' {why}"),
                None => format!("HealthCheck \"{}\" {why}", check.key),
            }));
        }
        chosen
            .into_iter()
            .map(|endpoint| Ok(Endpoint { probe: Arc::new(self.change(&endpoint)?), ..endpoint }))
            .collect()
    }

    fn change(&self, endpoint: &Endpoint) -> Result<Probe, Refusal> {
        let mut probe = (*endpoint.probe).clone();
        if let Some(timeout) = self.timeout {
            probe.timeout = timeout;
        }
        let fields = [
            ("method", self.method.is_some()),
            ("path", self.path.is_some()),
            ("expectedStatus", self.expected.is_some()),
        ];
        let Some((field, _)) = fields.into_iter().find(|(_, given)| *given) else { return Ok(probe) };
        let kind = probe.kind_name();
        let ProbeKind::Http(http) = &mut probe.kind else {
            let target = &endpoint.target;
            return Err(Refusal::Invalid(format!("{field}: target '{target}' is asked by {kind}, not by http")));
        };
        if let Some(path) = &self.path {
            http.path = path.clone();
        }
        if let Some(method) = &self.method {
            http.method = method.clone();
            if !matches!(&**method, "POST" | "PUT") {
                http.body = None;
            }
            if &**method == "HEAD" {
                // Such an answer has none.
                http.expected_body = None;
            }
        }
        if let Some(expected) = &self.expected {
            http.expected_statuses.clone_from(expected);
            http.unhealthy_statuses = vec![];
        }
        Ok(probe)
    }
}

fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| format!("{name}: must be a string, in quotes"))
}

fn method(text: &str) -> Result<Text, String> {
    let method = serde_json::from_value::<api::probe::Method>(text.into());
    let method = method.map_err(|_| format!("method: must be one of GET, HEAD, POST, PUT, OPTIONS, not '{text}'"))?;
    Ok(method.as_str().into())
}

fn path(text: &str) -> Result<Text, String> {
    if is_path(text) && text.len() <= 2048 {
        return Ok(text.into());
    }
    Err("path: must begin with '/' and be visible ASCII without '#', at most 2048 characters".to_owned())
}

fn statuses(value: &Value) -> Result<Vec<StatusRange>, String> {
    let one = |value: &Value| {
        let status = match value {
            Value::Number(number) => number.as_i64().map(api::IntOrString::Int),
            Value::String(text) => Some(text.as_str().into()),
            _ => None,
        };
        status.and_then(|status| parse_statuses(&status)).ok_or_else(|| {
            format!("expectedStatus: must be a status or range within 100-599, such as 200 or \"200-299\", not {value}")
        })
    };
    match value {
        Value::Array(all) if !all.is_empty() && all.len() <= 32 => all.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<api::Duration>().map(|timeout| timeout.to_std()).ok();
    parsed
        .filter(|timeout| !timeout.is_zero() && *timeout <= MAX_TIMEOUT)
        .ok_or_else(|| format!("timeout: must be a duration from 1ms to 60s, such as 2s, not '{text}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_what_is_wrong_with_it_names_the_field() {
        for body in ["", " \n", "{}", r#"{"target": null}"#] {
            assert_eq!(Question::parse(body.as_bytes()), Ok(Question::default()), "{body:?}");
        }
        let all = br#"{"target": "a", "method": "HEAD", "path": "/x?y", "expectedStatus": [204, "300-302"], "timeout": "1s500ms"}"#;
        assert_eq!(
            Question::parse(all),
            Ok(Question {
                target: Some("a".into()),
                method: Some("HEAD".into()),
                path: Some("/x?y".into()),
                expected: Some(vec![StatusRange { first: 204, last: 204 }, StatusRange { first: 300, last: 302 }]),
                timeout: Some(Duration::from_millis(1500)),
            })
        );
        for (body, says) in [
            ("nonsense", "not JSON"),
            ("[]", "must be an object"),
            (r#"{"port": 1}"#, "port: no such field; want target,"),
            (r#"{"target": 1}"#, "target: must be a string"),
            (r#"{"method": "get"}"#, "method: must be one of GET,"),
            (r#"{"path": "x"}"#, "path: must begin with '/'"),
            (r#"{"path": "@evil"}"#, "path: must begin with '/'"),
            (r#"{"path": "/a b"}"#, "path: "),
            (r#"{"expectedStatus": 99}"#, "expectedStatus: must be a status"),
            (r#"{"expectedStatus": "2xx"}"#, "not \"2xx\""),
            (r#"{"expectedStatus": []}"#, "expectedStatus: "),
            (r#"{"timeout": "0s"}"#, "timeout: must be a duration from 1ms to 60s"),
            (r#"{"timeout": "2m"}"#, "not '2m'"),
            (r#"{"timeout": "soon"}"#, "timeout: "),
        ] {
            let why = Question::parse(body.as_bytes()).expect_err(body);
            assert!(why.contains(says), "{body}: {why}");
        }
    }
}

//! The parts of an object around its spec, which a cluster's API server checks by itself.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::{Problems, schema::unknown_field, target_rules};
use crate::api::rules;

const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(rules::DNS_SUBDOMAIN_PATTERN).ok());
static NAMESPACE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(rules::DNS_LABEL_PATTERN).ok());

/// Checks everything of an object but its spec and status: the fields there are, and `metadata`.
pub fn check_top(object: &Value, problems: &mut Problems) {
    let Some(object) = object.as_object() else { return };
    refuse_unknown(object, &TOP, "", problems);
    problems.require(object.contains_key("spec"), "spec", "is required: add it");
    match object.get("metadata") {
        Some(Value::Object(metadata)) => check_metadata(metadata, problems),
        Some(_) => problems.add("metadata", "must be a mapping"),
        None => problems.add("metadata.name", "is required: add it"),
    }
}

fn check_metadata(metadata: &Map<String, Value>, problems: &mut Problems) {
    refuse_unknown(metadata, &METADATA, "metadata.", problems);
    match metadata.get("name") {
        None => problems.add("metadata.name", "is required: add it"),
        // Its length is a rule of its own.
        Some(name) => check_name(name, &NAME, 253, "metadata.name", problems),
    }
    if let Some(namespace) = metadata.get("namespace") {
        check_name(namespace, &NAMESPACE, 63, "metadata.namespace", problems);
    }
    for (field, is_value) in [("labels", target_rules::is_label_value as fn(&str) -> bool), ("annotations", |_| true)] {
        match metadata.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (key, value) in entries {
                    let path = format!("metadata.{field}.{key}");
                    problems.require(target_rules::is_label_key(key), &path, "is no key of a label or annotation");
                    match value.as_str() {
                        Some(value) => problems.require(is_value(value), &path, "is no value of a label"),
                        None => problems.add(path, "must be a string: put it in quotes"),
                    }
                }
            }
            Some(_) => problems.add(format!("metadata.{field}"), "must be a mapping of strings"),
        }
    }
}

fn check_name(name: &Value, pattern: &Option<Regex>, longest: usize, path: &str, problems: &mut Problems) {
    let Some(name) = name.as_str() else {
        return problems.add(path, "must be a string: put it in quotes");
    };
    problems.require(name.len() <= longest, path, &format!("must have at most {longest} characters"));
    if let Some(pattern) = pattern
        && !pattern.is_match(name)
    {
        let meaning = rules::meaning_of(pattern.as_str()).unwrap_or(pattern.as_str());
        problems.add(path, format!("must be {meaning}"));
    }
}

fn refuse_unknown(object: &Map<String, Value>, known: &[&str], prefix: &str, problems: &mut Problems) {
    let names: Vec<String> = known.iter().map(|&name| name.to_owned()).collect();
    for name in object.keys().filter(|name| !known.contains(&name.as_str())) {
        problems.add(format!("{prefix}{name}"), unknown_field(name, names.iter(), None));
    }
}

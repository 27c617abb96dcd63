//! `docs/reference/fields.md`, from the schema of the CustomResourceDefinition.

use std::fmt::Write as _;

use healthcheck_operator::api::crd;
use serde_json::Value;

use crate::{cell, hold};

const HEAD: &str = "\
# Fields of a HealthCheck

Written from the CustomResourceDefinition by `UPDATE_REFERENCE=1 cargo test --test reference`; a test holds the two together. `kubectl explain healthcheck.spec`
says the same. `[]` is an item of a list; **bold** is required where what holds it is given.
";

#[test]
fn fields_are_those_of_the_definition() {
    let schema = crd::schema();
    let mut page = HEAD.to_owned();
    for part in ["spec", "status"] {
        let _ = write!(page, "\n## {part}\n\n| field | type | default and bounds | meaning |\n|---|---|---|---|\n");
        fields(&mut page, &schema["properties"][part], "");
        rules(&mut page, &schema["properties"][part], part);
    }
    hold("fields.md", &page);
}

fn fields(page: &mut String, object: &Value, path: &str) {
    let required: Vec<_> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let shown = if required.contains(&&**name) { format!("**`{path}`**") } else { format!("`{path}`") };
        let about = field["description"].as_str().unwrap_or_default();
        let _ = writeln!(page, "| {shown} | {} | {} | {} |", kind(field), cell(&bounds(field)), cell(about));
        fields(page, field, &path);
        fields(page, &field["items"], &format!("{path}[]"));
    }
}

fn kind(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return "integer or string".to_owned();
    }
    match field["type"].as_str().unwrap_or("object") {
        "array" => format!("list of {}", kind(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map to {}", kind(&field["additionalProperties"]))
        }
        other => other.to_owned(),
    }
}

fn bounds(field: &Value) -> String {
    let mut told = vec![];
    if !field["default"].is_null() {
        told.push(format!("default `{}`", field["default"]));
    }
    for (key, words) in [
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "characters: at least"),
        ("maxLength", "characters: at most"),
        ("minItems", "items: at least"),
        ("maxItems", "items: at most"),
        ("maxProperties", "entries: at most"),
    ] {
        // The schema has whole numbers as 1.0.
        told.extend(field[key].as_f64().map(|bound| format!("{words} {bound}")));
    }
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<_> = words.iter().map(|word| format!("`{}`", word.as_str().unwrap_or_default())).collect();
        told.push(format!("one of {}", words.join(", ")));
    }
    if let Some(pattern) = field["pattern"].as_str() {
        told.push(format!("matches `{pattern}`"));
    }
    told.join("; ")
}

/// What the API server says where a rule is broken.
fn rules(page: &mut String, schema: &Value, path: &str) {
    let mut found = vec![];
    gather(schema, path, &mut found);
    if !found.is_empty() {
        let _ = write!(page, "\n### Rules of {path}\n\n| where | what is said where it is broken |\n|---|---|\n");
        for (path, message) in found {
            let _ = writeln!(page, "| `{path}` | {} |", cell(&message));
        }
    }
}

fn gather(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let field = rule["fieldPath"].as_str().unwrap_or_default();
        let message = rule["message"].as_str().or(rule["messageExpression"].as_str()).unwrap_or_default();
        found.push((format!("{path}{field}"), message.to_owned()));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        gather(field, &format!("{path}.{name}"), found);
    }
    if schema["items"].is_object() {
        gather(&schema["items"], &format!("{path}[]"), found);
    }
}

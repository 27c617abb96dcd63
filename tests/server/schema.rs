//! docs/healthchecks.schema.json is what the API answers.

use std::sync::Arc;

use healthcheck_operator::{
    check::{EndpointState, Health},
    engine::{Board, EndpointView, Outage},
    server::{Access, document_schema},
};
use serde_json::{Value, json};

use crate::support::{Check, Fixture, at, config, endpoint, fill, remark};

const FILE: &str = "docs/healthchecks.schema.json";

#[test]
fn the_schema_in_docs_is_what_the_types_say() {
    let path = format!("{}/{FILE}", env!("CARGO_MANIFEST_DIR"));
    let expected = serde_json::to_string_pretty(&document_schema()).expect("JSON") + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &expected).expect("docs/ is writable");
    }
    let found = std::fs::read_to_string(&path).expect(FILE);
    assert!(found == expected, "{FILE} is out of step: run `UPDATE_SCHEMA=1 cargo test --test server schema`");
}

/// Everything wrong with `value` under `schema`, by JSON Schema's rules as far as our schema uses them; beyond them, a
/// field that the schema does not know is wrong. A keyword that is not understood panics: nothing passes unread.
fn complaints(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object() else { panic!("{at}: {schema} is no schema") };
    for (keyword, rule) in rules {
        let wrong = match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference into the file");
                let target = root.pointer(pointer).unwrap_or_else(|| panic!("{rule} leads nowhere"));
                complaints(root, target, value, at, found);
                false
            }
            "anyOf" => {
                let fits = |one: &Value| {
                    let mut found = Vec::new();
                    complaints(root, one, value, at, &mut found);
                    found.is_empty()
                };
                !rule.as_array().expect("a list").iter().any(fits)
            }
            "type" => {
                let words = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                !words.iter().any(|word| is_a(word.as_str().expect("a word"), value))
            }
            "enum" => !rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_f64().is_some_and(|number| number < rule.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_some_and(|number| number > rule.as_f64().expect("a number")),
            "format" => match (rule.as_str().expect("a word"), value) {
                ("date-time", Value::String(text)) => text.parse::<jiff::Timestamp>().is_err(),
                ("date-time" | "double" | "int64" | "uint16" | "uint32" | "uint64", _) => false,
                other => panic!("{at}: format {other:?}"),
            },
            "required" => {
                let missing = |name: &&Value| value.get(name.as_str().expect("a name")).is_none();
                rule.as_array().expect("a list").iter().any(|name| missing(&name))
            }
            "properties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}/{name}");
                    match rule.get(name) {
                        Some(schema) => complaints(root, schema, value, &at, found),
                        None => found.push(format!("{at} is not in the schema")),
                    }
                }
                false
            }
            "additionalProperties" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    complaints(root, rule, value, &format!("{at}/{name}"), found);
                }
                false
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    complaints(root, rule, value, &format!("{at}/{index}"), found);
                }
                false
            }
            "description" | "title" => false,
            other => panic!("{at}: this test does not understand {other:?}"),
        };
        if wrong {
            found.push(format!("{at}: {value} breaks {keyword}: {rule}"));
        }
    }
}

fn is_a(word: &str, value: &Value) -> bool {
    match word {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type is called {other:?}"),
    }
}

fn against(definition: &str, value: &Value) -> Vec<String> {
    let schema = document_schema();
    let mut found = Vec::new();
    complaints(&schema, &schema["$defs"][definition], value, "", &mut found);
    found
}

fn fill_everything(board: &Board) {
    fill(board);
    Check::new("shop", "whole", Health::Unhealthy)
        .message("why")
        .labels(&[("tier", "web")])
        .endpoint(remark(endpoint("psp", "psp.example:443", EndpointState::MostlyUnhealthy), |remarks| {
            remarks.certificate_expires = Some(1_800_000_000);
            remarks.addresses = Some([endpoint("psp", "10.0.2.7:443", EndpointState::Healthy)].into());
        }))
        .endpoint(EndpointView {
            live: healthcheck_operator::engine::Live::default(),
            ..endpoint("new", "", EndpointState::Unknown)
        })
        .edit(|view| {
            let of = |end| Outage { start: view.since, end, reason: "Stale".into(), targets: vec!["psp".into()] };
            view.outages = Arc::new([of(None), of(Some(at("2026-11-02T10:00:00Z")))]);
            view.live = Arc::default();
        })
        .put(board);
}

#[tokio::test]
async fn answers_keep_to_the_schema() {
    for synced in [true, false] {
        let board = Arc::new(Board::new());
        let fixture = Fixture::on(board, &config(&[]), Access::Open).await;
        fill_everything(&fixture.board);
        if synced {
            fixture.board.set_synced();
        }
        for (path, definition) in [
            ("/v1/healthchecks", "List"),
            ("/v1/healthchecks/shop", "List"),
            ("/v1/healthchecks/nowhere", "List"),
            ("/v1/healthchecks/shop/whole", "Single"),
            ("/v1/healthchecks/shop/legacy", "Single"),
        ] {
            let answer: Value = serde_json::from_str(&fixture.admin(path).await.body).expect("JSON");
            assert_eq!(against(definition, &answer), Vec::<String>::new(), "{path}");
        }
    }
}

#[tokio::test]
async fn what_does_not_keep_to_the_schema_is_found() {
    let fixture = Fixture::start().await;
    fill_everything(&fixture.board);
    let good: Value = serde_json::from_str(&fixture.admin("/v1/healthchecks/shop/whole").await.body).expect("JSON");
    for (pointer, bad) in [
        ("/health", json!("Fine")),
        ("/since", json!("yesterday")),
        ("/since", json!(null)),
        ("/generation", json!("7")),
        ("/endpoints/0/state", json!("Degraded")),
        ("/endpoints/0/latencySeconds", json!("1ms")),
        ("/endpoints/0/addresses/0/stale", json!(0)),
        ("/endpoints/0/counters/http", json!(-1)),
        ("/outages/1/end", json!("soon")),
        ("/transitions/Healthy", json!(1.5)),
        ("/labels", json!([])),
    ] {
        let mut broken = good.clone();
        *broken.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in {good}")) = bad;
        assert!(!against("Single", &broken).is_empty(), "{pointer}: {broken}");
    }
    let mut more = good.clone();
    more["surprise"] = json!(1);
    assert_eq!(against("Single", &more), ["/surprise is not in the schema"]);
    let mut less = good;
    less.as_object_mut().expect("an object").remove("summary");
    assert_eq!(against("Single", &less).len(), 1);
}

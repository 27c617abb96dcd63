//! `crds/` is what the types say.

use healthcheck_operator::{
    api::crd,
    check::{EndpointState, GateReason, Health},
    engine::OUTAGE_TARGETS,
    gate::Effective,
};

const FILE: &str = "crds/healthchecks.healthcheck-operator.dev.yaml";

#[test]
fn the_file_in_crds_is_what_the_types_say() {
    let path = format!("{}/{FILE}", env!("CARGO_MANIFEST_DIR"));
    let expected = crd::yaml().expect("the definition can be written");
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::write(&path, &expected).expect("crds/ is writable");
    }
    let found = std::fs::read_to_string(&path).expect("crds/ holds the definition");
    assert!(
        found == expected,
        "{FILE} is out of step with src/api: run `UPDATE_CRDS=1 cargo test --test crds` and look at the difference"
    );
}

#[test]
fn the_words_of_the_status_are_the_words_of_the_engine() {
    let schema = crd::schema();
    let status = &schema["properties"]["status"]["properties"];
    let health: Vec<_> = Health::ALL.iter().map(|health| health.as_str()).collect();
    assert_eq!(status["health"]["enum"], serde_json::json!(health));
    let states: Vec<_> = EndpointState::ALL.iter().map(|state| state.as_str()).collect();
    assert_eq!(status["targets"]["items"]["properties"]["state"]["enum"], serde_json::json!(states));
    let outage = &status["outages"]["items"]["properties"];
    assert_eq!(outage["targets"]["maxItems"], serde_json::json!(OUTAGE_TARGETS));
    let gates: Vec<_> = GateReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(status["gates"]["items"]["properties"]["effective"]["enum"], serde_json::json!(gates));
    assert!(Effective::ALL.iter().all(|effective| GateReason::parse(effective.as_str()).is_some()));
}

/// `kubectl explain` prints these; a field without one is a field nobody can use.
#[test]
fn every_field_of_the_spec_says_in_one_paragraph_what_it_is() {
    let schema = crd::schema();
    let mut undocumented = Vec::new();
    visit(&schema["properties"]["spec"], "spec", &mut |path, field| {
        let text = field["description"].as_str().unwrap_or_default();
        if text.is_empty() || !text.ends_with('.') || text.contains('\n') {
            undocumented.push(format!("{path}: {text:?}"));
        }
    });
    assert!(undocumented.is_empty(), "{undocumented:#?}");
}

/// An explicit null passes a nullable field, and `has()` in a rule then no longer means what it says.
#[test]
fn no_field_of_the_spec_takes_null() {
    let schema = crd::schema();
    visit(&schema["properties"]["spec"], "spec", &mut |path, field| {
        assert_ne!(field["nullable"], serde_json::json!(true), "{path}");
    });
}

/// The API server estimates what a rule costs from these bounds.
#[test]
fn every_text_list_and_map_of_the_spec_is_bounded() {
    let schema = crd::schema();
    visit(&schema["properties"]["spec"], "spec", &mut |path, field| {
        let bounded = match field["type"].as_str() {
            Some("string") => !field["maxLength"].is_null() || !field["enum"].is_null(),
            Some("array") => !field["maxItems"].is_null(),
            // One that has no fields at all holds nothing: the API server drops whatever is in it.
            Some("object") => field["additionalProperties"].is_null() || !field["maxProperties"].is_null(),
            _ => true,
        };
        assert!(bounded, "{path}");
    });
}

/// Calls `look` on every named field below `schema`, items of lists included.
fn visit(schema: &serde_json::Value, path: &str, look: &mut impl FnMut(&str, &serde_json::Value)) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        look(&path, field);
        visit(field, &path, look);
        visit(&field["items"], &format!("{path}[]"), look);
    }
}

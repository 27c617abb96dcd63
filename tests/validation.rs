//! `compile` and kube-cel against each other on the corpus of refusals; `tests/apiserver/validation.rs` adds a real API
//! server to the same table.

#[path = "corpus/mod.rs"]
mod corpus;

use std::collections::BTreeSet;

use corpus::Case;
use healthcheck_operator::{
    api::{GROUP, VERSION, crd},
    compile::{Mode, schema},
    source::{Source, load},
};
use kube::core::cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

/// What `validate` says of a manifest: field and message of each fault.
fn compiled(manifest: &Value) -> Vec<(String, String)> {
    let source = Source { name: "case.yaml".to_owned(), text: manifest.to_string() };
    let faults = load(&[source], Mode::Cluster).faults;
    faults.into_iter().map(|fault| (fault.field_path.unwrap_or_default(), fault.message)).collect()
}

/// What the rules of the CRD say of it, evaluated here.
fn evaluated(schema: &CompiledSchema, manifest: &Value) -> Vec<(String, String)> {
    let mut manifest = manifest.clone();
    // The API server does so before it looks at any rule; kube-cel leaves it to the caller.
    schema::drop_nulls(&mut manifest["spec"]);
    match Validator::new().validate_compiled(schema, &manifest, None) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| (error.field_path, error.message)).collect(),
    }
}

/// The schema without the rules that tell numbers from strings, and the messages of those: kube-cel does not know
/// `type`. They are left to `compile` and to the real API server.
fn schema_for_kube_cel() -> (Value, BTreeSet<String>) {
    fn strip(schema: &mut Value, stripped: &mut BTreeSet<String>) {
        if let Some(rules) = schema["x-kubernetes-validations"].as_array_mut() {
            rules.retain(|rule| {
                let known = !rule["rule"].as_str().unwrap_or_default().contains("type(");
                if !known {
                    stripped.insert(rule["message"].as_str().unwrap_or_default().to_owned());
                }
                known
            });
        }
        for child in schema.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
            if child.is_object() {
                strip(child, stripped);
            }
        }
    }
    let (mut schema, mut stripped) = (crd::schema(), BTreeSet::new());
    strip(&mut schema, &mut stripped);
    (schema, stripped)
}

fn for_each_case(mut judge: impl FnMut(&Case) -> Result<(), String>) {
    let mut failures = Vec::new();
    for file in corpus::read() {
        for case in &file.cases {
            if let Err(failure) = judge(case) {
                failures.push(format!("{}: {}: {failure}", file.name, case.rule));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn files_are_refused_with_the_message_at_the_field_and_near_misses_accepted() {
    for_each_case(|case| {
        let expected = (case.field.clone(), case.message.clone());
        let found = compiled(&case.refused());
        let right = if case.among { found.contains(&expected) } else { found == [expected.clone()] };
        if !right {
            return Err(format!("wanted {expected:?}, found {found:?}"));
        }
        let found = compiled(&case.accepted());
        if found.is_empty() { Ok(()) } else { Err(format!("the near miss is refused: {found:?}")) }
    });
}

#[test]
fn the_rules_of_the_crd_say_the_same_as_the_files_do() {
    let (schema, beyond) = schema_for_kube_cel();
    let schema = compile_schema(&schema);
    assert!(!schema.has_errors(), "{:?}", schema.compilation_errors());
    assert_eq!(beyond.len(), 8, "more rules than are known to be beyond kube-cel: {beyond:#?}");
    for_each_case(|case| {
        let found = evaluated(&schema, &case.accepted());
        if !found.is_empty() {
            return Err(format!("the near miss is refused: {found:?}"));
        }
        let found = evaluated(&schema, &case.refused());
        // Plain bounds are none of its business; what is malformed must not trip a rule that reads it.
        let right = match &case.server {
            Some(_) => case.among || found.is_empty(),
            None if beyond.contains(&case.message) => found.is_empty(),
            None => {
                let said = found.iter().any(|(path, message)| *message == case.message && case.is_at(path));
                said && (case.among || found.len() == 1)
            }
        };
        if right { Ok(()) } else { Err(format!("found {found:?}")) }
    });
}

#[test]
fn every_rule_of_the_crd_has_a_case() {
    fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            messages.insert(rule["message"].as_str().expect("every rule has a message").to_owned());
        }
        for child in schema.as_object().into_iter().flat_map(|object| object.values()) {
            collect(child, messages);
        }
    }
    let mut rules = BTreeSet::new();
    collect(&crd::schema(), &mut rules);
    let files = corpus::read();
    let covered: BTreeSet<String> =
        files.iter().flat_map(|file| &file.cases).map(|case| case.message.clone()).collect();
    let missing: Vec<_> = rules.difference(&covered).collect();
    assert!(rules.len() > 30 && missing.is_empty(), "no case in tests/corpus for {missing:#?}");
}

/// What the API server says of a bound, as a part of its message. It words the two for lists and maps alike.
const BOUNDS: [(&str, &str); 10] = [
    ("minimum", "should be greater than or equal to"),
    ("maximum", "should be less than or equal to"),
    ("minLength", "chars long"),
    ("maxLength", "may not be"),
    ("minItems", "should have at least"),
    ("maxItems", "at most"),
    ("maxProperties", "at most"),
    ("pattern", "should match"),
    ("enum", "supported values"),
    ("required", "Required value"),
];

/// Each bound of each field: a field may have several, and a case for one says nothing of the others.
#[test]
fn every_bound_of_every_field_has_a_case() {
    fn collect(schema: &Value, path: &str, bounds: &mut BTreeSet<(String, &'static str)>) {
        for (bound, said) in BOUNDS.into_iter().filter(|(bound, _)| *bound != "required") {
            if !schema[bound].is_null() {
                bounds.insert((plain(path), said));
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            bounds.insert((plain(&format!("{path}.{name}")), "Required value"));
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            collect(field, &format!("{path}.{name}"), bounds);
        }
        for (part, step) in [("items", "[]"), ("additionalProperties", ".k")] {
            if schema[part].is_object() {
                collect(&schema[part], &format!("{path}{step}"), bounds);
            }
        }
    }
    /// Without indices; a target's own probe is the same type as the default one, a gate's selector as a target's.
    fn plain(path: &str) -> String {
        let without_indices: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
        without_indices
            .replace("spec.targets[].probe", "spec.probe")
            .replace("probe.tcp.tls", "probe.http.tls")
            .replace("probe.grpc.tls", "probe.http.tls")
            .replace("spec.gates[].podReadiness.selector", "spec.targets[].pods.selector")
    }
    let mut bounds = BTreeSet::new();
    collect(&crd::schema()["properties"]["spec"], "spec", &mut bounds);
    let files = corpus::read();
    let mut covered = BTreeSet::new();
    for case in files.iter().flat_map(|file| &file.cases) {
        let Some(server) = &case.server else { continue };
        let said = BOUNDS.iter().find(|(_, said)| server.contains(said));
        assert!(said.is_some() || server.contains("of type") || server.contains("Duplicate"), "{server}: which bound?");
        covered.extend(said.map(|(_, said)| (plain(&case.field), *said)));
    }
    let missing: Vec<_> = bounds.difference(&covered).collect();
    assert!(bounds.len() > 100 && missing.is_empty(), "no case in tests/corpus for {missing:#?}");
}

/// `kubectl apply` of the file in `crds/` and this test must be about the same thing.
#[test]
fn the_corpus_is_about_the_version_that_is_served() {
    let definition = crd::definition();
    assert_eq!((definition.spec.group.as_str(), definition.spec.versions[0].name.as_str()), (GROUP, VERSION));
    assert_eq!(definition.spec.versions.len(), 1);
}

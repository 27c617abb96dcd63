//! Files as people write them, right and wrong.

use super::*;

fn load_text(text: &str) -> Loaded {
    load(&[Source { name: "checks.yaml".to_owned(), text: text.to_owned() }], Mode::Standalone)
}

fn faults(text: &str) -> Vec<String> {
    load_text(text).faults.iter().map(ToString::to_string).collect()
}

fn check(name: &str, targets: &str) -> String {
    format!(
        "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: {name}}}\nspec:\n  targets: {targets}\n"
    )
}

const TARGET: &str = "[{name: a, host: db, port: 1}]";

#[test]
fn several_documents_lists_and_json_are_read() {
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", check("c", TARGET).trim_end().replace('\n', "\n  "));
    let json = r#"{"apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck",
        "metadata": {"name": "d", "namespace": "shop"}, "spec": {"targets": [{"name": "a", "host": "db", "port": 1}]}}"#;
    let text = format!("# nothing\n---\n{}---\n{}---\n{list}\n---\n{json}\n", check("a", TARGET), check("b", TARGET));
    let loaded = load_text(&text);
    assert_eq!(loaded.faults, []);
    let keys: Vec<_> = loaded.declared.iter().map(|declared| declared.check.key.to_string()).collect();
    assert_eq!(keys, ["default/a", "default/b", "default/c", "shop/d"]);
    assert_eq!(loaded.declared[1].line, 9);
}

#[test]
fn every_fault_has_file_line_column_and_path() {
    let text = "\
apiVersion: healthcheck-operator.dev/v1alpha1
kind: HealthCheck
metadata:
  name: db
spec:
  intervall: 1s
  interval: 1s
  timeout: 2s
  targets:
  - name: a
    host: http://db
    port: 70000
";
    assert_eq!(
        faults(text),
        [
            "checks.yaml:6:3: spec.intervall: unknown field; did you mean interval?",
            "checks.yaml:8:3: spec.timeout: timeout must not be above interval: lower timeout or raise interval",
            "checks.yaml:11:5: spec.targets[0].host: host must be an IP address (IPv6 without brackets) or a DNS name, without scheme, port or path",
            "checks.yaml:12:5: spec.targets[0].port: port must be a number from 1 to 65535 without quotes, or a port name of at most 15 lower-case letters, digits and single '-', with at least one letter",
        ]
    );
}

#[test]
fn a_fault_takes_no_other_check_with_it() {
    let text = format!("{}---\n{}", check("good", TARGET), check("bad", "[]"));
    let loaded = load_text(&text);
    assert_eq!((loaded.declared.len(), loaded.faults.len()), (1, 1));
    assert_eq!(loaded.faults[0].to_string(), "checks.yaml:11:3: spec.targets: must have from 1 to 64 items");
}

#[test]
fn what_is_no_health_check_is_refused_by_name() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    assert_eq!(faults(deployment), ["checks.yaml:2:1: kind: Deployment is not read here: only HealthCheck is"]);
    assert_eq!(
        faults(&check("a", TARGET).replace("v1alpha1", "v1")),
        ["checks.yaml:1:1: apiVersion: must be healthcheck-operator.dev/v1alpha1, not healthcheck-operator.dev/v1"]
    );
    assert_eq!(faults("spec: {}"), ["checks.yaml:1:1: kind: is missing: write kind: HealthCheck"]);
    assert_eq!(
        faults("- a\n"),
        ["checks.yaml:1:1: must be a mapping with apiVersion, kind, metadata and spec of a HealthCheck"]
    );
    assert_eq!(
        faults("kind: List\nitems:\n- kind: Secret\n"),
        ["checks.yaml:3:3: items[0].kind: Secret is not read here: only HealthCheck is"]
    );
}

#[test]
fn metadata_is_checked_as_the_api_server_would() {
    let text = "\
apiVersion: healthcheck-operator.dev/v1alpha1
kind: HealthCheck
metadata:
  name: Db
  namespase: shop
  labels: {tier: 1, a b: c}
specs: {}
";
    assert_eq!(
        faults(text),
        [
            "checks.yaml:1:1: spec: is required: add it",
            "checks.yaml:4:3: metadata.name: must be the name of an object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
            "checks.yaml:5:3: metadata.namespase: unknown field; did you mean namespace?",
            "checks.yaml:6:12: metadata.labels.tier: must be a string: put it in quotes",
            "checks.yaml:6:21: metadata.labels.a b: is no key of a label or annotation",
            "checks.yaml:7:1: specs: unknown field; did you mean spec?",
        ]
    );
}

#[test]
fn a_name_declared_twice_keeps_the_first_and_tells_of_the_second() {
    let sources = [
        Source { name: "a.yaml".to_owned(), text: check("x", TARGET) },
        Source { name: "b.yaml".to_owned(), text: check("x", TARGET) },
    ];
    let loaded = load(&sources, Mode::Standalone);
    assert_eq!(loaded.declared.iter().map(|declared| declared.file.as_str()).collect::<Vec<_>>(), ["a.yaml"]);
    assert_eq!(
        loaded.faults[0].to_string(),
        "b.yaml:3:12: metadata.name: default/x is declared in a.yaml:1 already: rename or remove one"
    );
}

#[test]
fn a_circle_is_a_fault_of_each_check_in_it() {
    let text = format!(
        "{}---\n{}---\n{}",
        check("a", "[{name: b, healthCheck: {name: b}}]"),
        check("b", "[{name: a, healthCheck: {name: a}}]"),
        check("c", TARGET)
    );
    let loaded = load_text(&text);
    assert_eq!(loaded.declared.len(), 1);
    assert_eq!(
        loaded.faults[0].to_string(),
        "checks.yaml:5:37: spec.targets[0].healthCheck.name: a -> b -> a is a circle of HealthChecks: take one of them out"
    );
    assert_eq!(loaded.faults.len(), 2);
}

#[test]
fn a_file_that_is_no_yaml_says_where() {
    let found = faults("kind: HealthCheck\n  spec: [\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("checks.yaml:2:") && found[0].contains(": not YAML: "), "{found:?}");
}

#[test]
fn a_file_that_ends_in_no_yaml_gives_nothing_and_takes_nothing_with_it() {
    let broken = format!("{}---\n{}---\nspec: [\n", check("a", TARGET), check("b", "{name: web}"));
    let sources = [("a.yaml", broken), ("c.yaml", check("c", TARGET))];
    let sources = sources.map(|(name, text)| Source { name: name.to_owned(), text });
    let loaded = load(&sources, Mode::Standalone);
    assert_eq!(loaded.declared.iter().map(|one| &*one.check.key.name).collect::<Vec<_>>(), ["c"]);
    assert_eq!(loaded.faults.len(), 1, "{:?}", loaded.faults);
    assert!(loaded.faults[0].message.starts_with("not YAML: "), "{:?}", loaded.faults);
}

#[test]
fn a_dump_of_a_cluster_is_read_and_its_status_left_aside() {
    let text = check("a", TARGET).replace(
        "metadata: {name: a}",
        "metadata: {name: a, uid: u-1, generation: 3, creationTimestamp: \"2026-11-21T12:00:00Z\", resourceVersion: \"5\"}\nstatus: {health: Healthy, whatever: 1}",
    );
    let loaded = load_text(&text);
    assert_eq!(loaded.faults, []);
    assert_eq!((&*loaded.declared[0].check.uid, loaded.declared[0].check.generation), ("u-1", 3));
}

#[test]
fn a_wrong_unit_is_told_with_the_right_ones() {
    for value in ["10", "10 s", "1d", "1.5s", "ten", "\"\""] {
        let text = check("a", TARGET).replace("spec:\n", &format!("spec:\n  interval: {value}\n"));
        let found = faults(&text);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("with the units h, m, s or ms, such as 10s"), "{found:?}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\n)?[ -~\n&*éa-c:{}\\[\\]#|>'\"-]{0,200}") {
        let _ = load_text(&text);
    }
}

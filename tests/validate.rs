//! `validate` and `crds` of the built binary, as a pipeline or a person uses them.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

const GOOD: &str = "\
apiVersion: healthcheck-operator.dev/v1alpha1
kind: HealthCheck
metadata: {name: orders-db, namespace: shop}
spec:
  targets:
  - {name: pg, host: 10.20.0.11, port: 5432}
";

fn run(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    // A command that does not read it closes the pipe early, which is its right.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("the binary ends")
}

/// Exit code, standard output and standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("writable");
    path.display().to_string()
}

#[test]
fn a_good_manifest_is_ok() {
    let output = run(&["validate", "-f", "-"], GOOD);
    assert_eq!(told(&output), (0, "ok shop/orders-db (-:1)\n".to_owned(), String::new()));
}

#[test]
fn a_member_that_no_file_declares_is_a_warning() {
    let both = "\
apiVersion: healthcheck-operator.dev/v1alpha1
kind: HealthCheck
metadata: {name: shop, namespace: shop}
spec:
  targets:
  - {name: db, healthCheck: {name: orders-db}}
  - {name: psp, healthCheck: {name: payments}}
---
"
    .to_owned()
        + GOOD;
    let (code, out, err) = told(&run(&["validate", "-f", "-"], &both));
    let warning = "-:1: target psp asks HealthCheck shop/payments, which no file here declares";
    assert_eq!((code, out.lines().count(), err), (0, 2, format!("warning: {warning}\n")));
    let (_, out, _) = told(&run(&["validate", "-f", "-", "-o", "json"], &both));
    let verdict: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&verdict["valid"], &verdict["warnings"]), (&true.into(), &serde_json::json!([warning])));
}

#[test]
fn an_override_that_cannot_be_read_is_a_warning() {
    let annotations =
        "namespace: shop, annotations: {healthcheck-operator.dev/override: \"pq=Healthy until 2030-01-31T18:00:00Z\"}";
    let (code, out, err) = told(&run(&["validate", "-f", "-"], &GOOD.replace("namespace: shop", annotations)));
    let warning = "-:1: override 'pq=Healthy until 2030-01-31T18:00:00Z': there is no target 'pq'; did you mean pg?";
    assert_eq!((code, out, err), (0, "ok shop/orders-db (-:1)\n".to_owned(), format!("warning: {warning}\n")));
}

#[test]
fn every_fault_of_every_file_is_told_and_the_exit_code_is_2() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let a = write(directory.path(), "a.yaml", &GOOD.replace("5432", "0"));
    let b = write(directory.path(), "b.yaml", &GOOD.replace("spec:", "spec:\n  intervall: 1s\n  interval: 10"));
    let path = directory.path().display().to_string();
    let (code, out, err) = told(&run(&["validate", "-f", &path], ""));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    assert!(lines[0].starts_with(&format!("{a}:6:34: spec.targets[0].port: port must be a number")), "{err}");
    assert_eq!(lines[1], format!("{b}:5:3: spec.intervall: unknown field; did you mean interval?"));
    assert!(lines[2].starts_with(&format!("{b}:6:3: spec.interval: must be a duration")), "{err}");
}

#[test]
fn machines_read_the_result_as_json_or_yaml() {
    let (code, out, _) = told(&run(&["validate", "-f", "-", "-o", "json"], GOOD));
    let verdict: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &verdict["valid"], &verdict["checks"][0]["name"]), (0, &true.into(), &"orders-db".into()));

    let (code, out, _) = told(&run(&["validate", "-f", "-", "-o", "yaml"], &GOOD.replace("5432", "70000")));
    let verdict: serde_json::Value = serde_saphyr::from_str(&out).expect("YAML");
    let fault = &verdict["faults"][0];
    assert_eq!((code, &verdict["valid"], &fault["line"]), (2, &false.into(), &6.into()));
    assert_eq!(fault["fieldPath"], "spec.targets[0].port");
}

#[test]
fn what_needs_a_cluster_is_a_fault_only_when_asked() {
    let manifest = GOOD.replace("host: 10.20.0.11, port: 5432", "service: {name: pg}");
    assert_eq!(told(&run(&["validate", "-f", "-"], &manifest)).0, 0);
    let (code, _, err) = told(&run(&["validate", "--standalone", "-f", "-"], &manifest));
    assert_eq!(code, 2);
    assert!(err.starts_with("-:6:16: spec.targets[0].service: a service target needs a cluster"), "{err}");
}

#[test]
fn gates_are_no_fault_without_a_cluster_and_said_to_do_nothing() {
    let manifest = format!("{GOOD}  gates:\n  - {{name: traffic, endpointSlice: {{service: orders-db}}}}\n");
    assert_eq!(told(&run(&["validate", "-f", "-"], &manifest)), (0, "ok shop/orders-db (-:1)\n".into(), String::new()));
    let line = "ok shop/orders-db (-:1); gates do nothing without a cluster\n";
    assert_eq!(told(&run(&["validate", "--standalone", "-f", "-"], &manifest)), (0, line.to_owned(), String::new()));
}

#[test]
fn nothing_to_check_is_a_fault() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().display().to_string();
    let (code, _, err) = told(&run(&["validate", "-f", &path], ""));
    assert_eq!((code, err), (2, format!("{path}: holds no HealthCheck: give a file or directory that does\n")));
    let absent = format!("{path}/absent.yaml");
    let (code, _, err) = told(&run(&["validate", "-f", &absent], ""));
    assert_eq!((code, err.starts_with(&format!("{absent}: cannot be read: "))), (2, true), "{err}");
}

#[test]
fn the_examples_are_valid() {
    let examples = format!("{}/examples", env!("CARGO_MANIFEST_DIR"));
    let (code, out, err) = told(&run(&["validate", "-f", &examples], ""));
    assert_eq!(code, 0, "{err}");
    assert!(out.lines().count() > 0 && out.lines().all(|line| line.starts_with("ok ")), "{out}");
}

#[test]
fn crds_prints_what_is_in_crds() {
    let (code, out, err) = told(&run(&["crds"], ""));
    assert_eq!((code, err.as_str()), (0, ""));
    let file = format!("{}/crds/healthchecks.healthcheck-operator.dev.yaml", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(out, std::fs::read_to_string(file).expect("crds/ holds the definition"));
}

//! Objects of Kubernetes' own kinds hold against its schemas, oldest and newest version.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::tools::{self, Values, of_kind, title};

/// The schemas of every Kubernetes version, a Python package.
const PACKAGE: &str = "kubernetes-validate==1.37.0";

/// Kinds the schemas do not hold, each defined by a CRD of somebody.
const SKIPPED: [&str; 4] = ["HTTPRoute", "PodMonitor", "PrometheusRule", "ServiceMonitor"];

/// The Python with the package, in a cache outside `target/`.
fn python() -> Option<&'static PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(venv) {
        Ok(path) => Some(path),
        Err(why) => {
            tools::skip(why);
            None
        }
    }
}

fn venv() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join("healthcheck-operator");
    let dir = cache.join(PACKAGE.replace("==", "-"));
    let python = dir.join("bin/python");
    if dir.join("ready").exists() {
        return Ok(python);
    }
    std::fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let lock = std::fs::File::create(cache.join("kubernetes-validate.lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    if !dir.join("ready").exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]))?;
        std::fs::write(dir.join("ready"), "").map_err(|e| e.to_string())?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))) }
}

/// Complaints of the schemas of one Kubernetes version about objects, a line each.
fn complaints(python: &PathBuf, version: &str, objects: &[Value]) -> Vec<String> {
    let mut child = Command::new(python)
        .arg(tools::top().join("tests/chart/validate.py"))
        .arg(version)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let input = serde_json::to_vec(objects).expect("JSON");
    child.stdin.take().expect("stdin").write_all(&input).expect("python reads");
    let out = child.wait_with_output().expect("python ends");
    assert!(out.status.success(), "validate.py failed");
    let lines: Vec<Value> = serde_json::from_slice(&out.stdout).expect("a list");
    lines.iter().map(|l| l.as_str().expect("a line").to_owned()).collect()
}

#[test]
fn rendered_objects_are_valid_in_the_oldest_and_the_newest_kubernetes() {
    let Some(python) = python() else { return };
    let mut seen = BTreeSet::new();
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        let known: Vec<Value> = objects.into_iter().filter(|o| !SKIPPED.iter().any(|k| o["kind"] == *k)).collect();
        seen.extend(known.iter().map(|o| o["kind"].as_str().expect("a kind").to_owned()));
        for version in ["1.33", "1.37"] {
            assert_eq!(complaints(python, version, &known), Vec::<String>::new(), "{}, {version}", file.display());
        }
    }
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    ] {
        assert!(seen.contains(kind), "{kind} was validated: {seen:?}");
    }
}

/// The check above can fail: an unknown field and a wrong type in a rendered object are seen.
#[test]
fn the_schemas_see_a_wrong_object() {
    let Some(python) = python() else { return };
    let Some(objects) = tools::objects(&Values::ci("default")) else { return };
    let mut deployment = of_kind(&objects, "Deployment")[0].clone();
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = json!("Always");
    let mut service = of_kind(&objects, "Service")[0].clone();
    service["spec"]["ports"][0]["port"] = json!("health");
    let lines = complaints(python, "1.33", &[deployment.clone(), service.clone()]);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains(&title(&deployment)) && lines[0].contains("imagePolicy"), "{lines:?}");
    assert!(lines[1].contains(&title(&service)) && lines[1].contains("health"), "{lines:?}");
}

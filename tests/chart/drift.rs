//! Generated parts of the chart are in step: `charts/tools/generate.sh` mends all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::tools::{self, Values, only};

const MEND: &str = "run charts/tools/generate.sh";

/// What the generator makes of values.yaml now, in a directory of its own; `None` without npm.
fn generated() -> Option<&'static Path> {
    static DIR: OnceLock<Result<tempfile::TempDir, String>> = OnceLock::new();
    let made = DIR.get_or_init(|| {
        let has_npm = Command::new("npm").arg("--version").output().is_ok_and(|out| out.status.success());
        if !has_npm {
            return Err("no npm for the chart's generator".to_owned());
        }
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let script = tools::top().join("charts/tools/generate.sh");
        let out = Command::new(script).arg(dir.path()).output().map_err(|e| e.to_string())?;
        // With npm there, a failure is a defect of values.yaml or of the scripts, and no reason to skip.
        assert!(out.status.success(), "generate.sh: {}", String::from_utf8_lossy(&out.stderr));
        Ok(dir)
    });
    match made {
        Ok(dir) => Some(dir.path()),
        Err(why) => {
            tools::skip(why);
            None
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_values_table_of_the_readme_is_in_step() {
    let Some(dir) = generated() else { return };
    assert_eq!(read(&tools::chart().join("README.md")), read(&dir.join("README.md")), "{MEND}");
}

#[test]
fn the_values_schema_is_in_step() {
    let Some(dir) = generated() else { return };
    assert_eq!(read(&tools::chart().join("values.schema.json")), read(&dir.join("values.schema.json")), "{MEND}");
}

fn yaml_files(dir: &Path) -> BTreeMap<PathBuf, String> {
    let list = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    list.map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .map(|path| (path.file_name().expect("a name").into(), read(&path)))
        .collect()
}

#[test]
fn the_charts_copy_of_the_crds_is_in_step() {
    let ours = yaml_files(&tools::top().join("crds"));
    assert!(!ours.is_empty());
    assert_eq!(yaml_files(&tools::chart().join("files/crds")), ours, "{MEND}");
}

/// Through the template goes the very CRD: only labels and annotations are added.
#[test]
fn the_rendered_crd_is_the_one_of_the_types() {
    let Some(objects) = tools::objects(&Values::ci("default")) else { return };
    let mut rendered = only(&objects, "CustomResourceDefinition").clone();
    let file = yaml_files(&tools::top().join("crds")).into_values().next().expect("a CRD");
    let mut written = tools::parse(&file).remove(0);
    for crd in [&mut rendered, &mut written] {
        let metadata = crd["metadata"].as_object_mut().expect("metadata");
        metadata.remove("labels");
        metadata.remove("annotations");
        whole_numbers(crd);
    }
    assert!(rendered == written, "the rendered CRD differs from crds/ in more than labels and annotations");
}

/// 0.0 and 0 are one number in YAML and in the API server, and two in a comparison.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 1e15) {
                *value = format!("{float:.0}").parse::<i64>().expect("a whole number").into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

/// An open object would let a misspelt key pass in silence. Open on purpose are maps of one type,
/// parts of Kubernetes' own API, and `global`, which belongs to parent charts.
#[test]
fn no_object_of_the_schema_is_open_by_accident() {
    const OPEN: [&str; 15] = [
        "/global",
        "/affinity/nodeAffinity",
        "/affinity/podAffinity",
        "/affinity/podAntiAffinity",
        "/topologySpreadConstraints[]/labelSelector",
        "/extraEnv[]/valueFrom",
        "/runner/extraEnv[]/valueFrom",
        "/extraVolumes[]",
        "/extraObjects[]",
        "/networkPolicy/healthFrom[]/podSelector",
        "/networkPolicy/healthFrom[]/namespaceSelector",
        "/networkPolicy/adminFrom[]/podSelector",
        "/networkPolicy/adminFrom[]/namespaceSelector",
        "/networkPolicy/envoyFrom[]/podSelector",
        "/networkPolicy/envoyFrom[]/namespaceSelector",
    ];
    let schema = read(&tools::chart().join("values.schema.json"));
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let mut open = Vec::new();
    let mut seen = 0;
    walk(&schema, "", &mut |node, path| {
        seen += 1;
        if node["type"] == "object"
            && !node["additionalProperties"].is_object()
            && node["additionalProperties"] != false
        {
            open.push(path.to_owned());
        }
    });
    open.sort();
    let mut want = OPEN.to_vec();
    want.sort_unstable();
    assert!(seen > 150, "the walk sees the schema: {seen}");
    assert_eq!(open, want);
}

fn walk(node: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(node, path);
    for (key, child) in node["properties"].as_object().into_iter().flatten() {
        walk(child, &format!("{path}/{key}"), visit);
    }
    if node["items"].is_object() {
        walk(&node["items"], &format!("{path}[]"), visit);
    }
    if node["additionalProperties"].is_object() {
        walk(&node["additionalProperties"], &format!("{path}/*"), visit);
    }
    for child in node["oneOf"].as_array().into_iter().flatten() {
        walk(child, path, visit);
    }
}

/// A value that no template reads does nothing, and says nothing about it.
#[test]
fn every_value_is_read_by_a_template() {
    let mut templates = String::new();
    for file in ["templates", "templates/tests"] {
        for entry in std::fs::read_dir(tools::chart().join(file)).expect("templates") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                templates.push_str(&read(&path));
            }
        }
    }
    let values = tools::parse(&read(&tools::chart().join("values.yaml"))).remove(0);
    let mut leaves = Vec::new();
    collect(&values, "", &mut leaves);
    assert!((70..=140).contains(&leaves.len()), "a small surface: {} values", leaves.len());
    for leaf in leaves {
        let names: Vec<_> = leaf.split('.').collect();
        // Some groups are handed over whole: the last name, or the group before it, must be there.
        let read = (1..=names.len()).any(|n| templates.contains(&format!(".{}", names[..n].join("."))))
            || names.iter().any(|name| templates.contains(&format!("\"{name}\"")));
        assert!(read, "no template reads {leaf}");
    }
}

fn collect(node: &Value, path: &str, leaves: &mut Vec<String>) {
    match node.as_object() {
        Some(map) if !map.is_empty() => {
            for (key, child) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                collect(child, &path, leaves);
            }
        }
        _ => leaves.push(path.to_owned()),
    }
}

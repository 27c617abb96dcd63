//! What is granted, held against golden files: a verb more or less is a decision, never an accident.
//! `UPDATE_GOLDEN=1 cargo test --test chart rbac` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::tools::{self, Values, of_kind, strings};

/// Every rule of a render, a line each, sorted by where it holds.
fn granted(objects: &[Value]) -> String {
    let mut text = String::new();
    let mut roles: Vec<&Value> = of_kind(objects, "ClusterRole");
    roles.extend(of_kind(objects, "Role"));
    for role in roles {
        let metadata = &role["metadata"];
        let place = metadata["namespace"].as_str().map(|n| format!("{n}/")).unwrap_or_default();
        let _ = writeln!(text, "{} {place}{}", role["kind"].as_str().unwrap(), metadata["name"].as_str().unwrap());
        for key in ["view", "edit", "admin"] {
            if metadata["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{key}")] == "true" {
                let _ = writeln!(text, "  aggregated to {key}");
            }
        }
        for bound in bound_to(objects, role) {
            let _ = writeln!(text, "  bound to {bound}");
        }
        for rule in role["rules"].as_array().expect("rules") {
            text.push_str(&lines(rule));
        }
    }
    text
}

fn lines(rule: &Value) -> String {
    let mut text = String::new();
    let verbs = strings(&rule["verbs"]).join(" ");
    let names = strings(&rule["resourceNames"]).join(" ");
    let names = if names.is_empty() { names } else { format!(" named {names}") };
    for group in strings(&rule["apiGroups"]) {
        for resource in strings(&rule["resources"]) {
            let group = if group.is_empty() { "core" } else { group };
            let _ = writeln!(text, "  {group} {resource}{names}: {verbs}");
        }
    }
    text
}

fn bound_to(objects: &[Value], role: &Value) -> Vec<String> {
    let kind = format!("{}Binding", role["kind"].as_str().unwrap());
    of_kind(objects, &kind)
        .into_iter()
        .filter(|b| {
            b["roleRef"]["name"] == role["metadata"]["name"]
                && b["metadata"]["namespace"] == role["metadata"]["namespace"]
        })
        .flat_map(|b| b["subjects"].as_array().expect("subjects"))
        .map(|s| format!("{}/{}", s["namespace"].as_str().unwrap(), s["name"].as_str().unwrap()))
        .collect()
}

fn golden(name: &str, values: &Values) {
    let Some(objects) = tools::objects(values) else { return };
    let found = granted(&objects);
    let path = tools::top().join(format!("tests/chart/rbac/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("the golden file can be written");
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, want, "{}: see the module's comment", path.display());
}

#[test]
fn rbac_by_default() {
    golden("default", &Values::ci("default"));
}

#[test]
fn rbac_with_namespaces_and_features_off() {
    golden("namespaces", &Values::ci("namespaces"));
}

#[test]
fn rbac_with_features_off() {
    golden(
        "features-off",
        &Values::set(&[
            "features.annotations=false",
            "features.endpointSlices=false",
            "features.podReadiness=false",
            "features.events=false",
        ]),
    );
}

#[test]
fn rbac_with_secrets() {
    golden("secrets", &Values::set(&[r#"rbac.secrets="Cluster""#]));
}

#[test]
fn rbac_with_namespaces() {
    golden("namespaced", &Values::set(&[r#"watchNamespaces=["shop"]"#]));
}

#[test]
fn nothing_is_granted_when_rbac_is_off() {
    let Some(objects) = tools::objects(&Values::ci("bring-your-own")) else { return };
    for kind in ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"] {
        assert!(of_kind(&objects, kind).is_empty(), "{kind}");
    }
}

/// Whatever the values: no wildcard, no Secret listed or watched, nothing deleted but slices, nobody impersonated.
#[test]
fn no_values_grant_what_the_operator_must_never_have() {
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        let mut roles = of_kind(&objects, "ClusterRole");
        roles.extend(of_kind(&objects, "Role"));
        for role in
            roles.into_iter().filter(|r| r["metadata"]["labels"]["app.kubernetes.io/component"] != "user-access")
        {
            for rule in role["rules"].as_array().expect("rules") {
                let verbs: BTreeSet<_> = strings(&rule["verbs"]).into_iter().collect();
                let what = format!("{}: {rule}", file.display());
                assert!(!rule.to_string().contains('*'), "{what}");
                let slices = strings(&rule["resources"]) == ["endpointslices"];
                assert!(slices || !verbs.contains("delete"), "only slices that a gate has made are deleted: {what}");
                for verb in ["deletecollection", "impersonate", "bind", "escalate", "approve"] {
                    assert!(!verbs.contains(verb), "{what}");
                }
                if strings(&rule["resources"]).contains(&"secrets") {
                    assert_eq!(verbs, BTreeSet::from(["get"]), "{what}");
                }
            }
        }
    }
}

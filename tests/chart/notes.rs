//! NOTES.txt shows the next command, in the right namespace, and warns of what the values mean.

use std::io::Write;
use std::process::Command;

use crate::tools::{self, NAMESPACE, RELEASE, Values};

/// Notes come out of `helm install` alone, and only Helm 4 does a client-side dry run with no cluster.
fn notes(values: &Values) -> Option<String> {
    let chart = tools::chart();
    let chart = chart.to_str().expect("UTF-8");
    let args = ["install", RELEASE, chart, "--namespace", NAMESPACE, "--dry-run=client"];
    let out = tools::helm("helm4", &args, Some(values))?;
    assert!(out.status.success(), "{values:?}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    Some(text.split_once("\nNOTES:\n").expect("notes").1.to_owned())
}

#[test]
fn the_example_and_the_commands_fit_the_release() {
    let Some(text) = notes(&Values::ci("default")) else { return };
    for line in [
        "kubectl apply -f - <<'EOF'",
        "kubectl -n default get healthchecks",
        "kubectl -n default describe healthcheck first",
        "kubectl -n hco port-forward svc/rel-healthcheck-operator 8080:8080 &",
        "curl -i 'http://127.0.0.1:8080/healthz?verbose'",
        "helm test rel --namespace hco",
        "take the readinessGates that HealthChecks answer out of your pod templates",
        "--clusterrole=rel-healthcheck-operator-secret-reader --serviceaccount=hco:rel-healthcheck-operator",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("WARNING"), "defaults are safe: {text}");

    let text = notes(&Values::ci("namespaces")).expect("helm");
    for line in ["namespace: shop", "labels: {team: web}", "kubectl -n shop get healthchecks"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let text = notes(&Values::ci("everything")).expect("helm");
    for line in ["svc/checks 8080:80 &", "curl -k -i 'https://127.0.0.1:8080/healthz?verbose'"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

/// The example is what a user pastes first: the binary must find nothing wrong with it.
#[test]
fn the_example_is_a_valid_check() {
    for name in ["default", "namespaces"] {
        let Some(text) = notes(&Values::ci(name)) else { return };
        let yaml = text.split_once("<<'EOF'\n").expect("begins").1.split_once("\n  EOF").expect("ends").0;
        let yaml: String = yaml.lines().map(|l| format!("{}\n", l.strip_prefix("  ").unwrap_or(l))).collect();
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
        file.write_all(yaml.as_bytes()).expect("written");
        let out = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"))
            .args(["validate", "--filename"])
            .arg(file.path())
            .output()
            .expect("the binary starts");
        assert!(out.status.success(), "{}\n{yaml}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn warnings_come_from_the_values() {
    let cases = [
        (vec!["replicaCount=0"], "replicaCount is 0"),
        (vec!["replicaCount=1"], "replicaCount is 1"),
        (vec!["crds.enabled=false"], "crds.enabled is false"),
        (vec!["crds.keep=false"], "crds.keep is false"),
        (vec!["rbac.create=false"], "rbac.create is false"),
        (vec![r#"rbac.secrets="Cluster""#], "any Secret by name in every namespace"),
        (vec![r#"rbac.secrets="Cluster""#, r#"watchNamespaces=["a"]"#], "any Secret by name in the watched namespaces"),
        (vec!["scripts.enabled=true"], "scripts.enabled is true"),
        (vec![r#"egress.allow=["127.0.0.0/8"]"#], "lifts the protection of 127.0.0.0/8"),
        (vec!["features.endpointSlices=false"], "features.endpointSlices is off"),
        (
            vec!["features.endpointSlices=false", "features.podReadiness=false"],
            "features.endpointSlices and features.podReadiness are off",
        ),
        (vec!["serviceAccount.automount=false"], "no credentials for the API server"),
        (
            vec!["serviceMonitor.enabled=true"],
            "serviceMonitor.enabled is true, but this cluster does not know the kind",
        ),
        (vec![r#"service.type="NodePort""#, r#"http.details="full""#], "strangers see targets"),
    ];
    for (pairs, want) in cases {
        let Some(text) = notes(&Values::set(&pairs)) else { return };
        let found: Vec<_> = text.lines().filter(|l| l.starts_with("WARNING")).collect();
        assert_eq!(found.len(), 1, "{pairs:?}: {found:?}");
        assert!(found[0].contains(want), "{pairs:?}: {found:?}");
    }
}

//! Every pod passes the restricted Pod Security Standard as it is, and only what needs credentials has them.

use serde_json::{Value, json};

use crate::tools::{self, Values, container, containers, only, strings};

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn every_pod(check: impl Fn(&str, &Value)) {
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        let pods = tools::pods(&objects);
        assert!(pods.len() >= 3, "a Deployment, a test pod and a hook in {}", file.display());
        for pod in pods {
            check(&file.display().to_string(), pod);
        }
    }
}

#[test]
fn every_pod_is_restricted() {
    every_pod(|file, pod| {
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{file}");
        assert_eq!(spec["securityContext"]["seccompProfile"], json!({"type": "RuntimeDefault"}), "{file}");
        for key in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"] {
            assert_eq!(spec[key], Value::Null, "{file}: {key}");
        }
        // The kinds of volume the restricted standard lets through.
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            let kinds: Vec<_> = volume.as_object().expect("a volume").keys().filter(|k| *k != "name").collect();
            for kind in kinds {
                assert!(["emptyDir", "projected", "secret", "configMap"].contains(&kind.as_str()), "{file}: {kind}");
            }
        }
    });
}

#[test]
fn every_container_is_restricted() {
    every_pod(|file, pod| {
        for container in containers(pod) {
            let name = &container["name"];
            let want = json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            });
            assert_eq!(container["securityContext"], want, "{file}: {name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{file}: {name}: a memory limit");
            for port in container["ports"].as_array().into_iter().flatten() {
                assert_eq!(port["hostPort"], Value::Null, "{file}: {name}");
            }
        }
    });
}

#[test]
fn the_token_is_mounted_where_it_is_used_and_nowhere_else() {
    every_pod(|file, pod| {
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false, "{file}");
        let mut with_token = Vec::new();
        for container in containers(pod) {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            for mount in &mounts {
                assert_eq!(mount["mountPath"] == TOKEN_PATH, mount["name"] == "api-access", "{file}: {mount}");
            }
            if mounts.iter().any(|m| m["name"] == "api-access") {
                assert!(mounts.iter().any(|m| m["name"] == "api-access" && m["readOnly"] == true), "{file}");
                with_token.push(container["name"].as_str().expect("a name"));
            }
        }
        let own_credentials = file.ends_with("bring-your-own-values.yaml") && container(pod, "controller").is_some();
        let want: &[&str] = match container(pod, "controller") {
            Some(_) if own_credentials => &[],
            Some(_) => &["controller"],
            None if container(pod, "uninstall").is_some() => &["uninstall"],
            None => &["doctor"],
        };
        assert_eq!(with_token, want, "{file}");
    });
}

#[test]
fn the_service_account_mounts_no_token_by_itself() {
    let Some(objects) = tools::objects(&Values::ci("default")) else { return };
    assert_eq!(only(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
}

#[test]
fn there_is_no_runner_unless_scripts_are_on() {
    let Some(objects) = tools::objects(&Values::ci("default")) else { return };
    let pod = &only(&objects, "Deployment")["spec"]["template"];
    assert_eq!(containers(pod).len(), 1);
    let args = strings(&container(pod, "controller").expect("a controller")["args"]).join(" ");
    assert!(!args.contains("script") && !args.contains("runner"), "{args}");
}

#[test]
fn the_runner_shares_a_socket_with_the_controller_and_nothing_else() {
    let Some(objects) = tools::objects(&Values::ci("scripts")) else { return };
    let pod = &only(&objects, "Deployment")["spec"]["template"];
    let runner = container(pod, "runner").expect("a runner");
    let controller = container(pod, "controller").expect("a controller");
    let mounts = |container: &Value| -> Vec<(String, String)> {
        let list = container["volumeMounts"].as_array().expect("mounts");
        let text = |m: &Value, key: &str| m[key].as_str().expect("a string").to_owned();
        list.iter().map(|m| (text(m, "name"), text(m, "mountPath"))).collect()
    };
    let (ours, theirs) = (mounts(runner), mounts(controller));
    let shared: Vec<_> = ours.iter().filter(|m| theirs.iter().any(|t| t.0 == m.0)).collect();
    assert_eq!(shared, [&("runner-socket".to_owned(), "/run/healthcheck-operator".to_owned())]);
    let names: Vec<_> = ours.iter().map(|m| m.0.as_str()).collect();
    assert_eq!(names, ["runner-socket", "runner-tmp", "tools"]);

    assert_eq!(runner["restartPolicy"], "Always", "a sidecar");
    assert_eq!(strings(&runner["args"])[..2], ["runner", "--socket=/run/healthcheck-operator/runner.sock"]);
    let args = strings(&controller["args"]);
    assert!(args.contains(&"--allow-scripts"), "{args:?}");
    assert!(args.contains(&"--runner-socket=/run/healthcheck-operator/runner.sock"), "{args:?}");
    assert_ne!(runner["image"], controller["image"]);
    let env: Vec<_> = runner["env"].as_array().expect("env").iter().map(|e| e["name"].as_str()).collect();
    assert_eq!(env, [Some("TZ")], "identity is the controller's");

    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    for name in ["runner-socket", "runner-tmp"] {
        let volume = volumes.iter().find(|v| v["name"] == name).expect(name);
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{name} is bounded");
    }
}

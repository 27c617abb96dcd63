//! What is rendered: the same by both Helms, for every values file of `ci/`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::tools::{self, MAJORS, NAMESPACE, RELEASE, Values, container, of_kind, only, strings, title};

#[test]
fn both_helms_lint_every_values_file() {
    for major in MAJORS {
        for file in tools::ci_values() {
            let chart = tools::chart().display().to_string();
            let Some(out) = tools::helm(major, &["lint", "--strict", &chart], Some(&Values::File(file.clone()))) else {
                return;
            };
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{major}, {}: {said}", file.display());
            assert!(!said.contains("WARNING") && !said.contains("ERROR"), "{major}, {}: {said}", file.display());
        }
    }
}

#[test]
fn both_helms_render_the_same() {
    for file in tools::ci_values() {
        let values = Values::File(file);
        let mut renders = Vec::new();
        for major in MAJORS {
            let Some(text) = tools::template(major, &values, &[]) else { return };
            let mut objects = tools::parse(&text.unwrap_or_else(|e| panic!("{major}: {values:?}: {e}")));
            // The order of objects within one kind is Helm's own affair.
            objects.sort_by_key(|o| (title(o), o["metadata"]["namespace"].to_string()));
            renders.push(objects);
        }
        assert!(renders[0].len() >= 4, "{values:?} renders something");
        assert_eq!(renders[0], renders[1], "{values:?}");
    }
}

#[test]
fn every_object_has_the_standard_labels() {
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        for object in &objects {
            // Objects of extraObjects are the user's own, as they wrote them.
            if object["kind"] == "ConfigMap" && object["metadata"]["labels"].is_null() {
                continue;
            }
            let labels = &object["metadata"]["labels"];
            for key in ["name", "instance", "version", "component", "managed-by", "part-of"] {
                let value = labels[format!("app.kubernetes.io/{key}")].as_str();
                assert!(value.is_some_and(|v| !v.is_empty()), "{}: {} has no {key}", file.display(), title(object));
            }
            assert_eq!(labels["app.kubernetes.io/instance"], RELEASE);
        }
    }
}

#[test]
fn names_are_unique_and_namespaced_objects_say_where() {
    const CLUSTER_SCOPED: [&str; 3] = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        let mut seen = BTreeSet::new();
        for object in &objects {
            let namespace = object["metadata"]["namespace"].as_str();
            let scoped = CLUSTER_SCOPED.contains(&object["kind"].as_str().expect("a kind"));
            assert_eq!(namespace.is_none(), scoped, "{}: {}", file.display(), title(object));
            assert!(seen.insert((title(object), namespace)), "{}: {} twice", file.display(), title(object));
        }
    }
}

/// A selector cannot be changed by an upgrade, so nothing that changes may be in one; and the test
/// pod must not be selected, or the Service would send it traffic.
#[test]
fn selectors_are_name_and_instance_and_select_the_right_pods() {
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        let deployment = tools::operator(&objects);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let want = json!({
            "app.kubernetes.io/name": labels["app.kubernetes.io/name"],
            "app.kubernetes.io/instance": RELEASE,
        });
        // The runner's own objects select its own pods: the test after this one looks at them.
        let objects: Vec<Value> = objects.iter().filter(|object| !is_runners(object)).cloned().collect();
        let mut selectors = vec![&deployment["spec"]["selector"]["matchLabels"]];
        selectors.extend(of_kind(&objects, "Service").iter().map(|s| &s["spec"]["selector"]));
        selectors
            .extend(of_kind(&objects, "PodDisruptionBudget").iter().map(|p| &p["spec"]["selector"]["matchLabels"]));
        selectors.extend(of_kind(&objects, "NetworkPolicy").iter().map(|p| &p["spec"]["podSelector"]["matchLabels"]));
        for kind in ["ServiceMonitor", "PodMonitor"] {
            selectors.extend(of_kind(&objects, kind).iter().map(|m| &m["spec"]["selector"]["matchLabels"]));
        }
        for selector in selectors {
            assert_eq!(selector, &want, "{}", file.display());
        }
        let test_pod = only(&objects, "Pod");
        assert_ne!(test_pod["metadata"]["labels"]["app.kubernetes.io/name"], want["app.kubernetes.io/name"]);
    }
}

fn is_runners(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/component"] == "runner"
}

#[test]
fn the_runners_objects_select_the_runners_pods_alone() {
    let Some(objects) = tools::objects(&Values::ci("runner")) else { return };
    let pods = &tools::part(&objects, "Deployment", "runner")["spec"]["template"]["metadata"]["labels"];
    let operator = &tools::operator(&objects)["spec"]["template"]["metadata"]["labels"];
    let selects = |selector: &Value, labels: &Value| {
        let wanted = selector.as_object().expect("labels");
        !wanted.is_empty() && wanted.iter().all(|(key, value)| labels[key] == *value)
    };
    let policy = tools::part(&objects, "NetworkPolicy", "runner");
    for selector in [
        &tools::part(&objects, "Deployment", "runner")["spec"]["selector"]["matchLabels"],
        &tools::part(&objects, "Service", "runner")["spec"]["selector"],
        &policy["spec"]["podSelector"]["matchLabels"],
    ] {
        assert!(selects(selector, pods) && !selects(selector, operator), "{selector}");
    }
    for service in of_kind(&objects, "Service").iter().filter(|service| !is_runners(service)) {
        assert!(!selects(&service["spec"]["selector"], pods), "{service}");
    }
    // Only the operator comes in, and only by the door.
    let ingress = policy["spec"]["ingress"].as_array().expect("rules");
    assert_eq!(ingress.len(), 1);
    assert_eq!(ingress[0]["ports"], json!([{"port": "runner", "protocol": "TCP"}]));
    // They go anywhere but to what a cloud tells its machines about themselves.
    let out = &policy["spec"]["egress"][0];
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(out["to"].as_array().expect("peers").contains(&json!({"namespaceSelector": {}})));
    assert_eq!(out["to"][1]["ipBlock"]["except"][0], "169.254.0.0/16");
    let from = ingress[0]["from"].as_array().expect("peers");
    assert_eq!(from.len(), 1);
    assert!(selects(&from[0]["podSelector"]["matchLabels"], operator));
    assert!(!selects(&from[0]["podSelector"]["matchLabels"], pods));
}

#[test]
fn the_operator_knows_who_it_is_and_what_was_set() {
    let Some(objects) = tools::objects(&Values::ci("everything")) else { return };
    let pod = &tools::operator(&objects)["spec"]["template"];
    let controller = container(pod, "controller").expect("a controller");
    let env: BTreeSet<_> =
        controller["env"].as_array().expect("env").iter().map(|e| e["name"].as_str().unwrap()).collect();
    for name in ["POD_NAME", "POD_NAMESPACE", "NODE_NAME", "NODE_IP"] {
        assert!(env.contains(name), "{name} in {env:?}");
    }
    let want = [
        "controller",
        "--log-level=info,healthcheck_operator=debug",
        "--log-format=json",
        "--lease-name=checks",
        "--lease-duration=1m",
        "--lease-renew=30s",
        "--status-refresh=1m30s",
        "--healthy-code=204",
        "--degraded-code=299",
        "--unhealthy-code=500",
        "--unknown-code=404",
        "--details=full",
        "--max-in-flight-per-host=10",
        "--max-in-flight=500",
        "--healthy-body=up",
        "--unhealthy-body=down, sorry",
        "--health-path=/self",
        "--access-log-skip=/healthz",
        "--access-log-skip=/",
        "--tls-cert=/etc/healthcheck-operator/tls/tls.crt",
        "--tls-key=/etc/healthcheck-operator/tls/tls.key",
        "--envoy-listen=[::]:8083",
        "--egress-allow=127.0.0.0/8",
        "--egress-allow=fe80::/10",
        "--allow-scripts",
        "--runner-socket=/run/healthcheck-operator/runner.sock",
        "--access-log-skip=/extra",
    ];
    assert_eq!(strings(&controller["args"]), want);
    assert_eq!(
        controller["image"],
        "registry.example:5000/mirror/team/healthcheck-operator@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
    );
    assert_eq!(controller["livenessProbe"]["httpGet"], json!({"path": "/livez", "port": "admin", "scheme": "HTTPS"}));
    assert_eq!(controller["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": "admin", "scheme": "HTTPS"}));
}

/// Flags of a render are flags of the binary: a name that only the chart knows would be a pod that
/// never starts. `--help` at the end makes the binary read all before it and then stop.
#[test]
fn the_binary_accepts_every_rendered_argument() {
    for file in tools::ci_values() {
        let Some(objects) = tools::objects(&Values::File(file.clone())) else { return };
        for container in tools::pods(&objects).into_iter().flat_map(tools::containers) {
            let args = strings(&container["args"]);
            let help = |args: &[&str]| {
                let binary = env!("CARGO_BIN_EXE_healthcheck-operator");
                Command::new(binary).args(args).arg("--help").output().expect("the binary starts")
            };
            let out = help(&args);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{}: {args:?}: {said}", file.display());
            let usage = format!("Usage: healthcheck-operator {}", args[0]);
            assert!(String::from_utf8_lossy(&out.stdout).contains(&usage), "{args:?}");
            let unknown = [&args[..], &["--no-such-flag"]].concat();
            assert!(!help(&unknown).status.success(), "an unknown flag is seen before --help is");
        }
    }
}

/// The doctor asks for what this release needs, where it needs it.
#[test]
fn the_test_pod_is_told_what_the_operator_is_told() {
    let told = |name: &str| -> Option<Vec<(String, String)>> {
        let objects = tools::objects(&Values::ci(name))?;
        let doctor = container(only(&objects, "Pod"), "doctor").expect("a doctor").clone();
        assert_eq!(doctor["args"], json!(["doctor"]));
        let env = doctor["env"].as_array().expect("env").iter().filter(|e| e["value"].is_string());
        let text = |e: &Value, key: &str| e[key].as_str().expect("a string").replace("HEALTHCHECK_OPERATOR_", "");
        Some(env.map(|e| (text(e, "name"), text(e, "value"))).collect())
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let Some(default) = told("default") else { return };
    assert_eq!(default, [pair("ADMIN_URL", "http://rel-healthcheck-operator.hco.svc:8081")]);
    let namespaces = [
        pair("WATCH_NAMESPACE", "shop,pay"),
        pair("DISABLE_ANNOTATIONS", "true"),
        pair("DISABLE_ENDPOINT_SLICES", "true"),
        pair("DISABLE_POD_READINESS", "true"),
        pair("DISABLE_EVENTS", "true"),
        pair("ADMIN_URL", "http://rel-hco.hco.svc:8081"),
    ];
    assert_eq!(told("namespaces").as_deref(), Some(&namespaces[..]));
    let nodeport = [pair("ADMIN_URL", "http://rel-healthcheck-operator-admin.hco.svc:8081")];
    assert_eq!(told("bring-your-own").as_deref(), Some(&nodeport[..]));
    // It speaks no TLS to a certificate it cannot check.
    assert_eq!(told("everything").as_deref(), Some(&[][..]));
}

#[test]
fn an_image_is_named_by_registry_repository_and_tag_or_digest() {
    let version = env!("CARGO_PKG_VERSION");
    let digest = format!("sha256:{}", "a".repeat(64));
    let cases = [
        (vec![], format!("healthcheck-operator:{version}")),
        (vec![r#"image.tag="9""#.to_owned()], "healthcheck-operator:9".to_owned()),
        (vec![r#"image.registry="r.example""#.to_owned()], format!("r.example/healthcheck-operator:{version}")),
        (
            vec![r#"image.registry="r.example""#.to_owned(), r#"global.imageRegistry="g.example/""#.to_owned()],
            format!("g.example/healthcheck-operator:{version}"),
        ),
        (
            vec![r#"image.tag="9""#.to_owned(), format!(r#"image.digest="{digest}""#)],
            format!("healthcheck-operator@{digest}"),
        ),
    ];
    for (pairs, want) in cases {
        let Some(objects) = tools::objects(&Values::Set(pairs.clone())) else { return };
        let pod = &tools::operator(&objects)["spec"]["template"];
        assert_eq!(container(pod, "controller").expect("a controller")["image"], want, "{pairs:?}");
    }
}

#[test]
fn a_disruption_budget_comes_with_the_second_replica() {
    for (replicas, want) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        let values = Values::Set(vec![format!("replicaCount={replicas}")]);
        let Some(objects) = tools::objects(&values) else { return };
        assert_eq!(of_kind(&objects, "PodDisruptionBudget").len(), want, "{replicas} replicas");
    }
    let budget = |pairs: &[&str]| -> Option<Value> {
        let objects = tools::objects(&Values::set(pairs))?;
        let spec = only(&objects, "PodDisruptionBudget")["spec"].clone();
        Some(json!([spec["minAvailable"], spec["maxUnavailable"]]))
    };
    let Some(default) = budget(&[]) else { return };
    assert_eq!(default, json!([null, 1]));
    assert_eq!(budget(&[r#"podDisruptionBudget.minAvailable="50%""#]), Some(json!(["50%", null])));
    assert_eq!(budget(&["podDisruptionBudget.minAvailable=0"]), Some(json!([0, null])));
    assert_eq!(budget(&["podDisruptionBudget.maxUnavailable=0"]), Some(json!([null, 0])));
}

/// `/metrics` and the API are open or half open; a public address is not for them.
#[test]
fn a_public_service_does_not_carry_the_admin_port() {
    for (kind, want) in [
        ("ClusterIP", json!([[RELEASE_FULL, ["health", "admin"]]])),
        ("NodePort", json!([[RELEASE_FULL, ["health"]], [RELEASE_ADMIN, ["admin"]]])),
        ("LoadBalancer", json!([[RELEASE_FULL, ["health"]], [RELEASE_ADMIN, ["admin"]]])),
    ] {
        let Some(objects) = tools::objects(&Values::Set(vec![format!(r#"service.type="{kind}""#)])) else { return };
        let mut found: Vec<Value> = of_kind(&objects, "Service")
            .iter()
            .map(|s| {
                let ports: Vec<_> = s["spec"]["ports"].as_array().expect("ports").iter().map(|p| &p["name"]).collect();
                if s["metadata"]["name"] == RELEASE_ADMIN {
                    assert_eq!(s["spec"]["type"], "ClusterIP");
                }
                json!([s["metadata"]["name"], ports])
            })
            .collect();
        found.sort_by_key(|s| s[0].as_str().map(str::len));
        assert_eq!(Value::Array(found), want, "{kind}");
    }
}

/// Envoy's access logs come in where they are asked for, as guarded as the admin port, and nowhere else.
#[test]
fn the_port_for_envoys_logs_is_there_where_it_is_wanted() {
    let ports = |object: &Value, at: &str| -> Vec<String> {
        let ports = object.pointer(at).and_then(Value::as_array).expect("ports");
        ports.iter().map(|port| port["name"].as_str().expect("a name").to_owned()).collect()
    };
    for (enabled, kind) in [(false, "ClusterIP"), (true, "ClusterIP"), (true, "LoadBalancer")] {
        let (enable, kind_is) = (format!("envoyAccessLog.enabled={enabled}"), format!(r#"service.type="{kind}""#));
        let pairs = [enable.as_str(), "networkPolicy.enabled=true", &kind_is];
        let Some(objects) = tools::objects(&Values::set(&pairs)) else { return };
        let pod = &only(&objects, "Deployment")["spec"]["template"];
        let controller = tools::container(pod, "controller").expect("a controller");
        assert_eq!(tools::strings(&controller["args"]).contains(&"--envoy-listen=[::]:8083"), enabled);
        let carried: Vec<_> = of_kind(&objects, "Service")
            .iter()
            .filter(|service| ports(service, "/spec/ports").contains(&"envoy".to_owned()))
            .map(|service| service["spec"]["type"].clone())
            .collect();
        assert_eq!(carried, vec![json!("ClusterIP"); usize::from(enabled)], "{kind}: never on a public address");
        let policy = only(&objects, "NetworkPolicy")["spec"]["ingress"].as_array().expect("rules").clone();
        let guarded = policy.iter().filter(|rule| rule["ports"][0]["port"] == "envoy");
        let guarded: Vec<Value> = guarded.map(|rule| rule["from"].clone()).collect();
        assert_eq!(guarded, vec![json!([{"podSelector": {}}]); usize::from(enabled)]);
        let names = ports(controller, "/ports");
        assert_eq!(names.contains(&"envoy".to_owned()), enabled, "{names:?}");
    }
}

const RELEASE_FULL: &str = "rel-healthcheck-operator";
const RELEASE_ADMIN: &str = "rel-healthcheck-operator-admin";

#[test]
fn an_object_of_an_unknown_kind_is_skipped_refused_or_rendered() {
    for (value, kind) in
        [("serviceMonitor", "ServiceMonitor"), ("podMonitor", "PodMonitor"), ("prometheusRule", "PrometheusRule")]
    {
        let api = format!("monitoring.coreos.com/v1/{kind}");
        let enabled = format!("{value}.enabled=true");
        let count = |mode: &str, known: bool| -> Option<Result<usize, String>> {
            let mode = format!(r#"{value}.renderMode="{mode}""#);
            let more: &[&str] = if known { &["--api-versions", &api] } else { &[] };
            let text = tools::template("helm4", &Values::set(&[&enabled, &mode]), more)?;
            Some(text.map(|text| of_kind(&tools::parse(&text), kind).len()))
        };
        let Some(skipped) = count("skipIfMissing", false) else { return };
        assert_eq!(skipped, Ok(0), "{kind}");
        assert_eq!(count("skipIfMissing", true), Some(Ok(1)), "{kind}");
        assert_eq!(count("alwaysRender", false), Some(Ok(1)), "{kind}");
        assert_eq!(count("failIfMissing", true), Some(Ok(1)), "{kind}");
        let refused = count("failIfMissing", false).expect("helm").expect_err("refused");
        assert!(refused.contains(&format!("this cluster does not know {api}: install its CRD first")), "{refused}");
    }
}

#[test]
fn crds_are_kept_unless_told_otherwise() {
    let annotations = |values: &Values| -> Option<Value> {
        Some(only(&tools::objects(values)?, "CustomResourceDefinition")["metadata"]["annotations"].clone())
    };
    let Some(default) = annotations(&Values::ci("default")) else { return };
    assert_eq!(default["helm.sh/resource-policy"], "keep");
    let changed = annotations(&Values::ci("namespaces")).expect("helm");
    assert_eq!(changed["helm.sh/resource-policy"], Value::Null);
    assert_eq!(changed["example.org/owner"], "platform");
    let Some(none) = tools::objects(&Values::ci("bring-your-own")) else { return };
    assert!(of_kind(&none, "CustomResourceDefinition").is_empty());
}

#[test]
fn extra_objects_are_templates() {
    let Some(objects) = tools::objects(&Values::ci("everything")) else { return };
    let names: BTreeSet<_> = of_kind(&objects, "ConfigMap").iter().map(|o| title(o)).collect();
    assert_eq!(
        names.iter().collect::<Vec<_>>(),
        ["ConfigMap/checks-dashboards", "ConfigMap/checks-text", "ConfigMap/rel-more"]
    );
    assert!(of_kind(&objects, "ConfigMap").iter().all(|o| o["metadata"]["namespace"] == NAMESPACE));
}

#[test]
fn the_chart_and_the_package_have_one_version() {
    let chart = std::fs::read_to_string(tools::chart().join("Chart.yaml")).expect("Chart.yaml");
    let chart = tools::parse(&chart).remove(0);
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

/// Whatever release it is, the hook lets go of what that release holds, and of nothing else.
#[test]
fn what_is_let_go_before_the_uninstall_is_what_the_operator_holds() {
    const SHARED: [&str; 5] = [
        "--lease-name=",
        "--watch-namespace=",
        "--label-selector=",
        "--disable-endpoint-slices",
        "--disable-pod-readiness",
    ];
    let shared = |pod: &Value, name: &str| -> Vec<String> {
        let args = strings(&container(pod, name).unwrap_or_else(|| panic!("no container {name}"))["args"]);
        let args = args.into_iter().filter(|arg| SHARED.iter().any(|flag| arg.starts_with(flag)));
        args.map(str::to_owned).collect()
    };
    let features = Values::set(&["features.endpointSlices=false", "features.podReadiness=false"]);
    let mut seen = BTreeSet::new();
    for values in tools::ci_values().into_iter().map(Values::File).chain([features]) {
        let Some(objects) = tools::objects(&values) else { return };
        let job = of_kind(&objects, "Job")
            .into_iter()
            .find(|job| job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete");
        let job = job.unwrap_or_else(|| panic!("{values:?}: no hook"));
        let held = shared(&tools::operator(&objects)["spec"]["template"], "controller");
        assert_eq!(shared(&job["spec"]["template"], "uninstall"), held, "{values:?}");
        // It is Helm that says how long a node may be waited for.
        assert!(job["spec"]["activeDeadlineSeconds"].as_u64() >= Some(3600), "{job}");
        seen.extend(SHARED.into_iter().filter(|flag| held.iter().any(|arg| arg.starts_with(flag))));
    }
    assert_eq!(seen, BTreeSet::from(SHARED), "each of them is set somewhere");
}

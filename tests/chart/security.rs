//! Every pod passes the restricted Pod Security Standard as it is, and only what needs credentials has them.

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::tools::{self, Values, container, containers, of_kind, only, strings};

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
            let mut want = json!({
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsNonRoot": true,
                "seccompProfile": {"type": "RuntimeDefault"},
            });
            if name == "runner" {
                // Scripts are another user than whoever holds credentials, of the group that may open the socket.
                let user = container["securityContext"]["runAsUser"].as_u64();
                assert!(user.is_some_and(|user| user != 0 && user != 65532), "{file}: {user:?}");
                want["runAsUser"] = json!(user);
                want["runAsGroup"] = json!(65532);
            }
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
            None if container(pod, "runner").is_some() => &[],
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
    let pod = &tools::operator(&objects)["spec"]["template"];
    assert_eq!(containers(pod).len(), 1);
    let args = strings(&container(pod, "controller").expect("a controller")["args"]).join(" ");
    assert!(!args.contains("script") && !args.contains("runner"), "{args}");
}

#[test]
fn the_runner_shares_a_socket_with_the_controller_and_nothing_else() {
    let Some(objects) = tools::objects(&Values::ci("scripts")) else { return };
    let pod = &tools::operator(&objects)["spec"]["template"];
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
    // One script does not take the memory of all.
    let limits = ["HEALTHCHECK_OPERATOR_SCRIPT_FILE_SIZE", "HEALTHCHECK_OPERATOR_SCRIPT_MEMORY"].map(Some);
    assert_eq!(env, [limits[0], limits[1], Some("TZ")], "identity is the controller's");

    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    for name in ["runner-socket", "runner-tmp"] {
        let volume = volumes.iter().find(|v| v["name"] == name).expect(name);
        assert!(volume["emptyDir"]["sizeLimit"].is_string(), "{name} is bounded");
        // A full disk would have the whole pod evicted, the operator with it.
        assert_eq!(volume["emptyDir"]["medium"], "Memory", "{name} is bounded at once");
    }
}

/// What a container of a pod mounts: the volume's name, and where.
fn mounts(container: &Value) -> Vec<(&str, &str)> {
    let list = container["volumeMounts"].as_array().expect("mounts");
    list.iter().map(|m| (m["name"].as_str().expect("a name"), m["mountPath"].as_str().expect("a path"))).collect()
}

#[test]
fn a_runner_of_its_own_is_asked_over_tls_and_cannot_read_the_key() {
    let Some(objects) = tools::objects(&Values::ci("runner")) else { return };
    let pod = &tools::part(&objects, "Deployment", "runner")["spec"]["template"];
    let runner = container(pod, "runner").expect("a runner");
    let door = container(pod, "door").expect("a door");
    let install = container(pod, "install").expect("an installer");
    assert_eq!(pod["spec"]["serviceAccountName"], Value::Null);

    // The image is the user's, the binary is ours: the operator's own.
    assert_eq!(runner["image"], "docker.example/team/tools:7");
    assert_eq!(runner["command"], json!(["/opt/healthcheck-operator/healthcheck-operator"]));
    assert_eq!(install["args"], json!(["install", "/opt/healthcheck-operator/healthcheck-operator"]));
    assert_eq!(runner["securityContext"]["runAsUser"], 1234);
    let flags = strings(&runner["args"]);
    assert!(flags.ends_with(&["--max-scripts=8", "--script-memory=64Mi"]), "{flags:?}");
    let paths = [
        ("runner-socket", "/run/healthcheck-operator"),
        ("runner-tmp", "/tmp"),
        ("runner-program", "/opt/healthcheck-operator"),
        ("tools", "/tools"),
    ];
    assert_eq!(mounts(runner), paths);
    assert_eq!(runner["volumeMounts"][2]["readOnly"], true, "scripts cannot change what runs them");
    assert!(mounts(door).contains(&("runner-tls", "/etc/healthcheck-operator/runner-tls")));

    // Of the operator's volumes the pod has those that the runner mounts, and no other Secret than the door's.
    let volumes: Vec<_> = pod["spec"]["volumes"].as_array().expect("volumes").iter().collect();
    let names: Vec<_> = volumes.iter().map(|v| v["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["runner-socket", "runner-tmp", "runner-program", "runner-tls", "tools"]);
    assert_eq!(volumes[3]["secret"]["secretName"], "runner-cert");

    let operator = &tools::operator(&objects)["spec"]["template"];
    assert!(container(operator, "runner").is_none(), "not beside the operator as well");
    let controller = container(operator, "controller").expect("a controller");
    assert!(mounts(controller).contains(&("runner-tls", "/etc/healthcheck-operator/runner-tls")));
    assert!(!mounts(controller).iter().any(|mount| mount.0 == "runner-socket"));
    let volumes = operator["spec"]["volumes"].as_array().expect("volumes");
    let tls = volumes.iter().find(|v| v["name"] == "runner-tls").expect("certificates");
    assert_eq!(tls["secret"]["secretName"], "controller-cert");

    // Both sides mean the same names.
    let service = tools::part(&objects, "Service", "runner");
    let host = format!("{}.{}.svc", service["metadata"]["name"].as_str().expect("a name"), tools::NAMESPACE);
    let args = strings(&controller["args"]);
    assert!(args.contains(&&*format!("--runner-address={host}:8443")), "{args:?}");
    assert!(
        args.contains(&"--allow-scripts") && !args.iter().any(|arg| arg.starts_with("--runner-socket")),
        "{args:?}"
    );
    let door_args = strings(&door["args"]);
    assert!(door_args.iter().any(|arg| arg.starts_with("--client-name=")), "{door_args:?}");
    // It is ready when the runner behind it is.
    let asked = &door["readinessProbe"]["httpGet"];
    let ports = door["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["name"] == asked["port"]).expect("the port that is asked");
    assert!(door_args.contains(&&*format!("--health-listen=[::]:{}", port["containerPort"])), "{door_args:?}");
    assert_eq!(asked["path"], "/readyz");
    assert!(of_kind(&objects, "Secret").is_empty(), "the user's own are used");
}

#[test]
fn the_limits_of_a_script_are_left_to_who_sets_them_otherwise() {
    let values = Values::set(&[
        "scripts.enabled=true",
        r#"runner.scriptFileSize="""#,
        r#"runner.extraEnv=[{"name": "HEALTHCHECK_OPERATOR_SCRIPT_MEMORY", "value": "20Mi"}]"#,
    ]);
    let Some(objects) = tools::objects(&values) else { return };
    let pod = &tools::operator(&objects)["spec"]["template"];
    let env = &container(pod, "runner").expect("a runner")["env"];
    assert_eq!(*env, json!([{"name": "HEALTHCHECK_OPERATOR_SCRIPT_MEMORY", "value": "20Mi"}]));
}

/// What an upgrade makes of the pair that is there: `age` seconds old, and, where there is a next one, that old.
fn renewed(side: &Value, age: u64, next: Option<u64>) -> Option<Value> {
    const NOW: u64 = 2_000_000_000;
    let next = next.map(|next| (NOW - next).to_string());
    let annotations = json!({
        "healthcheck-operator.dev/made": (NOW - age).to_string(),
        "healthcheck-operator.dev/next": next.unwrap_or("0".into()),
    });
    let secret = json!({"metadata": {"annotations": annotations}, "data": side}).to_string();
    let given = format!(r#"(dict "root" . "server" $secret "client" $secret "now" "{NOW}")"#);
    let object = format!(
        "{{{{- $secret := fromJson `{secret}` }}}}\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: pair}}\n\
         data:\n  pair: {{{{ include \"hco.runnerPair\" {given} | quote }}}}"
    );
    let values = Values::set(&[&format!("extraObjects={}", json!([object]))]);
    let objects = tools::objects(&values)?;
    let map = of_kind(&objects, "ConfigMap").into_iter().find(|map| map["metadata"]["name"] == "pair").expect("it");
    Some(serde_json::from_str(map["data"]["pair"].as_str().expect("text")).expect("JSON"))
}

#[test]
fn a_pair_is_renewed_by_steps_at_each_of_which_both_sides_trust_each_other() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    const YEAR: u64 = 365 * 24 * 3600;
    let pem = |word: &str| format!("-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n");
    let first = json!({
        "tls.crt": BASE64_STANDARD.encode("certificate"), "tls.key": BASE64_STANDARD.encode("key"),
        "ca.crt": BASE64_STANDARD.encode(pem("first") + &pem("before")),
    });
    let text = |side: &Value, key: &str| {
        String::from_utf8(BASE64_STANDARD.decode(side[key].as_str().expect("text")).expect("base64")).expect("text")
    };
    let Some(young) = renewed(&first, YEAR - 1, None) else { return };
    assert_eq!(young["data"], json!({"server": first, "client": first}), "it stays as it is");

    let prepared = renewed(&first, YEAR, None).expect("Helm is there");
    for side in ["server", "client"] {
        let side = &prepared["data"][side];
        assert!(side["tls.crt"] == first["tls.crt"] && side["tls.key"] == first["tls.key"], "the same is shown");
        let trusted = text(side, "ca.crt");
        assert!(trusted.matches("BEGIN").count() == 2 && trusted.contains("first"), "and trusted: {trusted}");
    }
    assert_ne!(prepared["data"]["server"]["next.crt"], prepared["data"]["client"]["next.crt"]);

    let server = &prepared["data"]["server"];
    let early = renewed(server, YEAR + 10, Some(10)).expect("Helm is there");
    assert_eq!(early["data"]["server"], *server, "kubelets have not brought it to both yet");

    let taken = renewed(server, YEAR + 3600, Some(3600)).expect("Helm is there");
    let after = &taken["data"]["server"];
    assert!(after["tls.crt"] == server["next.crt"] && after["tls.key"] == server["next.key"]);
    assert_eq!(after["ca.crt"], server["ca.crt"], "who still shows the old one is trusted");
    assert!(after.get("next.crt").is_none() && taken["next"] == "0");
    assert_eq!(taken["made"], (2_000_000_000_u64 - 3600).to_string());
}

/// A pair that the chart makes must be one that both sides take.
#[test]
fn the_certificates_that_the_chart_makes_bear_the_names_that_are_asked_for() {
    let values = Values::set(&["scripts.enabled=true", r#"runner.mode="Deployment""#]);
    let Some(objects) = tools::objects(&values) else { return };
    let pem = |secret: &Value, key: &str| -> Vec<u8> {
        let text = secret["data"][key].as_str().unwrap_or_else(|| panic!("no {key}"));
        base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text).expect("base64")
    };
    let secrets = of_kind(&objects, "Secret");
    assert_eq!(secrets.len(), 2);
    let operator = &tools::operator(&objects)["spec"]["template"];
    let address = strings(&container(operator, "controller").expect("a controller")["args"])
        .iter()
        .find_map(|arg| arg.strip_prefix("--runner-address=")?.strip_suffix(":8443").map(str::to_owned))
        .expect("an address");
    let runner = &tools::part(&objects, "Deployment", "runner")["spec"]["template"];
    let client = strings(&container(runner, "door").expect("a door")["args"])
        .iter()
        .find_map(|arg| arg.strip_prefix("--client-name=").map(str::to_owned))
        .expect("a name");
    let mounted = |pod: &Value| {
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes").clone();
        let volume = volumes.into_iter().find(|v| v["name"] == "runner-tls").expect("certificates");
        volume["secret"]["secretName"].as_str().expect("a name").to_owned()
    };
    for (pod, name) in [(operator, client), (runner, address)] {
        let secret = secrets.iter().find(|s| s["metadata"]["name"] == *mounted(pod)).expect("the Secret");
        assert_eq!(secret["type"], "kubernetes.io/tls");
        let certificate = CertificateDer::from_pem_slice(&pem(secret, "tls.crt")).expect("a certificate");
        let parsed = rustls::server::ParsedCertificate::try_from(&certificate).expect("X.509");
        let server_name = rustls::pki_types::ServerName::try_from(name.as_str()).expect("a name");
        rustls::client::verify_server_name(&parsed, &server_name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let authority = CertificateDer::from_pem_slice(&pem(secret, "ca.crt")).expect("an authority");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority).expect("an authority");
        let now = rustls::pki_types::UnixTime::now();
        let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        rustls::pki_types::PrivateKeyDer::from_pem_slice(&pem(secret, "tls.key")).expect("a key");
    }
}

//! What is refused: each with a message that names the value and the mend, and each with a near
//! miss that is accepted.

use crate::tools::{self, MAJORS, Values};

/// Pairs refused, words of the message, and pairs close by that are accepted.
type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    // Keys nobody knows, at the top and further down.
    (&["replicas=2"], &["'replicas' not allowed"], &["replicaCount=2"]),
    (&[r#"image.pullPolcy="Never""#], &["/image", "'pullPolcy' not allowed"], &[r#"image.pullPolicy="Never""#]),
    (&[r#"runner.image.name="x""#], &["/runner/image", "'name' not allowed"], &[r#"runner.image.repository="x""#]),
    (
        &[r#"resources.limit={"memory":"1Gi"}"#],
        &["/resources", "'limit' not allowed"],
        &[r#"resources.limits={"memory":"1Gi"}"#],
    ),
    (&[r#"tolerations=[{"keys":"a"}]"#], &["/tolerations/0", "'keys' not allowed"], &[r#"tolerations=[{"key":"a"}]"#]),
    (
        &[r#"affinity={"podAfinity":{}}"#],
        &["/affinity", "'podAfinity' not allowed"],
        &[r#"affinity={"podAffinity":{}}"#],
    ),
    // Wrong types.
    (&[r#"replicaCount="two""#], &["/replicaCount", "want integer"], &["replicaCount=0"]),
    (&["image.tag=1.2"], &["/image/tag", "want string"], &[r#"image.tag="1.2""#]),
    (&[r#"scripts.enabled="yes""#], &["/scripts/enabled", "want boolean"], &["scripts.enabled=true"]),
    (&[r#"watchNamespaces="shop""#], &["/watchNamespaces", "want array"], &[r#"watchNamespaces=["shop"]"#]),
    (&[r#"podAnnotations={"a":1}"#], &["/podAnnotations/a", "want string"], &[r#"podAnnotations={"a":"1"}"#]),
    (&["global.imageRegistry=1"], &["/global/imageRegistry", "want string"], &["global.other=1"]),
    // Bad words.
    (&[r#"logFormat="xml""#], &["/logFormat", "'text', 'json'"], &[r#"logFormat="json""#]),
    (&[r#"rbac.secrets="All""#], &["/rbac/secrets", "'None', 'Cluster'"], &[r#"rbac.secrets="Cluster""#]),
    (&[r#"image.pullPolicy="Sometimes""#], &["/image/pullPolicy", "'IfNotPresent'"], &[r#"image.pullPolicy="Always""#]),
    (&[r#"service.type="ExternalName""#], &["/service/type", "'LoadBalancer'"], &[r#"service.type="LoadBalancer""#]),
    (&[r#"http.details="some""#], &["/http/details", "'summary'"], &[r#"http.details="none""#]),
    (
        &[r#"serviceMonitor.renderMode="maybe""#],
        &["/serviceMonitor/renderMode", "'skipIfMissing'"],
        &[r#"serviceMonitor.renderMode="alwaysRender""#],
    ),
    // Out of bounds, or out of shape.
    (&["service.port=0"], &["/service/port", "want 1"], &["service.port=1"]),
    (&["service.port=65536"], &["/service/port", "want 65,535"], &["service.port=65535"]),
    (&["http.unhealthyCode=600"], &["/http/unhealthyCode", "want 599"], &["http.unhealthyCode=599"]),
    (&["http.healthyCode=199"], &["/http/healthyCode", "want 200"], &["http.healthyCode=200"]),
    (&["replicaCount=-1"], &["/replicaCount", "want 0"], &["replicaCount=0"]),
    (&[r#"statusRefresh="5 minutes""#], &["/statusRefresh", "does not match"], &[r#"statusRefresh="5m""#]),
    (&[r#"egress.allow=["10.0.0.1"]"#], &["/egress/allow/0", "does not match"], &[r#"egress.allow=["10.0.0.1/32"]"#]),
    (&[r#"watchNamespaces=["Shop"]"#], &["/watchNamespaces/0", "does not match"], &[r#"watchNamespaces=["shop"]"#]),
    (
        &[r#"watchNamespaces=["a","a"]"#],
        &["/watchNamespaces", "items at 0 and 1 are equal"],
        &[r#"watchNamespaces=["a","b"]"#],
    ),
    (&[r#"image.digest="sha256:abc""#], &["/image/digest", "does not match"], &[r#"image.digest="""#]),
    (&[r#"image.repository="""#], &["/image/repository", "want 1"], &[r#"image.repository="r""#]),
    (
        &[r#"http.selfHealth.path="health""#],
        &["/http/selfHealth/path", "does not match"],
        &[r#"http.selfHealth.path="/health""#],
    ),
    // Well-formed, but of no sense together.
    (
        &[r#"lease.renew="12001ms""#],
        &["lease.renew (12001ms) must be", "at most four fifths of lease.duration (15s)"],
        &[r#"lease.renew="12s""#],
    ),
    (&[r#"lease.renew="499ms""#], &["lease.renew (499ms) must be at least 500ms"], &[r#"lease.renew="500ms""#]),
    (
        &[r#"lease.duration="2999ms""#, r#"lease.renew="1s""#],
        &["lease.duration (2999ms) must be between 3s and 10m"],
        &[r#"lease.duration="3s""#, r#"lease.renew="1s""#],
    ),
    (&[r#"lease.duration="10m1ms""#], &["lease.duration (10m1ms) must be between"], &[r#"lease.duration="9m60s""#]),
    (
        &[r#"statusRefresh="9s999ms""#],
        &["statusRefresh (9s999ms) must be between 10s and 24h"],
        &[r#"statusRefresh="10s""#],
    ),
    (&[r#"statusRefresh="24h1s""#], &["statusRefresh (24h1s) must be between"], &[r#"statusRefresh="24h""#]),
    (
        &[r#"runner.image.tag="1""#],
        &["runner.image.tag is set, but scripts.enabled is false", "set scripts.enabled=true or remove"],
        &[r#"runner.image.tag="1""#, "scripts.enabled=true"],
    ),
    (
        &[r#"runner.mode="Deployment""#],
        &["runner.mode is Deployment, but scripts.enabled is false"],
        &[r#"runner.mode="Deployment""#, "scripts.enabled=true"],
    ),
    (&[r#"runner.mode="DaemonSet""#], &["/runner/mode"], &[r#"runner.mode="Sidecar""#]),
    (&["runner.runAsUser=0"], &["/runner/runAsUser"], &["runner.runAsUser=null"]),
    (
        &[r#"runner.extraArgs=["--max-scripts=8"]"#],
        &["runner.extraArgs is set, but scripts.enabled is false"],
        &[r#"runner.extraArgs=["--max-scripts=8"]"#, "scripts.enabled=true"],
    ),
    (
        &["scripts.enabled=true", r#"runner.mode="Deployment""#, r#"runner.tls={"serverSecretName":"a"}"#],
        &["runner.tls has one of serverSecretName and clientSecretName"],
        &[
            "scripts.enabled=true",
            r#"runner.mode="Deployment""#,
            r#"runner.tls={"serverSecretName":"a","clientSecretName":"b"}"#,
        ],
    ),
    (
        &["scripts.enabled=true", r#"runner.tls={"serverSecretName":"a","clientSecretName":"b"}"#],
        &["runner.tls is set, but runner.mode is Sidecar"],
        &["scripts.enabled=true", "runner.tls={}"],
    ),
    (
        &[r#"runner.extraEnv=[{"name":"A","value":"b"}]"#],
        &["runner.extraEnv is set, but scripts.enabled is false"],
        &[r#"runner.extraEnv=[{"name":"A","value":"b"}]"#, "scripts.enabled=true"],
    ),
    (
        &["podDisruptionBudget.minAvailable=1", "podDisruptionBudget.maxUnavailable=0"],
        &["podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both set: keep one"],
        &["podDisruptionBudget.maxUnavailable=0"],
    ),
    (
        &["httpRoute.enabled=true"],
        &["httpRoute.parentRefs is empty: name the Gateway"],
        &["httpRoute.enabled=true", r#"httpRoute.parentRefs=[{"name":"g"}]"#],
    ),
    (
        &["serviceMonitor.enabled=true", "podMonitor.enabled=true"],
        &["serviceMonitor.enabled and podMonitor.enabled are both true: keep one"],
        &["podMonitor.enabled=true"],
    ),
    (
        &["serviceAccount.create=false"],
        &["serviceAccount.name is empty: name the ServiceAccount to use"],
        &["serviceAccount.create=false", r#"serviceAccount.name="given""#],
    ),
    (
        &[r#"extraVolumes=[{"name":"api-access","emptyDir":{}}]"#],
        &["extraVolumes: the name api-access is the chart's own"],
        &[r#"extraVolumes=[{"name":"other","emptyDir":{}}]"#],
    ),
    (
        &["scripts.enabled=true", r#"runner.extraVolumeMounts=[{"name":"api-access","mountPath":"/t"}]"#],
        &["/runner/extraVolumeMounts/0/name"],
        &[
            "scripts.enabled=true",
            r#"runner.extraVolumeMounts=[{"name":"x","mountPath":"/t"}]"#,
            r#"extraVolumes=[{"name":"x","emptyDir":{}}]"#,
        ],
    ),
];

#[test]
fn bad_values_are_refused_with_a_message() {
    for (bad, words, _) in CASES {
        for major in MAJORS {
            let Some(refused) = tools::template(major, &Values::set(bad), &[]) else { return };
            let message = refused.expect_err(&format!("{major} takes {bad:?}"));
            for word in *words {
                assert!(message.contains(word), "{major}: {bad:?}: no {word:?} in: {message}");
            }
            assert!(!message.contains("nil pointer"), "{major}: {bad:?}: {message}");
        }
    }
}

#[test]
fn their_near_misses_are_accepted() {
    for (_, _, good) in CASES {
        let Some(rendered) = tools::template("helm4", &Values::set(good), &[]) else { return };
        assert!(rendered.is_ok(), "refuses {good:?}: {rendered:?}");
    }
}

#[test]
fn a_kubernetes_that_is_too_old_is_refused() {
    for major in MAJORS {
        for (version, fits) in [("1.32.9", false), ("1.33.0", true), ("v1.33.2-eks-1", true), ("1.40.0", true)] {
            let Some(out) = tools::template(major, &Values::Set(Vec::new()), &["--kube-version", version]) else {
                return;
            };
            assert_eq!(out.is_ok(), fits, "{major}, {version}");
            if let Err(message) = out {
                assert!(message.contains("chart requires kubeVersion: >=1.33.0-0"), "{message}");
            }
        }
    }
}

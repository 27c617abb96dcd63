//! Which Secrets and ConfigMaps a spec refers to, and in which of its fields.

use crate::{
    api::{
        HealthCheckSpec,
        probe::{KeyReference, Probe, TLS_CERTIFICATE, TLS_KEY},
    },
    check::{Reference, ReferenceKind},
};

/// A reference and the field that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred {
    /// `spec.targets[0].probe.http.headers[1].valueFrom.secretKeyRef`
    pub path: String,
    pub reference: Reference,
}

/// Everything that the probes of `spec` read when they run, in declared order.
#[must_use]
pub fn references_in(spec: &HealthCheckSpec) -> Vec<Referred> {
    let mut found = vec![];
    let probed = || spec.targets.iter().filter(|target| target.health_check.is_none());
    if let Some(probe) = &spec.probe
        && probed().any(|target| target.probe.is_none())
    {
        add(probe, "spec.probe", &mut found);
    }
    for (index, target) in spec.targets.iter().enumerate() {
        if let Some(probe) = target.probe.as_ref().filter(|_| target.health_check.is_none()) {
            add(probe, &format!("spec.targets[{index}].probe"), &mut found);
        }
    }
    found
}

fn add(probe: &Probe, path: &str, found: &mut Vec<Referred>) {
    for (index, header) in probe.http.iter().flat_map(|http| &http.headers).enumerate() {
        if let Some(from) = &header.value_from {
            let path = format!("{path}.http.headers[{index}].valueFrom.secretKeyRef");
            found.push(referred(path, ReferenceKind::Secret, &from.secret_key_ref));
        }
    }
    let tls = [
        ("http", probe.http.as_ref().and_then(|http| http.tls.as_ref())),
        ("tcp", probe.tcp.as_ref().and_then(|tcp| tcp.tls.as_ref())),
        ("grpc", probe.grpc.as_ref().and_then(|grpc| grpc.tls.as_ref())),
    ];
    for (kind, tls) in tls {
        let Some(tls) = tls else { continue };
        for key in tls.client_cert_ref.iter().flat_map(|client| [TLS_CERTIFICATE, TLS_KEY].map(|key| (client, key))) {
            let key = KeyReference { name: key.0.secret.clone(), key: key.1.to_owned() };
            found.push(referred(format!("{path}.{kind}.tls.clientCertRef"), ReferenceKind::Secret, &key));
        }
        let Some(ca) = &tls.ca_ref else { continue };
        let config_map = ca.config_map.as_ref().map(|key| (ReferenceKind::ConfigMap, key));
        let secret = ca.secret.as_ref().map(|key| (ReferenceKind::Secret, key));
        if let Some((object, key)) = config_map.or(secret) {
            found.push(referred(format!("{path}.{kind}.tls.caRef"), object, key));
        }
    }
}

fn referred(path: String, kind: ReferenceKind, key: &KeyReference) -> Referred {
    Referred { path, reference: Reference { kind, name: key.name.as_str().into(), key: key.key.as_str().into() } }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::HealthCheck;

    #[test]
    fn every_reference_that_is_read_has_its_field() {
        let header = |name: &str| json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
        let object: HealthCheck = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "probe": {"http": {"headers": [{"name": "B", "value": "b"}, header("one")]}},
                "targets": [
                    {"name": "a", "host": "db", "port": 80},
                    {"name": "b", "host": "db", "port": 443, "probe": {"http": {"scheme": "HTTPS", "headers": [header("two")],
                        "tls": {"caRef": {"configMap": {"name": "ca", "key": "k"}}}}}},
                    {"name": "c", "host": "db", "port": 1, "probe": {"tcp": {"tls": {"caRef": {"secret": {"name": "tcp", "key": "k"}}}}}},
                    {"name": "d", "host": "db", "port": 1, "probe": {"grpc": {"tls": {"caRef": {"secret": {"name": "grpc", "key": "k"}}}}}},
                    {"name": "e", "host": "db", "port": 1, "probe": {"tcp": {"tls": {"clientCertRef": {"secret": "we"}}}}},
                ],
            },
        }))
        .expect("a HealthCheck");
        let found = references_in(&object.spec);
        let found =
            found.iter().map(|each| (each.path.as_str(), each.reference.name.as_ref(), each.reference.key.as_ref()));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                ("spec.probe.http.headers[1].valueFrom.secretKeyRef", "one", "k"),
                ("spec.targets[1].probe.http.headers[0].valueFrom.secretKeyRef", "two", "k"),
                ("spec.targets[1].probe.http.tls.caRef", "ca", "k"),
                ("spec.targets[2].probe.tcp.tls.caRef", "tcp", "k"),
                ("spec.targets[3].probe.grpc.tls.caRef", "grpc", "k"),
                ("spec.targets[4].probe.tcp.tls.clientCertRef", "we", "tls.crt"),
                ("spec.targets[4].probe.tcp.tls.clientCertRef", "we", "tls.key"),
            ]
        );
    }
}

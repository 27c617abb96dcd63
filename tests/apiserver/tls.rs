//! TLS to targets whose certificate an authority of the user's own has signed.

use std::sync::Arc;

use anyhow::{Context, ensure};
use healthcheck_operator::api::Duration;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage, condition, fast, message, target};
use crate::suite::Suite;
use crate::support::control_plane::ControlPlane;
use crate::support::pki::Pki;
use crate::support::run_dir::sub_dir;
use crate::support::targets::HttpTarget;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial("tls::an_authority_of_ones_own_is_found_when_made", authority),
        suite.trial("tls::latency_and_expiry_are_in_the_status", measured),
    ]
}

async fn authority(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "authority").await?;
    let ours = Pki::new(&sub_dir("authority"))?;
    let signed = ours.server()?;
    let web = HttpTarget::start_tls(&signed.cert, &signed.key).await?;
    let _operator = stage.operator("hco-0").await?;
    let spec = |reference: Value| {
        let mut spec = fast(&[target("a", web.address())]);
        spec["probe"]["http"]["scheme"] = json!("HTTPS");
        spec["probe"]["http"]["tls"] = json!({"caRef": reference});
        spec
    };
    stage.apply("map", spec(json!({"configMap": {"name": "ours", "key": "ca.pem"}}))).await?;
    stage.apply("secret", spec(json!({"secret": {"name": "ours", "key": "ca.pem"}}))).await?;
    for (name, kind) in [("map", "ConfigMap"), ("secret", "Secret")] {
        let missing = |check: &_| condition(check, "Ready") == "False/InvalidReference";
        let check = stage.wait(name, "its authority missing", missing).await?;
        let wanted = format!("spec.probe.http.tls.caRef: {kind} 'ours' not found");
        ensure!(message(&check, "Ready").starts_with(&wanted), "{:?}", check.status);
        stage.wait(name, "a probe error", |check| condition(check, "Healthy") == "Unknown/ProbeError").await?;
    }
    ensure!(web.hits() == 0, "asked by one who trusts nobody yet");

    let literal = |authority: &Pki| format!("--from-literal=ca.pem={}", authority.ca_pem());
    stage.kubectl(&["create", "configmap", "ours", &literal(&ours)]).await?;
    stage.kubectl(&["create", "secret", "generic", "ours", &literal(&ours)]).await?;
    for name in ["map", "secret"] {
        stage.wait_health(name, "Healthy").await?;
        stage.wait(name, "accepted", |check| condition(check, "Ready") == "True/Accepted").await?;
    }
    web.wait_hits(2, SOON).await?;

    // It is this authority that is trusted, and not just any.
    stage.kubectl(&["create", "configmap", "another", &literal(&Pki::new(&sub_dir("another"))?)]).await?;
    stage.apply("another", spec(json!({"configMap": {"name": "another", "key": "ca.pem"}}))).await?;
    let check = stage.wait_health("another", "Unhealthy").await?;
    ensure!(condition(&check, "Ready") == "True/Accepted", "{:?}", check.status);
    let reasons: Vec<_> = check.status.iter().flat_map(|status| &status.targets).map(|row| &row.reason).collect();
    ensure!(reasons == [&Some("CertificateInvalid".to_owned())], "{:?}", check.status);
    Ok(())
}

async fn measured(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let stage = Stage::new(cluster, "measured").await?;
    let pki = Pki::new(&sub_dir("measured"))?;
    let signed = pki.server_until("measured", 2031, 5, 17)?;
    let web = HttpTarget::start_tls(&signed.cert, &signed.key).await?;
    let plain = HttpTarget::start().await?;
    let _operator = stage.operator("hco-0").await?;
    let mut spec = fast(&[target("a", web.address())]);
    spec["probe"]["http"]["scheme"] = json!("HTTPS");
    spec["probe"]["http"]["tls"] = json!({"mode": "SkipVerify"});
    stage.apply("secure", spec).await?;
    stage.apply("plain", fast(&[target("a", plain.address())])).await?;
    for (name, expires) in [("secure", Some("2031-05-17T00:00:00Z")), ("plain", None)] {
        stage.wait_health(name, "Healthy").await?;
        // As users read it: by the API, not by our own types.
        let told = stage.kubectl(&["get", "hck", name, "-o", "jsonpath={.status.targets[0]}"]).await?;
        let row: Value = serde_json::from_str(&told)?;
        ensure!(row["certificateExpires"].as_str() == expires, "{row}");
        let latency: Duration = row["latency"].as_str().context("no latency")?.parse()?;
        ensure!(latency.to_std() > std::time::Duration::ZERO && latency.to_std() < SOON, "{row}");
        ensure!(row["counters"]["success"].as_u64() >= Some(1), "{row}");
    }
    Ok(())
}

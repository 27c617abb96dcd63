//! Traffic that data planes report: by curl in the shapes they send, and by a real Envoy.

mod envoy;

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::checks::{Files, SOON, check, metric, no_panic, standalone, v1};
use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

/// The row of a target.
async fn row(operator: &Operator, check: &str, target: &str) -> anyhow::Result<Value> {
    let whole = v1(operator, check).await?;
    let rows = whole["endpoints"].as_array().with_context(|| whole.to_string())?;
    let row = rows.iter().find(|row| row["target"] == target).with_context(|| whole.to_string())?;
    Ok(row.clone())
}

async fn wait_row(operator: &Operator, check: &str, target: &str, what: &[(&str, &str)]) -> anyhow::Result<()> {
    wait_until(&format!("{check}/{target} {what:?}"), SOON, || async {
        operator.process().check_alive()?;
        let row = row(operator, check, target).await?;
        ensure!(what.iter().all(|(field, value)| row[*field].as_str().unwrap_or_default() == *value), "{row}");
        anyhow::Ok(())
    })
    .await
}

/// POSTs `body` with curl; code and body of the answer.
async fn curl(url: &str, token: &str, body: &Value) -> anyhow::Result<(String, Value)> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["-sS", "--noproxy", "*", "-m", "20", "-w", "\n%{http_code}", "-H"]);
    command.args([&format!("Authorization: {token}"), "-H", "Content-Type: application/json", "--data-binary"]);
    command.args([&body.to_string(), url]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout)?;
    let (body, code) = text.rsplit_once('\n').context("a code")?;
    Ok((code.to_owned(), serde_json::from_str(body).with_context(|| text.clone())?))
}

/// A line of APISIX's `http-logger`, as version 3 writes it where it is given no format.
fn line(status: u16, upstream: &str) -> Value {
    json!({
        "request": {
            "url": "http://127.0.0.1:9080/hello", "uri": "/hello", "method": "GET", "size": 81, "querystring": {},
            "headers": {"host": "127.0.0.1", "user-agent": "curl/8.5.0", "accept": "*/*"},
        },
        "response": {
            "status": status, "size": 118,
            "headers": {"content-type": "text/plain", "server": "APISIX/3.11.0", "connection": "close"},
        },
        "server": {"hostname": "gateway-1", "version": "3.11.0"},
        "upstream": upstream, "service_id": "", "route_id": "1", "consumer": {"username": "jack"},
        "client_ip": "127.0.0.1", "start_time": jiff::Timestamp::now().as_millisecond(),
        "latency": 101.9, "upstream_latency": 100.8, "apisix_latency": 1.1,
    })
}

#[tokio::test]
async fn batches_of_apisix_eject_an_endpoint_until_its_probe_finds_it_well() -> anyhow::Result<()> {
    let (good, bad) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let files = Files::with(&[check(
        "web",
        &format!(
            "  interval: 200ms\n  passive: {{}}\n  minHealthy: 2\n  probe: {{http: {{}}}}\n  targets:\n  - {{name: a, host: 127.0.0.1, port: {}}}\n  - {{name: b, host: 127.0.0.1, port: {}}}",
            good.port(),
            bad.port()
        ),
    )]);
    std::fs::write(files.file("token"), "s3cret\n")?;
    let operator = standalone(&files.file("checks.yaml")).arg("--api-token-file").arg(files.file("token")).serve()?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
    let url = format!("{}/v1/observations/access-log?scope=shop/web", operator.admin_url());
    let (code, said) = curl(&url, "Bearer wrong", &json!([])).await?;
    assert_eq!(code, "401", "{said}");

    let upstream = |target: &HttpTarget| format!("127.0.0.1:{}", target.port());
    // Its probe says that it is well all along, as often as it may.
    let sick = [vec![line(200, &upstream(&good)); 7], vec![line(500, &upstream(&bad)); 5]].concat();
    bad.set_hangs(true);
    let (code, said) = curl(&url, "Bearer s3cret", &json!(sick)).await?;
    assert_eq!((code.as_str(), &said["accepted"]), ("200", &json!(12)), "{said}");
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 503).await?;
    let verbose = operator.get("/healthz/shop/web?verbose").await?;
    assert!(verbose.body.contains("b: "), "{verbose:?}");
    bad.set_hangs(false);
    wait_row_open(&operator, "b").await?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
    let line = "healthcheck_operator_observations_total{source=\"http_logger\",result=\"accepted\"}";
    assert_eq!(metric(&operator, line).await?.as_deref(), Some("12"));
    assert_eq!(operator.process().output().matches("reports traffic").count(), 1, "one line, not one a batch");
    no_panic(&operator);
    Ok(())
}

/// With a token `/v1` is not open to [`row`].
async fn wait_row_open(operator: &Operator, target: &str) -> anyhow::Result<()> {
    operator.wait_get(&format!("/healthz/shop/web/{target}"), SOON, |answer| answer.status == 200).await?;
    Ok(())
}

#[tokio::test]
async fn what_has_no_traffic_is_probed_seldom_until_some_is_reported() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let files = Files::with(&[check(
        "web",
        &format!(
            "  interval: 100ms\n  passive: {{noTrafficInterval: 3s}}\n  targets:\n  - {{name: a, host: 127.0.0.1, port: {}, probe: {{http: {{}}}}}}",
            target.port()
        ),
    )]);
    let operator = standalone(&files.file("checks.yaml")).serve()?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
    // Fewer than in any second of ten rounds: probes that come late are fewer too, but not for as long as this is looked at.
    let idle = || async {
        let before = target.hits();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let hits = target.hits() - before;
        ensure!((1..=4).contains(&hits), "{hits} probes in six seconds");
        anyhow::Ok(())
    };
    wait_until("probes are rare", SOON, idle).await?;

    let url = format!("{}/v1/observations", operator.admin_url());
    let seen = json!([{"healthCheck": "shop/web", "endpoint": "a", "outcome": {"status": 404}}]);
    let before = target.hits();
    // At the pace of what has no traffic this would take more than two minutes.
    wait_until("probes are frequent", SOON, || async {
        let (code, said) = curl(&url, "-", &seen).await?;
        ensure!(code == "200" && said["accepted"] == 1, "{said}");
        ensure!(target.hits() >= before + 50, "{} probes", target.hits() - before);
        anyhow::Ok(())
    })
    .await?;
    wait_until("probes are rare again", SOON, idle).await?;
    assert_eq!(row(&operator, "web", "a").await?["state"], "Healthy");
    no_panic(&operator);
    Ok(())
}

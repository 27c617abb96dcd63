//! A real Envoy between a client and its upstreams, configured as docs/passive.md has it, streams its access log.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{row, wait_row};
use crate::checks::{Files, SOON, metric, no_panic, standalone, wait_printed};
use crate::support::operator::Operator;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::programs::script;
use crate::support::targets::{HttpTarget, TcpTarget};
use crate::support::wait::wait_while;

const DOCUMENT: &str = include_str!("../../../docs/passive.md");

/// The first block of YAML that has `mark` in it.
fn block(mark: &str) -> String {
    let mut blocks = DOCUMENT.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(mark)).unwrap_or_else(|| panic!("no block with {mark}")).to_owned()
}

/// One Envoy with two listeners, and what is behind and beside them.
struct Stage {
    good: HttpTarget,
    bad: HttpTarget,
    raw: TcpTarget,
    web: u16,
    tcp: u16,
    operator: Operator,
    envoy: Process,
    client: reqwest::Client,
    _files: Files,
}

impl Stage {
    async fn new() -> anyhow::Result<Self> {
        let program = script("envoy.sh")?.join("envoy");
        let (good, bad, raw) = (HttpTarget::start().await?, HttpTarget::start().await?, TcpTarget::start().await?);
        let (web, tcp, envoy_listen) = (free_port(), free_port(), free_port());
        let ports = |text: &str| {
            [
                (10000, web),
                (10001, tcp),
                (8001, good.port()),
                (8002, bad.port()),
                (8003, raw.port()),
                (8083, envoy_listen),
            ]
            .iter()
            .fold(text.to_owned(), |text, (from, to)| {
                text.replace(&format!("port: {from}"), &format!("port: {to}"))
                    .replace(&format!("port_value: {from}"), &format!("port_value: {to}"))
            })
        };
        // The second one is judged by its traffic alone.
        let checks = ports(&block("kind: HealthCheck"));
        let raw_check = checks
            .replace("name: web", "name: raw")
            .replace("passive: {}", "passive: {activeProbes: \"Off\", ejectionTime: 1s}");
        let raw_check = raw_check.replace(&format!("port: {}}}", good.port()), &format!("port: {}}}", raw.port()));
        let files = Files::with(&[checks, raw_check]);
        std::fs::write(files.file("token"), "s3cret")?;
        let config = ports(&block("static_resources")).replace("TOKEN", "s3cret");
        std::fs::write(files.file("envoy.yaml"), config)?;
        let operator = standalone(&files.file("checks.yaml"))
            .arg("--envoy-listen")
            .arg(format!("127.0.0.1:{envoy_listen}"))
            .serve()?;
        operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
        let config = files.file("envoy.yaml").display().to_string();
        let args = ["-c", &config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"].map(str::to_owned);
        let envoy = Process::start(&program, &args, &[], &files.file("envoy.log"))?;
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let stage = Self { good, bad, raw, web, tcp, operator, envoy, client, _files: files };
        wait_while(|| stage.envoy.check_alive(), "Envoy", SOON, || async { stage.ask().await.map(drop) }).await?;
        Ok(stage)
    }

    /// One request through Envoy.
    async fn ask(&self) -> anyhow::Result<u16> {
        Ok(self.client.get(format!("http://127.0.0.1:{}/", self.web)).send().await?.status().as_u16())
    }

    /// Asks until `target` is what it shall be, or for too long.
    async fn ask_until(&self, what: &[(&str, &str)]) -> anyhow::Result<()> {
        let look = || async {
            for _ in 0..4 {
                self.ask().await?;
            }
            let row = row(&self.operator, "web", "b").await?;
            ensure!(what.iter().all(|(field, value)| row[*field].as_str() == Some(*value)), "{row}");
            anyhow::Ok(())
        };
        wait_while(|| self.envoy.check_alive(), &format!("{what:?}"), SOON, look).await
    }
}

#[tokio::test]
async fn what_a_real_envoy_sees_ejects_an_endpoint_and_lets_it_back() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let operator = &stage.operator;
    for _ in 0..20 {
        assert_eq!(stage.ask().await?, 200);
    }
    let accepted = "healthcheck_operator_observations_total{source=\"envoy\",result=\"accepted\"}";
    let counted = || async {
        let seen = metric(operator, accepted).await?;
        ensure!(seen.as_deref().is_some_and(|seen| seen.parse().is_ok_and(|seen: u64| seen >= 20)), "{seen:?}");
        anyhow::Ok(())
    };
    wait_while(|| stage.envoy.check_alive(), "twenty observations", SOON, counted).await?;
    // The time that Envoy gives is read as what it is.
    let late = "healthcheck_operator_observations_total{source=\"envoy\",result=\"late\"}";
    assert_eq!(metric(operator, late).await?, None);
    assert_eq!(row(operator, "web", "b").await?["state"], "Healthy");

    // Its port is open, which is all that is probed; what it answers is what traffic sees.
    stage.bad.set_status(503);
    stage.ask_until(&[("state", "Unhealthy"), ("reason", "PassiveUnexpectedStatus")]).await?;
    assert_eq!(row(operator, "web", "a").await?["state"], "Healthy");
    operator.wait_get("/healthz/shop/web/b", SOON, |answer| answer.status == 503).await?;
    stage.bad.set_status(200);
    wait_row(operator, "web", "b", &[("state", "Healthy"), ("reason", "")]).await?;
    operator.wait_get("/healthz/shop/web/b", SOON, |answer| answer.status == 200).await?;

    // An answer that does not come: half a second is all that the route allows.
    stage.bad.set_hangs(true);
    stage.ask_until(&[("state", "Unhealthy"), ("reason", "PassiveTimeout")]).await?;
    stage.bad.set_hangs(false);
    wait_row(operator, "web", "b", &[("state", "Healthy")]).await?;

    no_panic(operator);
    Ok(())
}

#[tokio::test]
async fn connections_through_a_real_envoy_are_judged_without_a_probe() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let operator = &stage.operator;
    let talk = async || {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", stage.tcp)).await?;
        // Where the upstream refuses, Envoy closes at once.
        let _ = stream.write_all(b"x").await;
        let _ = stream.shutdown().await;
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        anyhow::Ok(())
    };
    let until = async |state: &str, reason: &str| {
        let look = || async {
            talk().await?;
            let row = row(operator, "raw", "a").await?;
            let seen = (row["state"].as_str(), row["reason"].as_str().unwrap_or_default());
            ensure!(seen == (Some(state), reason), "{row}");
            anyhow::Ok(())
        };
        wait_while(|| stage.envoy.check_alive(), state, SOON, look).await
    };
    assert_eq!(row(operator, "raw", "a").await?["state"], "Healthy", "nobody has spoken against it");
    wait_while(
        || stage.envoy.check_alive(),
        "a connection that was served",
        SOON,
        || async {
            talk().await?;
            let row = row(operator, "raw", "a").await?;
            ensure!(row["passiveCounters"]["success"].as_u64().is_some_and(|count| count > 0), "{row}");
            anyhow::Ok(())
        },
    )
    .await?;
    stage.raw.close().await;
    until("Unhealthy", "PassiveConnectFailure").await?;
    stage.raw.reopen().await?;
    until("Healthy", "").await?;
    assert!(stage.good.hits() + stage.bad.hits() > 0, "the other listener works too");
    no_panic(operator);
    Ok(())
}

/// Whoever has the wrong token is told, and nothing of it is believed.
#[tokio::test]
async fn a_real_envoy_without_the_token_is_not_heard() -> anyhow::Result<()> {
    let program = script("envoy.sh")?.join("envoy");
    let (good, envoy_listen, web) = (HttpTarget::start().await?, free_port(), free_port());
    let files = Files::with(&[block("kind: HealthCheck").replace("8001", &good.port().to_string())]);
    std::fs::write(files.file("token"), "s3cret")?;
    let config = block("static_resources")
        .replace("TOKEN", "wrong")
        .replace("port_value: 8083", &format!("port_value: {envoy_listen}"))
        .replace("port_value: 10000", &format!("port_value: {web}"))
        .replace("port_value: 10001", &format!("port_value: {}", free_port()))
        .replace("port_value: 8001", &format!("port_value: {}", good.port()))
        .replace("port_value: 8002", &format!("port_value: {}", good.port()));
    std::fs::write(files.file("envoy.yaml"), config)?;
    let operator = standalone(&files.file("checks.yaml"))
        .args(["--envoy-listen".to_owned(), format!("127.0.0.1:{envoy_listen}"), "--api-token-file".to_owned()])
        .arg(files.file("token"))
        .args(["--log-level", "debug"])
        .serve()?;
    operator.wait_alive(SOON).await?;
    let path: &Path = &files.file("envoy.yaml");
    let args = ["-c", &path.display().to_string(), "--disable-hot-restart", "--concurrency", "1"].map(str::to_owned);
    let envoy = Process::start(&program, &args, &[], &files.file("envoy.log"))?;
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    let ask = || async {
        ensure!(client.get(format!("http://127.0.0.1:{web}/")).send().await?.status() == 200);
        anyhow::Ok(())
    };
    wait_while(|| envoy.check_alive(), "an answer through Envoy", SOON, ask).await?;
    wait_printed(&operator, "a valid bearer token is needed in the metadata").await?;
    for result in ["accepted", "unknown_endpoint"] {
        let line = format!("healthcheck_operator_observations_total{{source=\"envoy\",result=\"{result}\"}}");
        assert_eq!(metric(&operator, &line).await?, None);
    }
    let line = "healthcheck_operator_observation_batches_total{source=\"envoy\",result=\"refused\"}";
    assert!(metric(&operator, line).await?.is_some());
    no_panic(&operator);
    Ok(())
}

//! Outages, signals, and addresses that are taken.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::checks::{Files, SOON, check, healthy, no_panic, quick_http, standalone, v1, wait_metric};
use crate::processes::running;
use crate::support::door::Door;
use crate::support::operator::{BINARY, command};
use crate::support::ports::free_port;
use crate::support::targets::{HttpTarget, TcpTarget, loopback};
use crate::support::wait::{wait_for, wait_until};

/// Scripts that run when it is told to end; each is two processes.
const SLEEPERS: usize = 20;
const DOWN: &str = r#"healthcheck_health{namespace="shop",name="web",health="Unhealthy"}"#;

#[tokio::test]
async fn without_a_file_it_runs_the_example_that_is_part_of_it() -> anyhow::Result<()> {
    let operator = command("standalone").serve()?;
    let disk = operator.wait_get("/healthz/quickstart/disk", SOON, |answer| answer.status == 200).await?;
    ensure!(disk.body.starts_with("Healthy"), "{}", disk.body);
    // The agents are the program's own: its engine, and each check, with the last beat.
    let health: serde_json::Value = serde_json::from_str(&operator.get("/__health").await?.body)?;
    for agent in ["engine", "quickstart/disk"] {
        let beat = health["agents"][agent].as_str().unwrap_or_default();
        ensure!(beat.parse::<jiff::Timestamp>().is_ok(), "{agent} in {health}");
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_dies_and_recovers_is_told_everywhere() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", target.port())]);
    let operator = healthy(files.path()).await?;
    let verbose = operator.get("/healthz?verbose").await?;
    assert_eq!(verbose.body, "Healthy; 1 healthy, 0 degraded, 0 unhealthy, 0 unknown\n[+]shop/web ok (1/1)\n");
    wait_metric(&operator, DOWN, "0").await?;

    target.set_status(503);
    let down = operator.wait_get("/healthz?verbose", SOON, |answer| answer.status == 503).await?;
    let lines: Vec<&str> = down.body.lines().collect();
    assert_eq!(
        lines,
        [
            "Unhealthy; 0 healthy, 0 degraded, 1 unhealthy, 0 unknown",
            "[-]shop/web failed: web: unexpected status code; got '503', want '200'"
        ]
    );
    assert_eq!(operator.get("/healthz/shop/web/web").await?.status, 503);
    let seen = v1(&operator, "web").await?;
    assert_eq!((&seen["health"], &seen["summary"]), (&"Unhealthy".into(), &"0/1".into()), "{seen}");
    let endpoint = &seen["endpoints"][0];
    assert_eq!((&endpoint["state"], &endpoint["reason"]), (&"Unhealthy".into(), &"UnexpectedStatus".into()), "{seen}");
    assert!(endpoint["counters"]["http"].as_u64() >= Some(2) && endpoint["counters"]["success"] == 0, "{seen}");
    assert_eq!(seen["outages"][0]["end"], serde_json::Value::Null, "{seen}");
    wait_metric(&operator, DOWN, "1").await?;

    // Another class of failure: nobody listens. The verdict stays, the reason follows.
    target.close().await;
    wait_until("the new reason", SOON, || async {
        let seen = v1(&operator, "web").await?;
        ensure!(seen["endpoints"][0]["reason"] == "ConnectionRefused", "{seen}");
        anyhow::Ok(())
    })
    .await?;

    target.set_status(200);
    target.reopen().await?;
    operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    let seen = v1(&operator, "web").await?;
    let counters = &seen["endpoints"][0]["counters"];
    assert!(counters["success"].as_u64() >= Some(2), "{seen}");
    assert_eq!((&counters["http"], &counters["connect"]), (&0.into(), &0.into()), "{seen}");
    let transitions = &seen["transitions"];
    assert_eq!((&transitions["Healthy"], &transitions["Unhealthy"]), (&2.into(), &1.into()), "{seen}");
    assert!(seen["outages"][0]["end"].is_string(), "{seen}");
    wait_metric(&operator, DOWN, "0").await?;
    no_panic(&operator);
    Ok(())
}

#[tokio::test]
async fn a_full_handshake_is_seen_by_the_target() -> anyhow::Result<()> {
    let target = TcpTarget::start().await?;
    let spec = format!(
        "  interval: 100ms\n  targets: [{{name: db, host: 127.0.0.1, port: {}, probe: {{tcp: {{handshake: Full}}}}}}]",
        target.port()
    );
    let files = Files::with(&[check("db", &spec)]);
    let operator = healthy(files.path()).await?;
    let before = target.connections();
    target.wait_connections(5, SOON).await?;
    assert!(target.connections() > before);
    drop(operator);
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_it_with_0_and_closes_connections() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    // A probe that hangs and a script that sleeps must not keep it.
    let hanging = HttpTarget::start().await?;
    let mark = format!("sleep 87{}", std::process::id());
    let sleeper = |n| {
        let source = format!("{mark} & exec {mark}");
        let spec = "  interval: 60s\n  timeout: 50s\n  targets: [{name: s, probe: {script: {command: [sh, -c, '";
        check(&format!("sleeper-{n}"), &format!("{spec}{source}']}}}}}}]"))
    };
    let mut documents: Vec<String> = (0..SLEEPERS).map(sleeper).collect();
    let slow = format!(
        "  interval: 60s\n  timeout: 50s\n  targets: [{{name: h, host: 127.0.0.1, port: {}, probe: {{http: {{}}}}}}]",
        hanging.port()
    );
    hanging.set_hangs(true);
    documents.extend([quick_http("web", target.port()), check("slow", &slow)]);
    let files = Files::with(&documents);
    let operator = standalone(files.path()).serve()?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
    wait_for("the probe that hangs", SOON, || hanging.hits(), |hits| *hits >= 1).await?;
    wait_for("the scripts", SOON, || running(&mark), |count| *count == 2 * SLEEPERS).await?;
    let address = operator.url().replace("http://", "");
    // One connection that never says a word, one in the middle of a request.
    let mut silent = TcpStream::connect(&address).await?;
    let mut half = TcpStream::connect(&address).await?;
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await?;

    // `stop` fails after ten seconds, long before any of the fifty.
    let status = operator.process().stop()?;
    assert_eq!(status.code(), Some(0), "{}", operator.process().output());
    wait_for("the scripts to end", SOON, || running(&mark), |left| *left == 0).await?;
    for connection in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, connection.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "a connection is still open");
    }
    assert!(TcpStream::connect(&address).await.is_err(), "somebody still listens");
    no_panic(&operator);
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_flag_and_address() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let (taken_at, free) = (taken.local_addr()?.to_string(), format!("127.0.0.1:{}", free_port()));
    let files = Files::with(&[check("web", "  targets: [{name: a, probe: {script: {command: ['true']}}}]")]);
    for (flag, public, admin) in [("--listen", &taken_at, &free), ("--admin-listen", &free, &taken_at)] {
        let ended = command("standalone")
            .args(["-f", &files.path().display().to_string(), "--listen", public, "--admin-listen", admin])
            .run(SOON)
            .await?;
        let told = String::from_utf8(ended.stderr)?;
        assert_eq!(ended.status.code(), Some(2), "{told}");
        let begin = format!("error: cannot listen on {flag} {taken_at}: the port is in use;");
        assert!(told.starts_with(&begin) && told.lines().count() == 1, "{told}");
    }
    Ok(())
}

/// Answers 200 to whoever connects, a good while later: of any moment, some probe is in flight.
async fn slow_target(delay: Duration) -> std::io::Result<Door> {
    Door::open(loopback(), move |mut stream: TcpStream| async move {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        tokio::time::sleep(delay).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    })
    .await
}

#[tokio::test]
async fn a_stop_of_the_process_is_no_outage() -> anyhow::Result<()> {
    let target = slow_target(Duration::from_millis(100)).await?;
    let tight = |n: usize| {
        let spec = format!(
            "  interval: 400ms\n  timeout: 400ms\n  failureThreshold: 1\n  targets: [{{name: t, host: 127.0.0.1, port: {}, probe: {{http: {{}}}}}}]",
            target.address().port()
        );
        check(&format!("c{n}"), &spec)
    };
    let documents: Vec<String> = (0..20).map(tight).collect();
    let files = Files::with(&documents);
    let operator = healthy(files.path()).await?;
    let state = |seen: &serde_json::Value| seen["transitions"].to_string();
    let mut before = Vec::new();
    for n in 0..20 {
        before.push(state(&v1(&operator, &format!("c{n}")).await?));
    }
    for round in 0..3 {
        operator.process().freeze()?;
        // The stop itself, not a wait for anything.
        tokio::time::sleep(Duration::from_secs(if round == 0 { 3 } else { 1 })).await;
        operator.process().thaw()?;
        // Each of them is asked again, twice.
        let asked = target.accepted();
        wait_until("probes after the stop", SOON, || async {
            ensure!(target.accepted() >= asked + 40, "{}", target.accepted() - asked);
            anyhow::Ok(())
        })
        .await?;
    }
    for (n, before) in before.iter().enumerate() {
        assert_eq!(&state(&v1(&operator, &format!("c{n}")).await?), before, "{}", operator.process().output());
    }
    let log = operator.process().output();
    assert!(!log.contains("to=Unhealthy") && !log.contains("from=Healthy"), "{log}");
    assert_eq!(operator.get("/healthz").await?.status, 200);
    Ok(())
}

/// The log's reader may go, as journald does when it restarts.
#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", target.port())]);
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let (public, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let mut operator = tokio::process::Command::new(BINARY)
        .args(["standalone", "--listen", &public, "--admin-listen", &admin, "-f"])
        .arg(files.path())
        .stdin(std::process::Stdio::null())
        .stderr(writer)
        .kill_on_drop(true)
        .spawn()?;
    let url = format!("http://{public}/healthz");
    for code in [200, 503, 200] {
        target.set_status(code);
        wait_until("the verdict", SOON, || async {
            let seen = reqwest::get(&url).await?.status().as_u16();
            ensure!(seen == code, "{seen}");
            anyhow::Ok(())
        })
        .await
        .with_context(|| format!("ended: {:?}", operator.try_wait()))?;
    }
    Ok(())
}

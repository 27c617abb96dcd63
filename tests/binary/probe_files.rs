//! `probe -f`: every endpoint that files declare, once.

use serde_json::Value;

use crate::checks::{Files, SOON, check};
use crate::support::operator::command;
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;

/// Exit code, standard output and standard error.
async fn probe(files: &Files, args: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let ended = command("probe").arg("-f").arg(files.path()).args(args).run(SOON).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((ended.status.code().unwrap_or(-1), text(&ended.stdout), text(&ended.stderr)))
}

fn http(name: &str, port: u16) -> String {
    format!(
        "  - {{name: {name}, host: 127.0.0.1, port: {port}, probe: {{http: {{path: /ready, expectedStatuses: [200]}}}}}}\n"
    )
}

#[tokio::test]
async fn every_endpoint_is_probed_once_a_line_each() -> anyhow::Result<()> {
    let (well, sick, closed) = (HttpTarget::start().await?, HttpTarget::start().await?, free_port());
    sick.set_status(202);
    let web =
        check("web", &format!("  minHealthy: 1\n  targets:\n{}{}", http("a", well.port()), http("b", sick.port())));
    let files = Files::with(&[
        web.clone(),
        check("over", "  targets: [{name: web, healthCheck: {name: web}}]"),
        check("paused", "  suspend: true\n  targets: [{name: s, probe: {script: {command: ['false']}}}]"),
    ]);
    let (code, told, errors) = probe(&files, &[]).await?;
    let wanted = format!(
        "shop/over web: healthy\nshop/paused: suspended\nshop/web a 127.0.0.1:{}: healthy\n\
         shop/web b 127.0.0.1:{}: unhealthy; unexpected status code; got '202', want '200'\n",
        well.port(),
        sick.port()
    );
    assert_eq!((code, told.as_str(), errors.as_str()), (0, wanted.as_str(), ""), "the minimum is met");
    assert_eq!((well.hits(), sick.hits()), (1, 1), "asked once, though two checks want to know");

    files.write("more.yaml", &[check("down", &format!("  targets: [{{name: db, host: 127.0.0.1, port: {closed}}}]"))]);
    let (code, told, _) = probe(&files, &["-o", "json"]).await?;
    let told: Value = serde_json::from_str(&told)?;
    let health =
        |name: &str| told["checks"].as_array().into_iter().flatten().find(|check| check["name"] == name).cloned();
    let (down, web) = (health("down").expect("there"), health("web").expect("there"));
    assert_eq!((code, &down["health"], &down["error"]), (1, &"Unhealthy".into(), &"connection refused".into()));
    assert_eq!(down["endpoints"][0]["reason"], "ConnectionRefused");
    assert_eq!((&web["health"], web["endpoints"].as_array().map(Vec::len)), (&"Degraded".into(), Some(2)));
    let (code, told, _) = probe(&files, &["-o", "yaml"]).await?;
    assert!(code == 1 && told.contains("name: down"), "{told}");
    Ok(())
}

#[tokio::test]
async fn who_cannot_look_says_so_and_who_cannot_read_asks_nothing() -> anyhow::Result<()> {
    let well = HttpTarget::start().await?;
    let cannot = check("cannot", "  targets: [{name: s, probe: {script: {command: ['/nonexistent/program']}}}]");
    let files = Files::with(&[cannot, check("web", &format!("  targets:\n{}", http("a", well.port())))]);
    let (code, told, _) = probe(&files, &[]).await?;
    assert_eq!(code, 3, "{told}");
    assert!(told.starts_with("shop/cannot s: unknown; '/nonexistent/program' could not be started"), "{told}");
    assert_eq!(well.hits(), 1);

    files.write("wrong.yaml", &[check("wrong", "  interval: soon\n  targets: [{name: a, host: h, port: 1}]")]);
    let (code, told, errors) = probe(&files, &[]).await?;
    assert_eq!((code, told.as_str(), well.hits()), (2, "", 1), "{errors}");
    assert!(errors.contains("wrong.yaml:5") && errors.contains("spec.interval"), "{errors}");
    files.write("wrong.yaml", &[check("wrong", "  targets: [{name: a, service: {name: web}}]")]);
    let (code, _, errors) = probe(&files, &[]).await?;
    assert!(code == 2 && errors.contains("spec.targets[0].service"), "{errors}");

    for (args, says) in [
        (&["-f", "/nonexistent"][..], "/nonexistent"),
        (&["-o", "json"], "--filename"),
        (&["-f", "x", "tcp", "127.0.0.1:1"], "cannot be used with"),
        (&[], "Usage:"),
    ] {
        let ended = command("probe").args(args).run(SOON).await?;
        let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(2) && errors.contains(says), "{args:?}: {errors}");
    }
    let empty = Files::new();
    let (code, _, errors) = probe(&empty, &[]).await?;
    assert!(code == 2 && errors.contains("holds no HealthCheck"), "{errors}");
    Ok(())
}

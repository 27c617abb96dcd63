//! More checks than anybody writes by hand.

use std::fmt::Write;
use std::time::Duration;

use anyhow::ensure;

use crate::checks::{Files, check, no_panic, standalone, wait_metric};
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

const CHECKS: usize = 500;
/// For a debug build beside other tests; only a failure takes as long.
const LONG: Duration = Duration::from_secs(120);

fn documents(port: u16) -> Vec<String> {
    let one = |n| {
        let mut spec = String::from("  interval: 5s\n  failureThreshold: 1\n  targets:\n");
        for way in 1..=3 {
            let _ = writeln!(
                spec,
                "  - {{name: t{way}, host: 127.0.0.1, port: {port}, probe: {{http: {{path: /{n}/{way}}}}}}}"
            );
        }
        let _ = writeln!(spec, "  - {{name: open, host: 127.0.0.1, port: {port}}}");
        check(&format!("check-{n:03}"), &spec)
    };
    (0..CHECKS).map(one).collect()
}

#[tokio::test]
async fn hundreds_of_checks_with_several_endpoints_start_and_become_healthy() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let documents = documents(target.port());
    let files = Files::new();
    for (n, part) in documents.chunks(100).enumerate() {
        files.write(&format!("{n}.yaml"), part);
    }
    let operator = standalone(files.path()).serve()?;
    let all = format!("Healthy; {CHECKS} healthy, 0 degraded, 0 unhealthy, 0 unknown\n");
    operator.wait_get("/healthz", LONG, |answer| answer.status == 200 && answer.body == all).await?;
    let endpoints = (CHECKS * 4).to_string();
    wait_metric(&operator, "healthcheck_operator_endpoints", &endpoints).await?;
    assert!(target.hits() >= (CHECKS * 3) as u64, "{}", target.hits());
    let verbose = operator.get("/healthz?verbose").await?.body;
    assert_eq!(verbose.lines().filter(|line| line.ends_with(" ok (4/4)")).count(), CHECKS);

    // One edit of a large set changes one check.
    files.write("0.yaml", &documents[..99]);
    wait_until("the check that is gone", LONG, || async {
        let answer = operator.get("/healthz").await?;
        ensure!(answer.body.starts_with("Healthy; 499 healthy,"), "{answer:?}");
        anyhow::Ok(())
    })
    .await?;
    target.set_status(500);
    operator.wait_get("/healthz", LONG, |answer| answer.body.contains(" 499 unhealthy,")).await?;
    no_panic(&operator);
    Ok(())
}

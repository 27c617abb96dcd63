//! More than the ordinary lane can do: its tasks come late to answers that are there, and that is no target's fault.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::harness::{
    Files, MOST_TARGETS, Target, alive_and_well, alone, failures, hang_up, metric, nth, skip, successes, wait_healthy,
    wait_metric, wait_more,
};
use crate::stalls::STRETCH;

/// Of fifty names each: of a tenth of a second, they are more than there is CPU for.
const CHECKS: usize = 120;

/// Connects that the kernel answers, to names, which take the ordinary lane.
fn crowd(target: &Target, interval: &str) -> Vec<String> {
    let of = |check: usize| {
        let mut text = format!(
            "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: c-{check}, namespace: shop}}\n\
             spec:\n  interval: {interval}\n  timeout: 100ms\n  failureThreshold: 1\n  staleAfter: 10m\n  targets:\n"
        );
        for n in 0..MOST_TARGETS {
            let name = check * MOST_TARGETS + n;
            let _ = writeln!(
                text,
                "  - {{name: t{n}, host: t{name}.example, port: {}, probe: {{tcp: {{}}}}}}",
                target.port
            );
        }
        text
    };
    (0..CHECKS).map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_come_too_late_to_answers_that_are_there_blame_nobody() -> anyhow::Result<()> {
    let _alone = alone().await;
    if !rustix::process::geteuid().is_root() {
        skip("a hosts file of one's own takes root");
        return Ok(());
    }
    let target = Target::start(hang_up);
    // At first one after the other.
    let files = Files::with(&crowd(&target, "20s"));
    let hosts = files.path().join("hosts");
    let names = (0..CHECKS * MOST_TARGETS).map(|n| format!("{} t{n}.example\n", nth(n)));
    std::fs::write(&hosts, names.collect::<String>())?;
    let script = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let operator = files.standalone().under(["unshare", "--mount", "--", "sh", "-c", &script, "sh"]).serve()?;
    wait_healthy(&operator, CHECKS).await?;

    files.write(&crowd(&target, "100ms"));
    let most = wait_metric(&operator, STRETCH, "", |times| times > 1.5).await?;
    wait_more(&operator, (CHECKS * MOST_TARGETS) as f64).await?;
    let told = operator.admin_get("/metrics").await?.body;
    let which: Vec<_> = told.lines().filter(|line| line.contains("outcome=\"failure\"")).collect();
    ensure!(failures(&operator).await? == (0.0, 0.0), "{which:?}");

    files.write(&crowd(&target, "20s"));
    wait_healthy(&operator, CHECKS).await?;
    ensure!(failures(&operator).await? == (0.0, 0.0), "none failed");
    let late = metric(&operator, "healthcheck_operator_probes_total", "reason=\"ProberOverloaded\"").await?;
    let well = successes(&operator).await?;
    println!(
        "  {well} probes of the ordinary lane, intervals {most:.1} times as long: none failed, {late} were too late"
    );
    alive_and_well(&operator)
}

//! A name server that says nothing, beside targets that need none.

use std::net::UdpSocket;

use anyhow::ensure;

use crate::harness::{Files, LONG, Target, alive_and_well, alone, answer, check, failures, metric, wait_more};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_server_that_swallows_all_holds_up_no_address_and_fails_no_name() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 50;
    // It listens, and never answers.
    let Ok(_black_hole) = UdpSocket::bind("127.0.0.77:53") else {
        crate::harness::skip("port 53 of 127.0.0.77 cannot be listened on here (as root)");
        return Ok(());
    };
    let target = Target::start(answer);
    let spec = "interval: 1s; timeout: 1s; failureThreshold: 2; staleAfter: 10m";
    let places = (0..TARGETS).map(|n| (target.at(n), "{http: {}}".to_owned()));
    let mut names = check("names", spec, []);
    for n in 0..TARGETS {
        names.push_str(&format!(
            "  - {{name: t{n}, host: t{n}.example, port: {}, probe: {{http: {{}}}}}}\n",
            target.port
        ));
    }
    let files = Files::with(&[check("addresses", spec, places), names]);
    let resolv = files.path().with_extension("conf");
    std::fs::write(&resolv, "nameserver 127.0.0.77\noptions attempts:1\n")?;
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", resolv.display());
    let operator = files.standalone().under(["unshare", "--mount", "--", "sh", "-c", &script, "sh"]).serve()?;
    operator.wait_get("/healthz/shop/addresses", LONG, |answer| answer.status == 200).await?;
    wait_more(&operator, 20.0 * TARGETS as f64).await?;
    let (unhealthy, _) = failures(&operator).await?;
    let timeouts = metric(&operator, "healthcheck_operator_probes_total", "reason=\"TimeoutResolve\"").await?;
    let unreachable = metric(&operator, "healthcheck_operator_probes_total", "reason=\"ResolverUnreachable\"").await?;
    ensure!(timeouts + unreachable > 0.0, "names were looked up");
    let seen = operator.get("/healthz/shop/addresses").await?;
    ensure!(seen.status == 200, "{seen:?}");
    let became = metric(&operator, "healthcheck_transitions_total", "name=\"addresses\",health=\"Unhealthy\"").await?;
    ensure!(became == 0.0, "{became}");
    println!(
        "  a silent name server: {timeouts} timeouts, {unreachable} unreachable; {unhealthy} checks became Unhealthy"
    );
    std::fs::remove_file(resolv)?;
    alive_and_well(&operator)
}

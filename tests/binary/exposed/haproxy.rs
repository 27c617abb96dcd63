//! HAProxy asks `/healthz` which of its servers may be sent to, and knows nothing else of them.

use std::path::Path;

use anyhow::ensure;

use crate::checks::{Files, SOON, check, standalone};
use crate::health_checker::has;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_while;

/// Servers are named as the targets are; one frontend goes by the code, one by the text, one by what everybody asks.
fn config(fronts: [u16; 3], operator: &str, servers: &[(&str, u16)]) -> String {
    let (host, port) = operator.trim_start_matches("http://").split_once(':').expect("an address");
    let servers: String = servers
        .iter()
        .map(|(name, app)| format!("  server {name} 127.0.0.1:{app} check addr {host} port {port}\n"))
        .collect();
    let ways = [
        "http-check send meth GET uri-lf /healthz/shop/web/%[srv_name]\n  http-check expect status 200",
        "http-check send meth GET uri-lf /healthz/shop/web/%[srv_name]\n  http-check expect string UP",
        "http-check send meth HEAD uri /healthz/shop/web",
    ];
    let listen = |(front, way): (&u16, &str)| {
        format!(
            "listen l{front}\n  bind 127.0.0.1:{front}\n  option httpchk\n  {way}\n  default-server inter 100ms fastinter 100ms fall 1 rise 1\n{servers}"
        )
    };
    let listens: String = fronts.iter().zip(ways).map(listen).collect();
    format!(
        "global\n  maxconn 100\ndefaults\n  mode http\n  retries 0\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n{listens}"
    )
}

#[tokio::test]
async fn haproxy_sends_to_what_the_operator_calls_healthy() -> anyhow::Result<()> {
    if !has("haproxy", "-v") {
        return Ok(());
    }
    let (a, b) = (HttpTarget::start().await?, HttpTarget::start().await?);
    // What is probed says nothing of what is served: each target stands for the server of its name.
    let (probed_a, probed_b) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let target = |name: &str, port: u16| {
        format!("  - {{name: {name}, host: 127.0.0.1, port: {port}, probe: {{http: {{expectedStatuses: [200]}}}}}}\n")
    };
    let spec = format!(
        "  interval: 100ms\n  failureThreshold: 2\n  successThreshold: 1\n  minHealthy: 1\n  targets:\n{}{}",
        target("a", probed_a.port()),
        target("b", probed_b.port())
    );
    let files = Files::with(&[check("web", &spec)]);
    let operator =
        standalone(&files.file("checks.yaml")).args(["--healthy-body", "UP", "--unhealthy-body", "DOWN"]).serve()?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200 && answer.body == "UP").await?;
    let fronts = [free_port(), free_port(), free_port()];
    std::fs::write(files.file("haproxy.cfg"), config(fronts, &operator.url(), &[("a", a.port()), ("b", b.port())]))?;
    let args = ["-db", "-f", &files.file("haproxy.cfg").display().to_string()].map(str::to_owned);
    let haproxy = Process::start(Path::new("haproxy"), &args, &[], &files.file("haproxy.log"))?;
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    // A dozen requests in a row, all answered as wanted, and by those servers alone.
    let settles = async |front: u16, status: u16, served: [bool; 2]| {
        let look = || async {
            let before = [a.hits(), b.hits()];
            for _ in 0..12 {
                let seen = client.get(format!("http://127.0.0.1:{front}/")).send().await?.status().as_u16();
                ensure!(seen == status, "{seen}");
            }
            let hit = [a.hits() > before[0], b.hits() > before[1]];
            ensure!(hit == served, "served by {hit:?}");
            anyhow::Ok(())
        };
        let what = format!("{status} by {served:?} through {front}");
        wait_while(|| haproxy.check_alive(), &what, SOON, look).await
    };
    for front in fronts {
        settles(front, 200, [true, true]).await?;
    }
    probed_a.set_status(503);
    for front in &fronts[..2] {
        settles(*front, 200, [false, true]).await?;
    }
    settles(fronts[2], 200, [true, true]).await?; // the check as a whole is Degraded, which is 200
    probed_b.set_status(503);
    for front in fronts {
        settles(front, 503, [false, false]).await?;
    }
    probed_a.set_status(200);
    for front in &fronts[..2] {
        settles(*front, 200, [true, false]).await?;
    }
    Ok(())
}

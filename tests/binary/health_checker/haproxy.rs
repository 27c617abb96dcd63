//! HAProxy in front of a server that it knows nothing of, but by `option httpchk`.

use std::path::Path;

use anyhow::ensure;

use crate::checks::{Files, SOON};
use crate::health_checker::{Checker, has};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::targets::{HttpTarget, TcpTarget};
use crate::support::wait::wait_while;

/// The ways to ask that HAProxy has: its default is `OPTIONS / HTTP/1.0`.
const WAYS: [(&str, &str); 4] = [
    ("plain", "option httpchk"),
    ("get", "option httpchk GET /health?deep"),
    ("head", "option httpchk\n  http-check send meth HEAD uri /any ver HTTP/1.1 hdr Host app.example"),
    ("text", "option httpchk GET /\n  http-check expect string OK"),
];

/// One frontend for each way, and all in front of one server, whose health is asked for at another port.
fn config(fronts: &[u16], app: u16, checker: u16) -> String {
    let mut text = "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n"
        .to_owned();
    for ((name, check), front) in WAYS.iter().zip(fronts) {
        text += &format!(
            "listen {name}\n  bind 127.0.0.1:{front}\n  {check}\n  server app 127.0.0.1:{app} check port {checker} inter 100ms fastinter 100ms fall 2 rise 2\n"
        );
    }
    text
}

#[tokio::test]
async fn haproxy_takes_a_server_out_and_in_again() -> anyhow::Result<()> {
    if !has("haproxy", "-v") {
        return Ok(());
    }
    // The server's clients need the database too: one verdict for both ports.
    let (app, database) = (HttpTarget::start().await?, TcpTarget::start().await?);
    let ports = [app.port().to_string(), database.port().to_string()];
    let checker = Checker::start(&["--singleflight", "--port", &ports[0], "--port", &ports[1]]).await?;
    let fronts = WAYS.map(|_| free_port());
    let files = Files::new();
    std::fs::write(files.file("haproxy.cfg"), config(&fronts, app.port(), checker.address.port()))?;
    let args = ["-db", "-f", &files.file("haproxy.cfg").display().to_string()].map(str::to_owned);
    let haproxy = Process::start(Path::new("haproxy"), &args, &[], &files.file("haproxy.log"))?;
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
    // 503 is HAProxy's own word for a backend without a server.
    let settles = async |status: u16| {
        for ((name, _), front) in WAYS.iter().zip(fronts) {
            let look = || async {
                let seen = client.get(format!("http://127.0.0.1:{front}/")).send().await?.status().as_u16();
                ensure!(seen == status, "{seen}; {}", haproxy.log_tail());
                anyhow::Ok(())
            };
            wait_while(|| haproxy.check_alive(), &format!("{status} through {name}"), SOON, look).await?;
        }
        anyhow::Ok(())
    };
    settles(200).await?;
    for _ in 0..2 {
        database.close().await;
        settles(503).await?;
        database.reopen().await?;
        settles(200).await?;
    }
    for asked in
        ["method=OPTIONS path=\"/\" status=200", "method=HEAD path=\"/any\" status=504", "method=GET path=\"/health\""]
    {
        checker.logged(asked, 1).await?;
    }
    Ok(())
}

//! `?fresh=true` of the built binary: free without a cluster, unless a token guards probing on demand.

use anyhow::ensure;

use crate::checks::{Files, SOON, check, standalone};
use crate::support::targets::HttpTarget;

#[tokio::test]
async fn a_load_balancer_may_have_it_probed_now() -> anyhow::Result<()> {
    let web = HttpTarget::start().await?;
    let spec = format!(
        "  interval: 1h\n  targets: [{{name: web, host: 127.0.0.1, port: {}, probe: {{http: {{}}}}}}]",
        web.port()
    );
    let files = Files::with(&[check("web", &spec)]);
    let operator = standalone(&files.file("checks.yaml")).serve()?;
    operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    let hits = web.hits();
    web.set_status(503);
    let fresh = operator.get("/healthz/shop/web?fresh=true").await?;
    ensure!(
        fresh.status == 503 && fresh.body.contains("unexpected status code; got '503', want '200-399'"),
        "{fresh:?}"
    );
    ensure!(web.hits() == hits + 1, "asked once");
    ensure!(operator.get("/healthz/shop/web").await?.status == 200, "the verdict is what was counted");
    web.set_status(200);
    ensure!(operator.get("/?fresh=true&format=text").await?.status == 200);
    ensure!(operator.process().output().contains("health asked for fresh"), "{}", operator.process().log_tail());

    std::fs::write(files.file("token"), "letmein")?;
    let guarded = standalone(&files.file("checks.yaml")).arg("--api-token-file").arg(files.file("token")).serve()?;
    guarded.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    ensure!(guarded.get("/healthz?fresh=true").await?.status == 401);
    let http = reqwest::Client::builder().no_proxy().build()?;
    let request = http.get(format!("{}/healthz?fresh=true", guarded.url())).bearer_auth("letmein");
    ensure!(request.send().await?.status() == 200);
    Ok(())
}

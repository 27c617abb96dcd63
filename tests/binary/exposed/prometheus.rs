//! A real Prometheus scrapes everything there is to be scraped, and promtool has nothing to say against it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::checks::{Files, SOON, check, healthy, quick_http, standalone};
use crate::health_checker::has;
use crate::support::operator::Operator;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_while;

const DOCUMENT: &str = include_str!("../../../docs/exposing.md");

/// What `docs/exposing.md` tells to configure, and how often. The relabelling is what blackbox_exporter's own README has.
fn config(admin: &str) -> anyhow::Result<String> {
    let told = DOCUMENT.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    let told = told.context("docs/exposing.md has no configuration")?;
    ensure!(told.contains("__param_target") && told.matches("localhost:8081").count() == 3, "{told}");
    let admin = admin.trim_start_matches("http://");
    Ok("global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n".to_owned() + &told.replace("localhost:8081", admin))
}

struct Prometheus {
    process: Process,
    url: String,
    http: reqwest::Client,
}

impl Prometheus {
    fn start(files: &Files, admin: &str) -> anyhow::Result<Self> {
        std::fs::write(files.file("prometheus.yml"), config(admin)?)?;
        let listen = format!("127.0.0.1:{}", free_port());
        let file = |name: &str| files.file(name).display().to_string();
        let args = [
            format!("--config.file={}", file("prometheus.yml")),
            format!("--storage.tsdb.path={}", file("data")),
            format!("--web.listen-address={listen}"),
        ];
        let process = Process::start(Path::new("prometheus"), &args, &[], &files.file("prometheus.log"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(Self { process, url: format!("http://{listen}/api/v1/query"), http })
    }

    /// The values of what `query` finds.
    async fn query(&self, query: &str) -> anyhow::Result<Vec<f64>> {
        let mut url = reqwest::Url::parse(&self.url)?;
        url.query_pairs_mut().append_pair("query", query);
        let answer: Value = serde_json::from_str(&self.http.get(url).send().await?.text().await?)?;
        let found = answer["data"]["result"].as_array().with_context(|| answer.to_string())?;
        let value = |one: &Value| one["value"][1].as_str()?.parse().ok();
        found.iter().map(|one| value(one).with_context(|| one.to_string())).collect()
    }

    async fn finds(&self, query: &str, good: impl Fn(&[f64]) -> bool) -> anyhow::Result<()> {
        let look = || async {
            let found = self.query(query).await?;
            ensure!(good(&found), "{found:?}");
            anyhow::Ok(())
        };
        wait_while(|| self.process.check_alive(), query, SOON, look).await
    }
}

#[tokio::test]
async fn prometheus_reads_all_of_it_with_the_relabelling_of_blackbox() -> anyhow::Result<()> {
    if !has("prometheus", "--version") {
        return Ok(());
    }
    let web = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", web.port())]);
    let operator = healthy(&files.file("checks.yaml")).await?;
    let prometheus = Prometheus::start(&files, &operator.admin_url())?;
    let is = |wanted: f64| move |found: &[f64]| found == [wanted];
    for instance in ["shop/web", "shop/web/web"] {
        prometheus.finds(&format!("probe_success{{job='blackbox',instance='{instance}'}}"), is(1.0)).await?;
        let status = format!("probe_http_status_code{{job='blackbox',instance='{instance}'}}");
        prometheus.finds(&status, is(200.0)).await?;
        let took = format!("probe_duration_seconds{{instance='{instance}'}}");
        prometheus.finds(&took, |found| found.len() == 1 && found[0] > 0.0).await?;
    }
    prometheus.finds("up{job='blackbox',instance='shop/nothing'}", is(0.0)).await?;
    prometheus.finds("min(up{job!='blackbox'})", is(1.0)).await?;
    web.set_status(503);
    prometheus.finds("probe_success{instance='shop/web'}", is(0.0)).await?;
    prometheus.finds("probe_http_status_code{instance='shop/web'}", is(503.0)).await?;
    prometheus.finds("probe_success{job='probes',namespace='shop',name='web',target='web'}", is(0.0)).await?;
    // What an alert would ask of the operator's own metrics.
    prometheus.finds("healthcheck_health{namespace='shop',name='web',health='Unhealthy'}", is(1.0)).await?;
    let failed = "sum(healthcheck_operator_probes_total{outcome='failure',reason='UnexpectedStatus'})";
    prometheus.finds(failed, |found| found.len() == 1 && found[0] > 0.0).await?;
    web.set_status(200);
    prometheus.finds("probe_success{instance='shop/web'}", is(1.0)).await?;
    prometheus.finds("changes(probe_success{job='blackbox',instance='shop/web'}[5m])", is(2.0)).await
}

/// What `promtool check metrics` prints of `body`, and whether it is content.
fn checked(body: &str) -> anyhow::Result<(bool, String)> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool.stdin.take().context("a pipe")?.write_all(body.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
}

async fn scrape(operator: &Operator, path: &str) -> anyhow::Result<String> {
    let answer = operator.admin_get(path).await?;
    let kind = answer.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    ensure!(answer.status == 200 && kind == "text/plain; version=0.0.4; charset=utf-8", "{path}: {answer:?}");
    Ok(answer.body)
}

#[tokio::test]
async fn promtool_has_nothing_to_say() -> anyhow::Result<()> {
    if !has("promtool", "--version") {
        return Ok(());
    }
    let web = HttpTarget::start().await?;
    web.set_status(500);
    let closed = free_port();
    let named = check(
        "named",
        &format!(
            "  interval: 100ms\n  failureThreshold: 1\n  targets:\n  - {{name: a, host: localhost, port: {closed}}}\n  - {{name: s, probe: {{script: {{command: ['true']}}}}}}"
        ),
    );
    let files = Files::with(&[quick_http("web", web.port()), named]);
    let operator = standalone(files.path()).serve()?;
    operator.wait_get("/healthz?verbose", SOON, |answer| !answer.body.contains("[?]") && answer.status == 503).await?;
    for (path, series) in [
        ("/metrics", "healthcheck_operator_probes_total{"),
        ("/metrics/probes", "probe_success{namespace=\"shop\",name=\"web\",target=\"web\","),
        ("/probe?target=shop/web", "probe_http_status_code 500"),
        ("/probe?target=shop/named/a", "probe_dns_lookup_time_seconds "),
    ] {
        let body = scrape(&operator, path).await?;
        ensure!(body.contains(series), "{path} has no {series}: {body}");
        let (good, told) = checked(&body)?;
        ensure!(good && told.is_empty(), "{path}: {told}");
    }
    // It does see what is wrong.
    ensure!(!checked("# TYPE a counter\na 1\n")?.0);
    Ok(())
}

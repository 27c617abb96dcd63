//! nginx as Debian has it: passing health requests on, asking before it serves, and with an upstream that
//! `examples/nginx/healthcheck-upstreams` keeps, since `health_check` is for those who pay.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::checks::{Files, SOON, check, standalone};
use crate::health_checker::has;
use crate::support::operator::Operator;
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_while;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/nginx/healthcheck-upstreams");

struct Proxy {
    process: Process,
    port: u16,
    http: reqwest::Client,
}

impl Proxy {
    /// With `http` inside its `http` block; `PORT` is where it listens.
    fn start(files: &Files, http: &str) -> anyhow::Result<Self> {
        let port = free_port();
        let folder = files.path().display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .collect();
        let config = format!(
            "{user}\ndaemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{}\n}}\n",
            http.replace("PORT", &port.to_string())
        );
        std::fs::write(files.file("nginx.conf"), config)?;
        let process = Process::start(Path::new("nginx"), &Self::arguments(files), &[], &files.file("nginx.log"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        Ok(Self { process, port, http })
    }

    fn arguments(files: &Files) -> [String; 4] {
        let (folder, config) = (files.path().display().to_string(), files.file("nginx.conf").display().to_string());
        ["-p".to_owned(), folder, "-c".to_owned(), config]
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let response = self.http.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    async fn waits(&self, path: &str, status: u16, text: &str) -> anyhow::Result<()> {
        let look = || async {
            let (seen, body) = self.get(path).await?;
            ensure!(seen == status && body.contains(text), "{seen}: {body}");
            anyhow::Ok(())
        };
        wait_while(|| self.process.check_alive(), &format!("{status} at {path}"), SOON, look).await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A master that is killed leaves its workers behind.
        let _ = self.process.stop();
    }
}

/// A check of targets that are called `a`, `b`, ….
async fn operator(files: &Files, probed: &[&HttpTarget], flags: &[&str]) -> anyhow::Result<Operator> {
    let targets: String = probed
        .iter()
        .zip('a'..)
        .map(|(target, name)| {
            format!(
                "  - {{name: {name}, host: 127.0.0.1, port: {}, probe: {{http: {{expectedStatuses: [200]}}}}}}\n",
                target.port()
            )
        })
        .collect();
    let spec = format!(
        "  interval: 100ms\n  failureThreshold: 2\n  successThreshold: 1\n  minHealthy: 1\n  targets:\n{targets}"
    );
    files.write("checks.yaml", &[check("web", &spec)]);
    let operator = standalone(&files.file("checks.yaml")).args(flags).serve()?;
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 200).await?;
    Ok(operator)
}

#[tokio::test]
async fn nginx_passes_health_on_and_asks_before_it_serves() -> anyhow::Result<()> {
    if !has("nginx", "-v") {
        return Ok(());
    }
    let (app, probed, files) = (HttpTarget::start().await?, HttpTarget::start().await?, Files::new());
    // auth_request knows 2xx, 401 and 403; whatever else it is answered is an error of its own.
    let operator = operator(&files, &[&probed], &["--unhealthy-code", "403", "--unknown-code", "403"]).await?;
    let (operator_at, app_at) = (operator.url(), app.port());
    let proxy = Proxy::start(
        &files,
        &format!(
            "upstream operator {{ server {}; keepalive 2; }}\nserver {{\n  listen 127.0.0.1:PORT;\n\
             \x20 location /health/ {{ proxy_pass {operator_at}/healthz/; }}\n\
             \x20 location /kept/ {{ proxy_pass http://operator/healthz/; proxy_http_version 1.1; proxy_set_header Connection ''; }}\n\
             \x20 location /app {{ auth_request /may; error_page 403 =503 @down; proxy_pass http://127.0.0.1:{app_at}; }}\n\
             \x20 location = /may {{ internal; proxy_pass {operator_at}/healthz/shop/web; proxy_pass_request_body off; proxy_set_header Content-Length ''; }}\n\
             \x20 location @down {{ return 503 'shop/web is down\\n'; }}\n}}\n",
            operator_at.trim_start_matches("http://")
        ),
    )?;
    for _ in 0..2 {
        proxy.waits("/health/shop/web", 200, "Healthy").await?;
        proxy.waits("/kept/shop/web/a", 200, "Healthy").await?;
        proxy.waits("/app", 200, "").await?;
        probed.set_status(500);
        proxy.waits("/health/shop/web?verbose", 403, "[-]shop/web failed").await?;
        proxy.waits("/kept/shop/web/a", 403, "got '500'").await?;
        proxy.waits("/app", 503, "shop/web is down").await?;
        let served = app.hits();
        proxy.waits("/app", 503, "shop/web is down").await?;
        ensure!(app.hits() == served, "a request got through");
        probed.set_status(200);
    }
    Ok(())
}

struct Kept {
    upstream: PathBuf,
    _script: Process,
}

impl Kept {
    fn start(files: &Files, url: &str, servers: &[String]) -> anyhow::Result<Self> {
        let upstream = files.file("app.conf");
        let nginx = ["nginx".to_owned()].into_iter().chain(Proxy::arguments(files)).collect::<Vec<_>>().join(" ");
        let env = [
            ("NGINX".to_owned(), nginx.clone()),
            ("NGINX_RELOAD".to_owned(), nginx + " -s reload"),
            ("INTERVAL".to_owned(), "0.2".to_owned()),
        ];
        let args: Vec<_> =
            [upstream.display().to_string(), url.to_owned()].into_iter().chain(servers.iter().cloned()).collect();
        let script = Process::start(Path::new(SCRIPT), &args, &env, &files.file("script.log"))?;
        Ok(Self { upstream, _script: script })
    }

    fn log(&self) -> String {
        self._script.output()
    }
}

#[tokio::test]
async fn a_script_keeps_the_upstreams_of_an_nginx_without_health_checks() -> anyhow::Result<()> {
    if !has("nginx", "-v") || !has("curl", "--version") {
        return Ok(());
    }
    let (a, b) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let (probed_a, probed_b, files) = (HttpTarget::start().await?, HttpTarget::start().await?, Files::new());
    let operator = operator(&files, &[&probed_a, &probed_b], &[]).await?;
    let servers = [format!("a=127.0.0.1:{}", a.port()), format!("b=127.0.0.1:{}", b.port())];
    std::fs::write(files.file("app.conf"), format!("server 127.0.0.1:{};\n", a.port()))?;
    let proxy = Proxy::start(
        &files,
        "upstream app { include app.conf; }\nserver { listen 127.0.0.1:PORT; location / { proxy_pass http://app; } }",
    )?;
    proxy.waits("/", 200, "").await?;
    let kept = Kept::start(&files, &format!("{}/healthz/shop/web", operator.url()), &servers)?;
    // A dozen requests in a row, served by those servers alone.
    let settles = async |served: [bool; 2]| {
        let look = || async {
            let before = [a.hits(), b.hits()];
            for _ in 0..12 {
                let (status, body) = proxy.get("/").await?;
                ensure!(status == 200, "{status}: {body}");
            }
            let hit = [a.hits() > before[0], b.hits() > before[1]];
            ensure!(hit == served, "served by {hit:?}; {}", kept.log());
            anyhow::Ok(())
        };
        wait_while(|| proxy.process.check_alive(), &format!("served by {served:?}"), SOON, look).await
    };
    settles([true, true]).await?;
    probed_a.set_status(503);
    settles([false, true]).await?;
    // All down: who is left stays, rather than nobody.
    probed_b.set_status(503);
    operator.wait_get("/healthz/shop/web", SOON, |answer| answer.status == 503).await?;
    let told = || async {
        ensure!(kept.log().contains("would be down: left as it is"), "{}", kept.log());
        anyhow::Ok(())
    };
    wait_while(|| proxy.process.check_alive(), "the script to see it", SOON, told).await?;
    settles([false, true]).await?;
    probed_a.set_status(200);
    settles([true, false]).await?;
    // An operator that is gone is no news of the servers.
    operator.process().stop()?;
    let told = || async {
        ensure!(kept.log().contains(": 000: left as it is"), "{}", kept.log());
        anyhow::Ok(())
    };
    wait_while(|| proxy.process.check_alive(), "the script to miss it", SOON, told).await?;
    settles([true, false]).await?;
    let upstream = std::fs::read_to_string(&kept.upstream).context("the upstream")?;
    ensure!(upstream == format!("server 127.0.0.1:{};\nserver 127.0.0.1:{} down;\n", a.port(), b.port()), "{upstream}");
    Ok(())
}

//! nginx (Debian: nginx-light) on one core: a cheap server to be probed, and the yardstick of `/healthz`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::{certificates, client::Client};
use crate::support::{ports::free_port, process::Process, run_dir::sub_dir};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    pub port: u16,
    directory: PathBuf,
    speaks_tls: bool,
}

impl Nginx {
    /// Listens on every address. `/` answers 200 with two bytes and `/stub_status` with nginx's own counters.
    pub fn start(core: usize, access_log: bool) -> anyhow::Result<Self> {
        Self::start_with(core, if access_log { "access.log combined" } else { "off" }, None)
    }

    /// The same over TLS, with the certificate that was made ([`certificates::make`]). How each session began is in
    /// `access.log`: `r` for one that went on from an earlier one, and `.` for one from scratch; with `resumes` off all of
    /// them begin from scratch.
    pub fn start_tls(core: usize, resumes: bool) -> anyhow::Result<Self> {
        let resumption = match resumes {
            true => "ssl_session_cache shared:all:10m; ssl_session_tickets on",
            false => "ssl_session_cache off; ssl_session_tickets off",
        };
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3; {resumption};",
            certificates::certificate().display(),
            certificates::key().display()
        );
        Self::start_with(core, "access.log resumed", Some(&tls))
    }

    fn start_with(core: usize, access_log: &str, tls: Option<&str>) -> anyhow::Result<Self> {
        let port = free_port();
        let directory = sub_dir(&format!("nginx-{port}"));
        let config = directory.join("nginx.conf");
        let (ssl, tls) = tls.map_or(("", ""), |tls| ("ssl", tls));
        std::fs::write(
            &config,
            format!(
                "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;\n\
                 events {{ worker_connections 16384; multi_accept on; }}\n\
                 http {{ log_format resumed $ssl_session_reused; access_log {access_log}; keepalive_requests 1000000000;\n\
                 client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;\n\
                 scgi_temp_path tmp;\n\
                 server {{ listen 0.0.0.0:{port} {ssl} backlog=16384; {tls}\n\
                 location / {{ return 200 \"ok\"; }} location /stub_status {{ stub_status; }} }} }}\n"
            ),
        )?;
        let program = Path::new("/usr/sbin/nginx");
        anyhow::ensure!(program.exists(), "no {}: install nginx-light", program.display());
        let args = ["--cpu-list", &core.to_string(), &program.display().to_string(), "-p"].map(str::to_owned);
        let mut args = args.to_vec();
        args.extend([directory.display().to_string(), "-c".to_owned(), config.display().to_string()]);
        let process = Process::start(Path::new("/usr/bin/taskset"), &args, &[], &directory.join("nginx.log"))?;
        let nginx = Self { process, port, directory, speaks_tls: !tls.is_empty() };
        nginx.wait()?;
        Ok(nginx)
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its access log so far.
    pub fn access_log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.directory.join("access.log"))?)
    }

    /// Of its first `so_far` bytes on: how many sessions went on, in percent.
    pub fn resumed_since(&self, so_far: usize) -> anyhow::Result<f64> {
        let log = self.access_log()?.split_off(so_far);
        let all = log.lines().count();
        anyhow::ensure!(all > 0, "nobody asked");
        Ok(100.0 * log.lines().filter(|line| *line == "r").count() as f64 / all as f64)
    }

    fn wait(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            self.process.check_alive()?;
            // A client without TLS is told by nginx that it should have it, which is an answer too.
            let answer = Client::connect(self.address()).and_then(|mut client| client.get("/"));
            if answer.is_ok_and(|(status, _)| status == if self.speaks_tls { 400 } else { 200 }) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nginx does not answer: {}", self.process.log_tail())
    }
}

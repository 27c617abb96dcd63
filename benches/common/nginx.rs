//! nginx (Debian: nginx-light) on one core: a cheap server to be probed, and the yardstick of `/healthz`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::client::Client;
use crate::support::{ports::free_port, process::Process, run_dir::sub_dir};

/// A running nginx. Dropping it kills it.
pub struct Nginx {
    process: Process,
    pub port: u16,
}

impl Nginx {
    /// Listens on every address. `/` answers 200 with two bytes and `/stub_status` with nginx's own counters.
    pub fn start(core: usize, access_log: bool) -> anyhow::Result<Self> {
        let port = free_port();
        let directory = sub_dir(&format!("nginx-{port}"));
        let config = directory.join("nginx.conf");
        let access_log = if access_log { "access.log combined" } else { "off" };
        std::fs::write(
            &config,
            format!(
                "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log error.log crit;\n\
                 events {{ worker_connections 16384; multi_accept on; }}\n\
                 http {{ access_log {access_log}; keepalive_requests 1000000000;\n\
                 client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp;\n\
                 scgi_temp_path tmp;\n\
                 server {{ listen 0.0.0.0:{port} backlog=16384;\n\
                 location / {{ return 200 \"ok\"; }} location /stub_status {{ stub_status; }} }} }}\n"
            ),
        )?;
        let program = Path::new("/usr/sbin/nginx");
        anyhow::ensure!(program.exists(), "no {}: install nginx-light", program.display());
        let args = ["--cpu-list", &core.to_string(), &program.display().to_string(), "-p"].map(str::to_owned);
        let mut args = args.to_vec();
        args.extend([directory.display().to_string(), "-c".to_owned(), config.display().to_string()]);
        let process = Process::start(Path::new("/usr/bin/taskset"), &args, &[], &directory.join("nginx.log"))?;
        let nginx = Self { process, port };
        nginx.wait()?;
        Ok(nginx)
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    fn wait(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            self.process.check_alive()?;
            if Client::connect(self.address()).and_then(|mut client| client.get("/")).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nginx does not answer: {}", self.process.log_tail())
    }
}

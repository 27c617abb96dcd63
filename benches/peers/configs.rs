//! How each of them is told the work.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};

use super::task::{Task, Work};
use crate::{
    common::{MEASURED, certificates, operator::Operator},
    support::{ports::free_port, process::Process, programs, run_dir::sub_dir},
};

/// Starts a program on the measured core.
pub fn on_core(name: &str, program: &Path, args: &[String]) -> anyhow::Result<Process> {
    ensure!(program.exists(), "not installed ({})", program.display());
    let mut all = vec!["--cpu-list".to_owned(), MEASURED.to_string(), program.display().to_string()];
    all.extend_from_slice(args);
    let log = sub_dir("peers").join(format!("{name}.log"));
    Process::start(Path::new("/usr/bin/taskset"), &all, &[], &log)
}

pub fn ours(task: &Task, flags: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Operator> {
    let trust = certificates::authority().display().to_string();
    let trusts = (task.work == Work::Https).then_some(("SSL_CERT_FILE", &*trust));
    let env: Vec<(&str, &str)> = env.iter().copied().chain(trusts).collect();
    let operator = Operator::planned(&task.plan(), flags, &env)?;
    operator.wait_scheduled(task.endpoints)?;
    Ok(operator)
}

/// Servers of one backend. HAProxy compares the name of each with all that its backend has: 100,000 in one take it minutes.
const PER_BACKEND: usize = 5_000;

/// It does not run without a frontend, which nobody asks.
pub fn haproxy(task: &Task) -> anyhow::Result<Process> {
    let option = match task.work {
        Work::Tcp => "",
        Work::TcpFull => "  option tcp-check\n  tcp-check connect linger\n",
        Work::Http | Work::Https => "  option httpchk GET /\n  http-check expect status 200\n",
        Work::HttpKept => bail!("it keeps no connection from check to check"),
    };
    let tls = match task.work {
        Work::Https => format!(
            " check-ssl check-sni localhost verify required verifyhost localhost ca-file {}",
            certificates::authority().display()
        ),
        _ => String::new(),
    };
    let timeout = task.timeout().text();
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect {timeout}\n  timeout client 1s\n  \
         timeout server 1s\n  timeout check {timeout}\nfrontend idle\n  bind 127.0.0.1:{}\n  \
         default_backend all0\n",
        free_port()
    );
    for number in 0..task.endpoints {
        if number % PER_BACKEND == 0 {
            let (backend, every) = (number / PER_BACKEND, task.every.text());
            writeln!(config, "backend all{backend}\n{option}  default-server inter {every}{tls}")
                .expect("a String takes all");
        }
        writeln!(config, "  server s{number} {}:{} check", Task::address(number), task.port)
            .expect("a String takes all");
    }
    let file = sub_dir("peers").join("haproxy.cfg");
    std::fs::write(&file, config)?;
    on_core("haproxy", Path::new("/usr/sbin/haproxy"), &["-db".to_owned(), "-f".to_owned(), file.display().to_string()])
}

pub fn envoy(task: &Task) -> anyhow::Result<(Process, SocketAddr)> {
    let program: PathBuf = programs::script("envoy.sh")?.join("envoy");
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let asks = match task.work {
        // It has no other TCP check than a full one.
        Work::Tcp | Work::TcpFull => r#""tcp_health_check": {}"#.to_owned(),
        Work::Http | Work::Https => r#""reuse_connection": false, "http_health_check": {"path": "/"}"#.to_owned(),
        Work::HttpKept => r#""reuse_connection": true, "http_health_check": {"path": "/"}"#.to_owned(),
    };
    let port = task.port;
    let endpoint = |number| {
        let to = Task::address(number);
        format!(r#"{{"endpoint": {{"address": {{"socket_address": {{"address": "{to}", "port_value": {port}}}}}}}}}"#)
    };
    let all: Vec<String> = (0..task.endpoints).map(endpoint).collect();
    let (timeout, every) = (task.timeout().seconds(), task.every.seconds());
    let tls = match task.work {
        Work::Https => format!(
            r#""transport_socket": {{"name": "envoy.transport_sockets.tls", "typed_config": {{
"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "localhost",
"common_tls_context": {{"tls_params": {{"tls_maximum_protocol_version": "TLSv1_3"}}, "validation_context": {{"trusted_ca": {{"filename": "{}"}},
"match_typed_subject_alt_names": [{{"san_type": "DNS", "matcher": {{"exact": "localhost"}}}}]}}}}}}}},"#,
            certificates::authority().display()
        ),
        _ => String::new(),
    };
    let config = format!(
        r#"{{"admin": {{"address": {{"socket_address": {{"address": "127.0.0.1", "port_value": {}}}}}}},
"static_resources": {{"clusters": [{{"name": "all", "type": "STATIC", {tls} "connect_timeout": "{timeout}",
"health_checks": [{{"timeout": "{timeout}", "interval": "{every}", "no_traffic_interval": "{every}", "no_traffic_healthy_interval": "{every}",
"initial_jitter": "{every}", "unhealthy_threshold": 3, "healthy_threshold": 1, {asks}}}],
"load_assignment": {{"cluster_name": "all", "endpoints": [{{"lb_endpoints": [{}]}}]}}}}]}}}}"#,
        admin.port(),
        all.join(",\n")
    );
    let file = sub_dir("peers").join("envoy.json");
    std::fs::write(&file, config)?;
    let file = file.display().to_string();
    let args = ["-c", &file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"];
    Ok((on_core("envoy", &program, &args.map(str::to_owned))?, admin))
}

pub fn blackbox() -> anyhow::Result<(Process, SocketAddr)> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let file = sub_dir("peers").join("blackbox.yaml");
    std::fs::write(
        &file,
        format!(
            "modules:\n  tcp: {{prober: tcp, timeout: 900ms}}\n  http: {{prober: http, timeout: 900ms, http: {{preferred_ip_protocol: ip4}}}}\n  \
             https: {{prober: http, timeout: 900ms, http: {{preferred_ip_protocol: ip4, tls_config: {{ca_file: {}, server_name: localhost}}}}}}\n",
            certificates::authority().display()
        ),
    )?;
    let args = [
        format!("--config.file={}", file.display()),
        format!("--web.listen-address={at}"),
        "--log.level=error".to_owned(),
    ];
    Ok((on_core("blackbox", Path::new("/usr/bin/prometheus-blackbox-exporter"), &args)?, at))
}

//! Who is compared, and how each of them is told the same work.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Pid;

use crate::{
    common::{
        MEASURED,
        client::Client,
        manifests::{Plan, Probe},
        operator::Operator,
    },
    pace::Pacer,
    support::{ports::free_port, process::Process, programs, run_dir::sub_dir},
};

const START: Duration = Duration::from_secs(60);
/// The first address; the others follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);

/// What is asked of every endpoint once a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Tcp,
    Http,
    HttpKept,
}

impl Work {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Http, Self::HttpKept];

    pub const fn name(self) -> &'static str {
        self.probe().name()
    }

    const fn probe(self) -> Probe {
        match self {
            Self::Tcp => Probe::Tcp,
            Self::Http => Probe::Http,
            Self::HttpKept => Probe::HttpKept,
        }
    }
}

/// See the module's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    Ours,
    /// Our own ordinary lane alone.
    Ordinary,
    /// An epoll loop that does nothing but this.
    Raw,
    HaProxy,
    Envoy,
    Blackbox,
}

impl Contender {
    pub const ALL: [Self; 6] = [Self::Ours, Self::Ordinary, Self::Raw, Self::HaProxy, Self::Envoy, Self::Blackbox];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Ordinary => "ours, ordinary lane",
            Self::Raw => "raw epoll loop",
            Self::HaProxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Blackbox => "blackbox_exporter",
        }
    }

    /// Whether it has no such work at all: HAProxy and blackbox_exporter keep no connection from check to check.
    pub const fn is_unfit(self, work: Work) -> bool {
        matches!((self, work), (Self::Raw | Self::HaProxy | Self::Blackbox, Work::HttpKept))
    }

    /// blackbox_exporter knows its targets only while it is asked, and the raw loop has no more than their addresses.
    pub const fn keeps_endpoints(self) -> bool {
        !matches!(self, Self::Blackbox | Self::Raw)
    }

    /// Starts it on the measured core. It asks as soon as it can.
    pub fn start(self, work: Work, endpoints: usize, port: u16) -> anyhow::Result<Running> {
        let reuses = work == Work::HttpKept;
        let running = |body| Running { body, reuses };
        match self {
            Self::Ours => ours(work, endpoints, port, &[]).map(Body::Operator).map(running),
            Self::Ordinary => ours(work, endpoints, port, &ORDINARY).map(Body::Operator).map(running),
            Self::Raw => {
                let program = std::env::current_exe()?;
                let args = crate::raw::args(work == Work::Http, endpoints, port);
                on_core("raw", &program, &args).map(Body::Process).map(running)
            }
            Self::HaProxy => haproxy(work, endpoints, port).map(Body::Process).map(running),
            Self::Envoy => envoy(work, endpoints, port).map(|(process, admin)| running(Body::Envoy(process, admin))),
            Self::Blackbox => {
                let (process, at) = blackbox()?;
                let pacer = Pacer::start(at, work == Work::Http, endpoints, FIRST, port)?;
                Ok(running(Body::Blackbox { _pacer: pacer, process }))
            }
        }
    }
}

/// What turns the fast lane off.
const ORDINARY: [(&str, &str); 1] = [("HEALTHCHECK_OPERATOR_FAST_LANE", "off")];

enum Body {
    Operator(Operator),
    Process(Process),
    Envoy(Process, std::net::SocketAddr),
    /// The callers end first.
    Blackbox {
        _pacer: Pacer,
        process: Process,
    },
}

/// A contender at work. Dropping it kills it.
pub struct Running {
    body: Body,
    reuses: bool,
}

impl Running {
    fn process(&self) -> &Process {
        match &self.body {
            Body::Operator(operator) => operator.process(),
            Body::Process(process) | Body::Envoy(process, _) | Body::Blackbox { process, .. } => process,
        }
    }

    pub fn pid(&self) -> Pid {
        self.process().pid()
    }

    pub const fn reuses(&self) -> bool {
        self.reuses
    }

    pub fn check_alive(&self) -> anyhow::Result<()> {
        self.process().check_alive()
    }

    /// How many checks were made so far. Of fresh connections by the kernel's count of those that were opened in this
    /// network, in which there is nobody else but for blackbox_exporter's own caller, whose connections are kept; of kept
    /// ones by the prober's own count.
    pub fn asked(&self) -> anyhow::Result<u64> {
        match &self.body {
            Body::Operator(operator) if self.reuses => Ok(operator.metrics()?.probes() as u64),
            Body::Envoy(_, admin) if self.reuses => {
                let text = Client::connect(*admin)?.ask("/stats?filter=health_check.attempt")?;
                let line = text.lines().find_map(|line| line.split_once("health_check.attempt: "));
                line.and_then(|(_, count)| count.trim().parse().ok()).context("Envoy counts no attempts")
            }
            _ => opened(),
        }
    }
}

/// Connections that were begun in this network (`ActiveOpens`).
fn opened() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no Tcp")?;
    let at = names.split(' ').position(|name| name == "ActiveOpens").context("no ActiveOpens")?;
    Ok(values.split(' ').nth(at).context("no ActiveOpens")?.parse()?)
}

fn on_core(name: &str, program: &Path, args: &[String]) -> anyhow::Result<Process> {
    ensure!(program.exists(), "not installed ({})", program.display());
    let mut all = vec!["--cpu-list".to_owned(), MEASURED.to_string(), program.display().to_string()];
    all.extend_from_slice(args);
    let log = sub_dir("peers").join(format!("{name}.log"));
    Process::start(Path::new("/usr/bin/taskset"), &all, &[], &log)
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FIRST) + u32::try_from(number).expect("an IPv4 address"))
}

fn ours(work: Work, endpoints: usize, port: u16, env: &[(&str, &str)]) -> anyhow::Result<Operator> {
    let plan = Plan::loopback(endpoints, work.probe(), port);
    let file = sub_dir("manifests").join(format!("{work:?}-{endpoints}.yaml"));
    plan.write(&file)?;
    let operator =
        Operator::start_with(&MEASURED.to_string(), &["standalone", "-f", &file.display().to_string()], env)?;
    operator.wait_scheduled(endpoints, START)?;
    Ok(operator)
}

/// It does not run without a frontend, which nobody asks.
fn haproxy(work: Work, endpoints: usize, port: u16) -> anyhow::Result<Process> {
    let option = if work == Work::Tcp { "" } else { "  option httpchk GET /\n  http-check expect status 200\n" };
    let mut config = format!(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode http\n  timeout connect 900ms\n  timeout client 1s\n  \
         timeout server 1s\n  timeout check 900ms\nfrontend idle\n  bind 127.0.0.1:{}\n  \
         default_backend all\nbackend all\n{option}  default-server inter 1s\n",
        free_port()
    );
    for number in 0..endpoints {
        writeln!(config, "  server s{number} {}:{port} check", address(number)).expect("a String takes all");
    }
    let file = sub_dir("peers").join("haproxy.cfg");
    std::fs::write(&file, config)?;
    on_core("haproxy", Path::new("/usr/sbin/haproxy"), &["-db".to_owned(), "-f".to_owned(), file.display().to_string()])
}

fn envoy(work: Work, endpoints: usize, port: u16) -> anyhow::Result<(Process, std::net::SocketAddr)> {
    let program: PathBuf = programs::script("envoy.sh")?.join("envoy");
    let admin = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let asks = match work {
        Work::Tcp => r#""tcp_health_check": {}"#.to_owned(),
        Work::Http => r#""reuse_connection": false, "http_health_check": {"path": "/"}"#.to_owned(),
        Work::HttpKept => r#""reuse_connection": true, "http_health_check": {"path": "/"}"#.to_owned(),
    };
    let endpoint = |number| {
        let to = address(number);
        format!(r#"{{"endpoint": {{"address": {{"socket_address": {{"address": "{to}", "port_value": {port}}}}}}}}}"#)
    };
    let all: Vec<String> = (0..endpoints).map(endpoint).collect();
    let config = format!(
        r#"{{"admin": {{"address": {{"socket_address": {{"address": "127.0.0.1", "port_value": {}}}}}}},
"static_resources": {{"clusters": [{{"name": "all", "type": "STATIC", "connect_timeout": "0.9s",
"health_checks": [{{"timeout": "0.9s", "interval": "1s", "no_traffic_interval": "1s", "no_traffic_healthy_interval": "1s",
"initial_jitter": "1s", "unhealthy_threshold": 3, "healthy_threshold": 1, {asks}}}],
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

fn blackbox() -> anyhow::Result<(Process, std::net::SocketAddr)> {
    let at = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let file = sub_dir("peers").join("blackbox.yaml");
    std::fs::write(
        &file,
        "modules:\n  tcp: {prober: tcp, timeout: 900ms}\n  http: {prober: http, timeout: 900ms, http: {preferred_ip_protocol: ip4}}\n",
    )?;
    let args = [
        format!("--config.file={}", file.display()),
        format!("--web.listen-address={at}"),
        "--log.level=error".to_owned(),
    ];
    Ok((on_core("blackbox", Path::new("/usr/bin/prometheus-blackbox-exporter"), &args)?, at))
}

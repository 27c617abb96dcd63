//! What is asked for, as attempts to make.

use std::{collections::HashMap, env, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use rustix::fs::{Access, access};

use super::{Asked, Words};
use crate::check::{Attempt, Dial, Handshake, Host, ObjectKey, Probe, ProbeKind, ScriptProbe, TcpProbe, Text};

/// A port is given as long as the original gives it, and never longer than a script.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

/// One port or one script.
#[derive(Debug)]
pub struct OneCheck {
    name: Text,
    dial: Option<Dial>,
    probe: Arc<Probe>,
    program: Option<String>,
}

/// Ports first, then scripts, in the order they were given.
pub fn all(asked: &Asked) -> Vec<OneCheck> {
    let mut names = Names::default();
    let mut checks = vec![];
    for port in &asked.ports {
        checks.push(OneCheck {
            name: names.take(format!("port {port}")),
            // Where the original dials, 0.0.0.0, is this on Linux, and may be nothing elsewhere.
            dial: Some(Dial { host: Host::Address(Ipv4Addr::LOCALHOST.into()), port: Some(*port) }),
            probe: Arc::new(Probe {
                timeout: LONGEST_CONNECT.min(asked.script_timeout),
                kind: ProbeKind::Tcp(TcpProbe { handshake: Handshake::Full, ..TcpProbe::default() }),
            }),
            program: None,
        });
    }
    let environment = if asked.scripts.is_empty() { vec![] } else { environment() };
    for script in &asked.scripts {
        checks.push(OneCheck {
            name: names.take(format!("script {}", file_name(script.program()))),
            dial: None,
            probe: Arc::new(Probe { timeout: asked.script_timeout, kind: script_probe(script, &environment) }),
            program: Some(script.program().to_owned()),
        });
    }
    checks
}

impl OneCheck {
    /// `port 5432`, `script check.sh`; unlike that of any other check.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From the request to the end of this check.
    pub fn timeout(&self) -> Duration {
        self.probe.timeout
    }

    /// One attempt, to be made now.
    pub fn attempt(&self) -> Attempt {
        Attempt {
            check: ObjectKey::new("health-checker", "health-checker"),
            target: self.name.clone(),
            dial: self.dial.clone(),
            probe: Arc::clone(&self.probe),
            known: vec![],
            kept: None,
        }
    }

    /// The script's program, where there is none that could be run.
    pub fn missing(&self) -> Option<&str> {
        self.program.as_deref().filter(|program| !can_be_run(program))
    }
}

/// With this program's whole environment, as the original's scripts have it: who writes them is who starts us.
fn script_probe(script: &Words, environment: &[(Text, Text)]) -> ProbeKind {
    let command = script.all().iter().map(|word| word.as_str().into()).collect();
    ProbeKind::Script(ScriptProbe { command, source: None, env: environment.to_vec() })
}

fn environment() -> Vec<(Text, Text)> {
    let mut environment = vec![];
    for (name, value) in env::vars_os() {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => environment.push((name.into(), value.into())),
            _ => tracing::warn!("scripts do not get {}: it is not UTF-8", name.to_string_lossy()),
        }
    }
    environment
}

fn file_name(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or(program)
}

/// Whether the kernel would find a program there, or on `PATH` where it is a mere name.
fn can_be_run(program: &str) -> bool {
    let runs = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return runs(Path::new(program));
    }
    // Without the variable it is the prober that has one.
    let Some(path) = env::var_os("PATH") else { return true };
    env::split_paths(&path).any(|directory| runs(&directory.join(program)))
}

/// Names that are given once each.
#[derive(Default)]
struct Names {
    taken: HashMap<String, usize>,
}

impl Names {
    fn take(&mut self, name: String) -> Text {
        let times = self.taken.entry(name.clone()).and_modify(|times| *times += 1).or_insert(1);
        if *times == 1 { name.into() } else { format!("{name} #{times}").into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ports: &[u16], scripts: &[&str], seconds: u64) -> Asked {
        Asked {
            ports: ports.to_vec(),
            scripts: scripts.iter().map(|script| script.parse().expect("a command")).collect(),
            script_timeout: Duration::from_secs(seconds),
            single_flight: false,
        }
    }

    #[test]
    fn every_check_has_a_name_of_its_own() {
        let checks = all(&asked(&[80, 81, 80], &["/a/check.sh x", "/b/check.sh", "true"], 5));
        let names: Vec<_> = checks.iter().map(OneCheck::name).collect();
        assert_eq!(names, ["port 80", "port 81", "port 80 #2", "script check.sh", "script check.sh #2", "script true"]);
    }

    #[test]
    fn nothing_takes_longer_than_a_script_may() {
        for (seconds, port, script) in [(5, 5, 5), (2, 2, 2), (60, 5, 60)] {
            let checks = all(&asked(&[80], &["true"], seconds));
            let timeouts: Vec<_> = checks.iter().map(|check| check.timeout().as_secs()).collect();
            assert_eq!(timeouts, [port, script]);
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_found_out() {
        let scripts = ["true -x", "/bin/sh", "nosuchprogram", "/nonexistent/check.sh", "/etc/passwd", "/etc"];
        let checks = all(&asked(&[1], &scripts, 5));
        let missing: Vec<_> = checks.iter().filter_map(OneCheck::missing).collect();
        assert_eq!(missing, ["nosuchprogram", "/nonexistent/check.sh", "/etc/passwd", "/etc"]);
    }
}

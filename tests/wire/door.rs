//! A runner in another pod: the built binary's door on loopback, and certificates of many kinds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use healthcheck_operator::{
    check::{Outcome, ProbeKind, Reason},
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        runner::{PemFiles, Remote},
    },
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{ENOUGH, SHORT, assert_reason, attempt, eventually, run, script};

/// The name that a controller's certificate bears.
const CONTROLLER: &str = "hco-controller.health.svc";

/// An authority, and its certificate as a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let file = folder.join(format!("{name}.crt"));
        fs::write(&file, params.self_signed(&key).expect("signed").pem()).expect("a file");
        Self { issuer: Issuer::new(params, key), file }
    }

    /// Writes a certificate for `name` and its key, and says where; it ends in `year`.
    fn sign(&self, path: &Path, name: &str, purpose: ExtendedKeyUsagePurpose, year: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![purpose];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let (certificate_file, key_file) = (path.with_extension("crt"), path.with_extension("key"));
        // As the kubelet does it: nobody sees half a file.
        for (file, text) in [(&certificate_file, certificate.pem()), (&key_file, key.serialize_pem())] {
            let new = file.with_extension("new");
            fs::write(&new, text).expect("a file");
            fs::rename(new, file).expect("a file");
        }
        (certificate_file, key_file)
    }

    fn client(&self, path: &Path, name: &str) -> (PathBuf, PathBuf) {
        self.sign(path, name, ExtendedKeyUsagePurpose::ClientAuth, 2099)
    }
}

/// A runner with a door, the authority both sides trust, and a controller's certificate.
struct Place {
    runner: Child,
    door: Child,
    port: u16,
    authority: Authority,
    client: (PathBuf, PathBuf),
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new(folder.path(), "ca");
        authority.sign(&folder.path().join("server"), "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, 2099);
        let client = authority.client(&folder.path().join("client"), CONTROLLER);
        let (runner, door) = (start_runner(folder.path()), start_door(folder.path()));
        let mut place = Self { runner, door, port: 0, authority, client, folder };
        eventually("the runner listens", || place.path("runner.sock").exists()).await;
        eventually("the door is open", || place.told_port().is_some()).await;
        place.port = place.told_port().expect("it is told");
        place
    }

    /// The port that the door says it listens on.
    fn told_port(&self) -> Option<u16> {
        self.told("address=127.0.0.1:")
    }

    fn told(&self, before: &str) -> Option<u16> {
        let log = fs::read_to_string(self.path("door.log")).ok()?;
        let (_, rest) = log.split_once(before)?;
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    }

    /// What the door says of its runner.
    async fn readyz(&self) -> (u16, String) {
        let port = self.told("health=127.0.0.1:").expect("it is told");
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    /// Waits until the door says so.
    async fn becomes(&self, status: u16, says: &str) {
        let told = async {
            loop {
                let (code, text) = self.readyz().await;
                if code == status && text.contains(says) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(ENOUGH, told).await.unwrap_or_else(|_| panic!("never: {status} {says}"));
    }

    fn signal_runner(&self, signal: Signal) {
        let pid = i32::try_from(self.runner.id()).ok().and_then(Pid::from_raw).expect("its number");
        kill_process(pid, signal).expect("a signal");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn remote(&self, host: &str, authorities: &Path, client: &(PathBuf, PathBuf)) -> Arc<Remote> {
        let files =
            PemFiles { authorities: authorities.to_owned(), certificate: client.0.clone(), key: client.1.clone() };
        let place = format!("{host}:{}", self.port).parse().expect("a place");
        Arc::new(Remote::new(place, files).expect("good files"))
    }

    /// Whom the door lets in.
    fn welcome(&self) -> Arc<Remote> {
        self.remote("127.0.0.1", &self.authority.file, &self.client)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for child in [&mut self.door, &mut self.runner] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start_runner(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"));
    command.args(["runner", "--allow-service-account-token", "--socket"]).arg(folder.join("runner.sock"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the runner starts")
}

fn start_door(folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"));
    command.args(["runner-door", "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
    command.args(["--client-name", CONTROLLER]);
    for (flag, file) in [
        ("--tls-cert", "server.crt"),
        ("--tls-key", "server.key"),
        ("--client-ca", "ca.crt"),
        ("--socket", "runner.sock"),
    ] {
        command.arg(flag).arg(folder.join(file));
    }
    let log = fs::File::create(folder.join("door.log")).expect("a file");
    command.env("NO_COLOR", "1").stdout(Stdio::null()).stderr(log).spawn().expect("the door starts")
}

fn prober(remote: Arc<Remote>) -> Prober {
    Prober::new(Settings { scripts: ScriptBackend::Remote(remote), ..Settings::standalone() })
}

async fn shell(remote: Arc<Remote>, source: &str, timeout: Duration) -> Outcome {
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", source]));
    run(&prober(remote), attempt(None, kind, timeout)).await.outcome
}

#[tokio::test]
async fn a_script_runs_in_another_pod_as_it_would_here() {
    let place = Place::new().await;
    assert_eq!(shell(place.welcome(), "exit 0", ENOUGH).await, Outcome::Success);
    let outcome = shell(place.welcome(), "echo broken; exit 3", ENOUGH).await;
    assert_eq!((outcome.reason(), outcome.message()), (Some(Reason::ExitCode), "exit code 3: broken"));
    let late = shell(place.welcome(), "echo begun; sleep 600", Duration::from_secs(1)).await;
    assert_reason(&late, Reason::TimeoutScript, "begun");
    // By name too, which its certificate does not bear.
    let named = place.remote("localhost", &place.authority.file, &place.client);
    assert_reason(&shell(named, "exit 0", ENOUGH).await, Reason::RunnerUnreachable, "localhost");
}

#[tokio::test]
async fn who_hangs_up_has_the_script_killed_behind_the_door_too() {
    let place = Place::new().await;
    let file = place.path("pid");
    let source = format!("setsid sh -c 'echo $$ > {0}; exec sleep 600' & sleep 600", file.display());
    let prober = prober(place.welcome());
    {
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", &source]));
        let mut running = std::pin::pin!(prober.attempt(attempt(None, kind, ENOUGH * 60)));
        tokio::select! {
            report = &mut running => panic!("it ended: {report:?}"),
            () = eventually("it runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'))) => {}
        }
    }
    let pid = fs::read_to_string(&file).expect("its number");
    eventually("what it left is dead", || !Path::new(&format!("/proc/{}", pid.trim())).exists()).await;
}

#[tokio::test]
async fn who_shows_no_good_certificate_is_not_let_in_and_runs_nothing() {
    let place = Place::new().await;
    let stranger = Authority::new(place.folder.path(), "stranger");
    let ran = place.path("ran");
    let source = format!("echo x >> {}", ran.display());
    let path = |name: &str| place.path(name);
    let refused = [
        ("of another authority", stranger.client(&path("foreign"), CONTROLLER)),
        ("of another name", place.authority.client(&path("other"), "somebody.else.svc")),
        ("expired", place.authority.sign(&path("expired"), CONTROLLER, ExtendedKeyUsagePurpose::ClientAuth, 2021)),
        ("of a server", place.authority.sign(&path("purpose"), CONTROLLER, ExtendedKeyUsagePurpose::ServerAuth, 2099)),
    ];
    for (what, client) in &refused {
        let remote = place.remote("127.0.0.1", &place.authority.file, client);
        let outcome = shell(remote, &source, ENOUGH).await;
        assert_eq!(outcome.reason(), Some(Reason::RunnerUnreachable), "{what}: {outcome:?}");
    }
    // Nor does anybody ask a door that shows no good one itself.
    let outcome = shell(place.remote("127.0.0.1", &stranger.file, &place.client), &source, ENOUGH).await;
    assert_reason(&outcome, Reason::RunnerUnreachable, "invalid peer certificate");
    assert!(!ran.exists(), "a script of theirs was run");
    // With neither TLS nor a certificate there is no answer either.
    let mut plain = tokio::net::TcpStream::connect(("127.0.0.1", place.port)).await.expect("a connection");
    let request = b"{\"command\":[\"/bin/true\"],\"source\":null,\"env\":[],\"timeoutMillis\":1000}\n";
    tokio::io::AsyncWriteExt::write_all(&mut plain, request).await.expect("sent");
    let mut answer = vec![];
    let _ = tokio::time::timeout(ENOUGH, tokio::io::AsyncReadExt::read_to_end(&mut plain, &mut answer)).await;
    assert!(!String::from_utf8_lossy(&answer).contains("ended"), "{answer:?}");
    assert_eq!(shell(place.welcome(), "exit 0", ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn renewed_certificates_are_taken_up_and_broken_ones_are_not() {
    let mut place = Place::new().await;
    let remote = place.welcome();
    assert_eq!(shell(Arc::clone(&remote), "exit 0", ENOUGH).await, Outcome::Success);
    // The door's expires: the same controller no longer asks it.
    let server = place.path("server");
    place.authority.sign(&server, "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, 2021);
    let until = async |what: &str, good: &dyn Fn(&Outcome) -> bool| {
        for _ in 0..100 {
            let outcome = shell(Arc::clone(&remote), "exit 0", ENOUGH).await;
            if good(&outcome) {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never: {what}");
    };
    let outcome = until("expired", &|outcome| outcome.reason() == Some(Reason::RunnerUnreachable)).await;
    assert!(outcome.message().contains("xpired"), "{outcome:?}");
    // Renewed, it does; and half a file changes nothing.
    place.authority.sign(&server, "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, 2098);
    until("renewed", &|outcome| *outcome == Outcome::Success).await;
    // Both sides move to another authority: first the door, then the controller.
    place.authority = Authority::new(place.folder.path(), "ca");
    place.authority.sign(&server, "127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth, 2099);
    place.authority.client(&place.path("client"), CONTROLLER);
    until("moved", &|outcome| *outcome == Outcome::Success).await;
    fs::write(place.path("client.key"), "nonsense").expect("a file");
    fs::write(place.path("server.crt"), "nonsense").expect("a file");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(shell(remote, "exit 0", ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_door_without_a_runner_and_a_runner_without_a_door_are_ours() {
    let mut place = Place::new().await;
    place.runner.kill().expect("killed");
    place.runner.wait().expect("ended");
    assert_reason(&shell(place.welcome(), "exit 0", ENOUGH).await, Reason::RunnerUnreachable, "");
    fs::remove_file(place.path("runner.sock")).expect("its socket");
    place.runner = start_runner(place.folder.path());
    eventually("the runner listens", || place.path("runner.sock").exists()).await;
    assert_eq!(shell(place.welcome(), "exit 0", ENOUGH).await, Outcome::Success);
    place.door.kill().expect("killed");
    place.door.wait().expect("ended");
    let outcome = shell(place.welcome(), "exit 0", SHORT).await;
    assert_reason(&outcome, Reason::RunnerUnreachable, &format!("the script runner at 127.0.0.1:{}", place.port));
}

/// What the chart's readiness probe asks.
#[tokio::test]
async fn a_door_is_ready_while_its_runner_answers() {
    let mut place = Place::new().await;
    place.becomes(200, "ok").await;
    // It hangs, and its socket still takes connections.
    place.signal_runner(Signal::STOP);
    place.becomes(503, "the runner does not answer: it did not answer in time").await;
    place.signal_runner(Signal::CONT);
    place.becomes(200, "ok").await;
    place.runner.kill().expect("killed");
    place.runner.wait().expect("ended");
    place.becomes(503, "refused").await;
    place.runner = start_runner(place.folder.path());
    place.becomes(200, "ok").await;
    assert_eq!(shell(place.welcome(), "exit 0", ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn what_a_door_lacks_is_told_before_it_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let door = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"));
        command.arg("runner-door").args(["--tls-cert", &file("tls.crt"), "--tls-key", &file("tls.key")]);
        let out = command.args(["--client-ca", &file("ca.crt")]).args(arguments).output().expect("it ends");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, error) = door(&[]);
    assert!(code == Some(2) && error.contains("ca.crt") && error.contains("No such file"), "{error}");
    fs::write(file("ca.crt"), "").expect("a file");
    fs::write(file("tls.crt"), "").expect("a file");
    fs::write(file("tls.key"), "").expect("a file");
    let (code, error) = door(&[]);
    assert!(code == Some(2) && error.contains("ca.crt: no certificate in PEM"), "{error}");
    let (code, error) = door(&["--client-name", "not a name"]);
    assert!(code == Some(2) && error.contains("'not a name' is no DNS name"), "{error}");
}

#[test]
fn the_program_copies_itself_for_other_images() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("healthcheck-operator");
    let install = |path: &Path| {
        let program = env!("CARGO_BIN_EXE_healthcheck-operator");
        Command::new(program).arg("install").arg(path).output().expect("it ends")
    };
    fs::write(&file, "an older one").expect("a file");
    assert!(install(&file).status.success());
    let version = Command::new(&file).arg("version").output().expect("it runs");
    assert!(version.stdout.starts_with(b"healthcheck-operator "), "{version:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing beside it");
    let refused = install(&folder.path().join("missing/program"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot write"), "{refused:?}");
}

//! Scripts by way of the `runner`: the built binary on a Unix socket.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use healthcheck_operator::{
    check::{Attempt, ObjectKey, Outcome, ProbeKind, Reason, ScriptProbe},
    probe::{Lane as _, Prober, ScriptBackend, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::support::{ENOUGH, SHORT, assert_reason, attempt, eventually, run, script};

/// A runner of its own; it ends with the test.
struct Runner {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Runner {
    async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("runner.sock");
        let mut command = command(&socket);
        let child = command.args(arguments).envs(variables.iter().copied()).spawn().expect("the runner starts");
        let runner = Self { child, socket, _folder: folder };
        eventually("the runner listens", || std::os::unix::net::UnixStream::connect(&runner.socket).is_ok()).await;
        runner
    }

    fn prober(&self) -> Prober {
        Prober::new(Settings {
            scripts: ScriptBackend::Runner { socket: self.socket.clone() },
            ..Settings::standalone()
        })
    }

    async fn shell(&self, source: &str, timeout: Duration) -> Outcome {
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", source]));
        run(&self.prober(), attempt(None, kind, timeout)).await.outcome
    }

    /// Scripts that run, what they left, and zombies: all that comes of the runner and is no worker that waits.
    fn scripts(&self) -> Vec<String> {
        let mut found = vec![];
        for child in children(&self.child.id().to_string()) {
            found.extend(children(&child));
            let words = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if !words.contains("script-worker") {
                found.push(child);
            }
        }
        found
    }

    fn terminate(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("its number");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children(process: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn command(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"));
    // Whether the machine of the test is a pod with a token is not what is tested here.
    command.args(["runner", "--allow-service-account-token", "--socket"]).arg(socket);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn a_script_runs_there_as_it_would_here() {
    let runner = Runner::start(&[]).await;
    assert_eq!(runner.shell("exit 0", ENOUGH).await, Outcome::Success);
    let outcome = runner.shell("echo broken; exit 3", ENOUGH).await;
    assert_eq!((outcome.reason(), outcome.message()), (Some(Reason::ExitCode), "exit code 3: broken"));
    assert_reason(&runner.shell("kill -9 $$", ENOUGH).await, Reason::KilledBySignal, "SIGKILL");
    assert_reason(&runner.shell("echo begun; sleep 600", Duration::from_secs(1)).await, Reason::TimeoutScript, "begun");
    let inline = ScriptProbe {
        source: Some(
            r#"test "$HEALTHCHECK_TARGET_PORT$A" = 80b && test "$(ps -o pid= -p $PPID 2>/dev/null || echo x)""#.into(),
        ),
        env: vec![("A".into(), "b".into())],
        ..script(&["/bin/sh"])
    };
    let dial = crate::support::at("127.0.0.1:80".parse().expect("an address"));
    let report = run(&runner.prober(), attempt(Some(dial), ProbeKind::Script(inline), ENOUGH)).await;
    assert_eq!(report.outcome, Outcome::Success);
    let missing = ProbeKind::Script(script(&["/nonexistent"]));
    let report = run(&runner.prober(), attempt(None, missing, ENOUGH)).await;
    assert_reason(&report.outcome, Reason::CannotStart, "'/nonexistent' could not be started");
}

#[tokio::test]
async fn a_client_that_hangs_up_has_its_script_killed() {
    let runner = Runner::start(&[]).await;
    let prober = runner.prober();
    {
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "sleep 600 & wait"]));
        let mut running = std::pin::pin!(prober.attempt(attempt(None, kind, ENOUGH * 60)));
        tokio::select! {
            report = &mut running => panic!("it ended: {report:?}"),
            () = eventually("the script runs", || !runner.scripts().is_empty()) => {}
        }
    }
    eventually("the script is dead and reaped", || runner.scripts().is_empty()).await;
}

#[tokio::test]
async fn what_a_killed_worker_leaves_is_adopted_and_ended() {
    let runner = Runner::start(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let source = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 600' & while [ ! -s {0} ]; do :; done; kill -KILL $PPID; sleep 600",
        file.display()
    );
    assert_reason(&runner.shell(&source, ENOUGH).await, Reason::ScriptLimitReached, "worker");
    assert!(!std::fs::read_to_string(&file).expect("its number").is_empty());
    eventually("all of it is dead and reaped", || runner.scripts().is_empty()).await;
    assert_eq!(runner.shell("exit 0", ENOUGH).await, Outcome::Success);
    eventually("no zombie stays", || runner.scripts().is_empty()).await;
}

#[tokio::test]
async fn a_runner_that_is_killed_leaves_nothing_behind() {
    let mut runner = Runner::start(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pid");
    let source = format!("setsid sh -c 'echo $$ > {0}; exec sleep 600' & sleep 600", file.display());
    let prober = runner.prober();
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", &source]));
    let running = tokio::spawn(async move { run(&prober, attempt(None, kind, ENOUGH * 60)).await });
    eventually("its runaway runs", || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))).await;
    let workers = children(&runner.child.id().to_string());
    assert!(!workers.is_empty());
    runner.child.kill().expect("killed");
    runner.child.wait().expect("ended");
    assert_reason(&running.await.expect("a report").outcome, Reason::RunnerUnreachable, "");
    let pid = std::fs::read_to_string(&file).expect("its number");
    let gone = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    eventually("script and workers are gone", || gone(&pid) && workers.iter().all(|worker| gone(worker))).await;
}

#[tokio::test]
async fn its_limits_and_its_environment_are_the_scripts_own() {
    let flags = ["--script-open-files", "50", "--script-file-size", "1Mi", "--script-memory", "128Mi"];
    let runner = Runner::start_with(&flags, &[("SECRET_OF_THE_RUNNER", "x")]).await;
    assert_eq!(runner.shell("test $(ulimit -n) = 50 && test $(ulimit -d) = 131072", ENOUGH).await, Outcome::Success);
    let outcome = runner.shell("exec head -c 2000000 /dev/zero > $(mktemp)", ENOUGH).await;
    assert_reason(&outcome, Reason::ScriptLimitReached, "more than 1048576 bytes");
    assert_eq!(runner.shell("env | grep SECRET_OF && exit 1; exit 0", ENOUGH).await, Outcome::Success);
    let peek = "tr '\\0' '\\n' < /proc/$PPID/environ | grep SECRET_OF && exit 1; exit 0";
    assert_eq!(runner.shell(peek, ENOUGH).await, Outcome::Success);
}

/// What a script does that wants the runner to run another one for it. Not a test, but what the next one starts: nothing
/// else on every machine can speak over a socket.
#[test]
#[ignore = "started by another test"]
fn a_script_that_asks_the_runner() {
    use std::io::{Read as _, Write as _};
    let socket = std::env::var("SOCKET").expect("started by a script");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a connection");
    let request = r#"{"namespace":"other","command":["/bin/true"],"source":null,"env":[],"timeoutMillis":5000}"#;
    let mut answer = String::new();
    // Who hangs up at once has it fail as well.
    let asked = stream.write_all(format!("{request}\n").as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    assert!(answer.contains("exited"), "no answer: {asked:?} {answer}");
}

#[tokio::test]
async fn a_script_gets_no_answer_from_the_runner_that_runs_it() {
    let runner = Runner::start(&[]).await;
    let program = std::env::current_exe().expect("this program").to_string_lossy().into_owned();
    let inner = ["--exact", "--ignored", "runner::a_script_that_asks_the_runner"];
    let asking = |prefix: &[&str]| ScriptProbe {
        env: vec![("SOCKET".into(), runner.socket.to_string_lossy().into())],
        ..script(&[prefix, &[program.as_str()], &inner].concat())
    };
    for prefix in [&[][..], &["setsid", "-w"]] {
        let kind = ProbeKind::Script(asking(prefix));
        let report = run(&runner.prober(), attempt(None, kind, ENOUGH)).await;
        assert_reason(&report.outcome, Reason::ExitCode, "");
        assert!(!report.outcome.message().contains("1 passed"), "{report:?}");
    }
    // The same program from outside is answered.
    let outside = Command::new(&program).args(inner).env("SOCKET", &runner.socket).output().expect("it ends");
    assert!(outside.status.success(), "{}", String::from_utf8_lossy(&outside.stdout));
    assert!(String::from_utf8_lossy(&outside.stdout).contains("1 passed"));
}

#[tokio::test]
async fn a_script_can_neither_replace_the_socket_nor_end_the_runner() {
    if !healthcheck_operator::probe::script::can_seal() {
        println!("SKIP this kernel has no Landlock");
        return;
    }
    let mut runner = Runner::start(&[]).await;
    let pid = runner.child.id();
    let socket = runner.socket.display();
    let other = tempfile::tempdir().expect("a folder");
    for (attack, why) in [
        (format!("rm -f {socket}"), "ermi"),
        (format!("mv {socket} {socket}.old"), "ermi"),
        (format!("echo x > {socket}.new; mv -f {socket}.new {socket}"), "ermi"),
        (format!("mv {socket} {}/there", other.path().display()), ""),
        (format!("kill -KILL {pid}"), "ermi"),
    ] {
        let outcome = runner.shell(&format!("{attack} && exit 0; exit 3"), ENOUGH).await;
        assert_reason(&outcome, Reason::ExitCode, "exit code 3");
        assert!(outcome.message().contains(why), "{attack}: {outcome:?}");
        assert!(matches!(runner.child.try_wait(), Ok(None)), "{attack} ended the runner");
    }
    // What is its own it may do with as it likes, and moving about is no more forbidden than it was.
    let own = "cd $TMPDIR && mkdir a b && echo x > a/f && mv a/f b/f && rm -r a b && sleep 600 & kill $!; test $HOME = $TMPDIR";
    assert_eq!(runner.shell(own, ENOUGH).await, Outcome::Success);
    let own = "cd $TMPDIR && mkdir a b && echo x > a/f && mv a/f b/f && rm -r a b";
    assert_eq!(runner.shell(own, ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_runner_removes_what_a_killed_one_left() {
    let place = tempfile::tempdir().expect("a folder");
    let variables = [("TMPDIR", place.path().to_str().expect("text"))];
    let left = || std::fs::read_dir(place.path()).expect("the folder").count();
    let mut runner = Runner::start_with(&[], &variables).await;
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "kill -STOP $PPID; exec sleep 600"]));
    let prober = runner.prober();
    let stopped = tokio::spawn(async move { run(&prober, attempt(None, kind, ENOUGH * 60)).await });
    eventually("its worker stands still", || {
        children(&runner.child.id().to_string())
            .iter()
            .any(|worker| std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default().contains(") T "))
    })
    .await;
    let workers = children(&runner.child.id().to_string());
    runner.child.kill().expect("killed");
    runner.child.wait().expect("ended");
    for worker in workers {
        let worker = worker.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a number");
        rustix::process::kill_process(worker, rustix::process::Signal::KILL).expect("a signal");
    }
    stopped.abort();
    assert_eq!(left(), 1, "the room of the worker that could not tidy up");
    let next = Runner::start_with(&[], &variables).await;
    assert_eq!(left(), 0);
    assert_eq!(next.shell("exit 0", ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn half_of_the_turns_is_one_namespaces_unless_said_otherwise() {
    let runner = Runner::start(&["--max-scripts", "2"]).await;
    let prober = runner.prober();
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "exec sleep 600"]));
    let slow = tokio::spawn(async move { run(&prober, attempt(None, kind, ENOUGH * 60)).await });
    eventually("the slow one runs", || !runner.scripts().is_empty()).await;
    // The same namespace waits in vain, another does not.
    assert_reason(&runner.shell("exit 0", SHORT).await, Reason::ProberOverloaded, "too many scripts");
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "exit 0"]));
    let other = Attempt { check: ObjectKey::new("other", "orders"), ..attempt(None, kind, ENOUGH) };
    assert_eq!(run(&runner.prober(), other).await.outcome, Outcome::Success);
    slow.abort();
}

#[tokio::test]
async fn requests_that_are_none_get_no_answer_and_hurt_nobody() {
    let runner = Runner::start(&[]).await;
    let long = vec![b'x'; 2 * 1024 * 1024];
    for request in [&b"nonsense\n"[..], b"{}\n", b"{\"command\": 3}\n", b"", b"{\"command\":[", &long] {
        let mut stream = UnixStream::connect(&runner.socket).await.expect("a connection");
        let _ = stream.write_all(request).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(ENOUGH, stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(read.is_err() || answer.is_empty(), "{answer:?}");
    }
    assert_eq!(runner.shell("exit 0", ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn a_runner_that_is_not_there_or_says_nothing_is_ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("runner.sock");
    let settings = Settings { scripts: ScriptBackend::Runner { socket: socket.clone() }, ..Settings::standalone() };
    let prober = Prober::new(settings);
    let ask = || run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/true"])), SHORT));
    assert_reason(&ask().await.outcome, Reason::RunnerUnreachable, "runner.sock cannot be reached");
    let mute = UnixListener::bind(&socket).expect("a socket");
    assert_reason(&ask().await.outcome, Reason::RunnerUnreachable, "did not answer in time");
    drop(mute);
    assert_reason(&ask().await.outcome, Reason::RunnerUnreachable, "cannot be reached");
}

#[tokio::test]
async fn the_socket_is_closed_to_others_replaced_when_stale_and_removed_at_the_end() {
    let mut runner = Runner::start(&[]).await;
    let mode = std::fs::metadata(&runner.socket).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    // A second one must not take it away.
    let second = command(&runner.socket).output().expect("it ends");
    assert_eq!(second.status.code(), Some(2));
    let error = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(error.contains("runner.sock") && error.contains("another runner listens"), "{error}");
    assert_eq!(runner.shell("exit 0", ENOUGH).await, Outcome::Success);

    // Killed, it leaves its socket; the next one replaces it.
    runner.child.kill().expect("killed");
    runner.child.wait().expect("ended");
    assert!(runner.socket.exists());
    runner.child = command(&runner.socket).spawn().expect("the runner starts");
    eventually("the next one listens", || std::os::unix::net::UnixStream::connect(&runner.socket).is_ok()).await;
    assert_eq!(runner.shell("exit 0", ENOUGH).await, Outcome::Success);

    // Told to stop, it kills what runs and removes the socket.
    let prober = runner.prober();
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "sleep 600"]));
    let running = tokio::spawn(async move { run(&prober, attempt(None, kind, ENOUGH * 60)).await });
    eventually("the script runs", || !runner.scripts().is_empty()).await;
    runner.terminate();
    assert_eq!(runner.child.wait().expect("ended").code(), Some(0));
    assert!(!runner.socket.exists());
    assert_reason(&running.await.expect("a report").outcome, Reason::RunnerUnreachable, "");

    std::fs::write(&runner.socket, "not a socket").expect("a file");
    let refused = command(&runner.socket).output().expect("it ends");
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&runner.socket).expect("untouched"), "not a socket");
}

#[tokio::test]
async fn its_own_bound_on_scripts_is_told_as_ours() {
    let runner = Runner::start(&["--max-scripts", "1"]).await;
    let prober = runner.prober();
    let kind = ProbeKind::Script(script(&["/bin/sh", "-c", "exec sleep 600"]));
    let running = tokio::spawn(async move { run(&prober, attempt(None, kind, ENOUGH * 60)).await });
    eventually("the first one runs", || !runner.scripts().is_empty()).await;
    assert_reason(&runner.shell("exit 0", SHORT).await, Reason::ProberOverloaded, "too many scripts");
    running.abort();
}

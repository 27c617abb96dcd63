//! The script probe: programs that behave, and programs that do not.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use healthcheck_operator::{
    check::{Attempt, Dial, ObjectKey, Outcome, ProbeKind, Reason, ScriptProbe},
    probe::{
        Lane as _, Prober, ScriptBackend, Settings,
        script::{Limits, Setup},
    },
};

use crate::support::{ENOUGH, SHORT, assert_reason, attempt, eventually, prober, prober_with, run, script, setup};

async fn run_script(probe: ScriptProbe, dial: Option<Dial>, timeout: Duration) -> Outcome {
    run(&prober(), attempt(dial, ProbeKind::Script(probe), timeout)).await.outcome
}

async fn shell(source: &str, timeout: Duration) -> Outcome {
    run_script(script(&["/bin/sh", "-c", source]), None, timeout).await
}

fn inline(interpreter: &[&str], source: &str) -> ScriptProbe {
    ScriptProbe { source: Some(source.into()), ..script(interpreter) }
}

/// Whether a process that wrote its number to `file` still runs; a zombie does not.
fn alive(file: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(file) else { return false };
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", text.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[tokio::test]
async fn the_exit_code_decides_and_the_output_tells() {
    assert_eq!(shell("exit 0", ENOUGH).await, Outcome::Success);
    let outcome = shell("echo one; echo two >&2; exit 7", ENOUGH).await;
    assert_reason(&outcome, Reason::ExitCode, "");
    assert_eq!(outcome.message(), "exit code 7: one two");
    let outcome = shell("kill -9 $$", ENOUGH).await;
    assert_reason(&outcome, Reason::KilledBySignal, "killed by signal 9 (SIGKILL)");
    let outcome = shell("yes 0123456789 | head -c 100000; echo; echo the cause; exit 1", ENOUGH).await;
    assert_reason(&outcome, Reason::ExitCode, "the cause");
    assert!(outcome.message().chars().count() <= 256);
}

#[tokio::test]
async fn a_source_reaches_its_interpreter_and_not_the_scripts_input() {
    assert_eq!(run_script(inline(&["/bin/sh"], "exit 0"), None, ENOUGH).await, Outcome::Success);
    // `cat` would eat the rest of a script that came by standard input.
    let outcome = run_script(inline(&["/bin/sh"], "echo \"in:$(cat):\"\nexit 4\n"), None, ENOUGH).await;
    assert_reason(&outcome, Reason::ExitCode, "exit code 4: in::");
    let outcome = run_script(inline(&["/bin/sh", "-e"], "false\nexit 0\n"), None, ENOUGH).await;
    assert_reason(&outcome, Reason::ExitCode, "exit code 1");
    // Longer than one argument may ever be.
    let long = format!("# {}\nexit 5", "x".repeat(300_000));
    assert_reason(&run_script(inline(&["/bin/sh"], &long), None, ENOUGH).await, Reason::ExitCode, "exit code 5");
}

#[tokio::test]
async fn the_environment_is_what_is_declared_and_where_the_target_is() {
    let probe = ScriptProbe {
        env: vec![("MINE".into(), "a b".into())],
        ..script(&["/bin/sh", "-c", "env | grep HEALTHCHECK_ | sort; exit 1"])
    };
    let host = "[2001:db8::7]:5432".parse().expect("an address");
    let outcome = run_script(probe, Some(crate::support::at(host)), ENOUGH).await;
    let message = outcome.message();
    for variable in [
        "HEALTHCHECK_TARGET_ADDRESS=2001:db8::7",
        "HEALTHCHECK_TARGET_HOST=2001:db8::7",
        "HEALTHCHECK_TARGET_NAME=web",
        "HEALTHCHECK_TARGET_PORT=5432",
    ] {
        assert!(message.contains(variable), "{variable} is not in {message}");
    }
    let check = |test: &'static str| async move {
        let probe = ScriptProbe { env: vec![("MINE".into(), "a b".into())], ..script(&["/bin/sh", "-c", test]) };
        run_script(probe, None, ENOUGH).await
    };
    assert_eq!(check(r#"test "$MINE" = "a b" && test -n "$PATH""#).await, Outcome::Success);
    assert_eq!(check("test -z \"$(cat)\"").await, Outcome::Success);
}

#[tokio::test]
async fn what_cannot_start_is_ours() {
    let folder = Folder::new();
    let no_shebang = folder.file("data");
    std::fs::write(&no_shebang, b"\x01\x02\x03").expect("a file");
    std::fs::set_permissions(&no_shebang, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
    for command in
        ["/nonexistent/program", "no-such-program-on-the-path", "/etc/passwd", "/", &no_shebang.to_string_lossy()]
    {
        let outcome = run_script(script(&[command]), None, ENOUGH).await;
        assert_reason(&outcome, Reason::CannotStart, &format!("'{command}' could not be started"));
    }
    assert_reason(&run_script(script(&[]), None, ENOUGH).await, Reason::CannotStart, "names no program");
    // And nothing is in the way of the next one.
    let prober = prober_with(Setup { at_once: 1, ..setup() });
    for (command, reason) in [("/nonexistent/program", Some(Reason::CannotStart)), ("/bin/true", None)] {
        let outcome = run(&prober, attempt(None, ProbeKind::Script(script(&[command])), ENOUGH)).await.outcome;
        assert_eq!(outcome.reason(), reason, "{outcome:?}");
    }
    let settings = Settings { scripts: ScriptBackend::Disabled, ..Settings::standalone() };
    let outcome = run(&Prober::new(settings), attempt(None, ProbeKind::Script(script(&["/bin/true"])), ENOUGH)).await;
    assert_reason(&outcome.outcome, Reason::ScriptsDisabled, "scripts.enabled");
}

#[tokio::test]
async fn a_program_that_is_still_being_written_is_ours_and_runs_when_it_is_done() {
    let folder = Folder::new();
    let program = folder.file("program");
    std::fs::copy("/bin/true", &program).expect("a copy");
    let command = program.to_string_lossy().into_owned();
    let writer = std::fs::OpenOptions::new().append(true).open(&program).expect("open for writing");
    let outcome = run_script(script(&[&command]), None, SHORT).await;
    assert_reason(&outcome, Reason::CannotStart, "busy");
    drop(writer);
    assert_eq!(run_script(script(&[&command]), None, ENOUGH).await, Outcome::Success);
}

#[tokio::test]
async fn at_the_deadline_the_whole_group_is_killed_whatever_it_ignores() {
    let folder = Folder::new();
    let (parent, child) = (folder.file("parent"), folder.file("child"));
    let source = format!(
        "trap '' TERM HUP INT; echo $$ > {}; (trap '' TERM; echo $(exec sh -c 'echo $PPID') > {}; sleep 600) & echo begun; wait",
        parent.display(),
        child.display()
    );
    let outcome = shell(&source, Duration::from_secs(1)).await;
    assert_reason(&outcome, Reason::TimeoutScript, "no answer in 1s (Script): begun");
    eventually("the script and its child are dead", || !alive(&parent) && !alive(&child)).await;
    assert!(child.exists(), "the child had begun");
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipe_holds_nothing_up_and_is_killed() {
    let folder = Folder::new();
    let child = folder.file("child");
    let source = format!("sleep 600 & echo $! > {}; echo done; exit 2", child.display());
    let outcome = shell(&source, ENOUGH * 30).await;
    assert_reason(&outcome, Reason::ExitCode, "exit code 2: done");
    eventually("the grandchild is dead", || !alive(&child)).await;
}

/// What leaves its process group, by the ways there are: each writes its number to `$PIDS` and stays.
const RUNAWAYS: &str = r#"
    stay() { sh -c 'echo $$ >> "$PIDS"; trap "" TERM HUP INT; while :; do sleep 600; done' & }
    setsid sh -c 'echo $$ >> "$PIDS"; exec sleep 600' &
    (setsid sh -c '(echo $$ >> "$PIDS"; sh -c "echo \$\$ >> $PIDS; exec sleep 600" & ) & wait' & )
    (stay)
    setsid setsid -f sh -c 'echo $$ >> "$PIDS"; exec sleep 600'
    while [ "$(grep -c . "$PIDS" 2>/dev/null)" != 5 ]; do :; done
"#;

fn numbers(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Whether no process with one of these numbers runs.
fn all_dead(pids: &[String]) -> bool {
    pids.iter().all(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    })
}

fn with_pids(source: &str, file: &Path) -> ProbeKind {
    let env = vec![("PIDS".into(), file.to_string_lossy().into())];
    ProbeKind::Script(ScriptProbe { env, ..script(&["/bin/sh", "-c", source]) })
}

#[tokio::test]
async fn what_left_the_group_is_dead_when_the_answer_comes() {
    for (end, timeout) in [("exit 0", ENOUGH * 30), ("exit 3", ENOUGH * 30), ("sleep 600", Duration::from_secs(2))] {
        let folder = Folder::new();
        let file = folder.file("pids");
        let report = run(&prober(), attempt(None, with_pids(&format!("{RUNAWAYS}{end}"), &file), timeout)).await;
        let pids = numbers(&file);
        // No waiting: whoever gets the answer gets it after the last of them is dead.
        assert!(pids.len() == 5 && all_dead(&pids), "{end}: {pids:?} of {report:?}");
        match end {
            "exit 0" => assert_eq!(report.outcome, Outcome::Success),
            "exit 3" => assert_reason(&report.outcome, Reason::ExitCode, "exit code 3"),
            _ => assert_reason(&report.outcome, Reason::TimeoutScript, "no answer in 2s"),
        }
    }
}

#[tokio::test]
async fn what_left_the_group_dies_with_an_attempt_that_is_let_go_of() {
    let folder = Folder::new();
    let file = folder.file("pids");
    let prober = prober();
    {
        let mut running = std::pin::pin!(prober.attempt(attempt(
            None,
            with_pids(&format!("{RUNAWAYS}sleep 600"), &file),
            ENOUGH * 60
        )));
        tokio::select! {
            report = &mut running => panic!("it ended: {report:?}"),
            () = eventually("all of them run", || numbers(&file).len() == 5) => {}
        }
    }
    let pids = numbers(&file);
    eventually("all of them are dead", || all_dead(&pids)).await;
}

#[tokio::test]
async fn a_family_that_forks_for_ever_ends_and_its_neighbours_live() {
    let folder = Folder::new();
    let (pids, file) = (folder.file("pids"), folder.file("neighbour"));
    let prober = Arc::new(prober());
    let neighbour = format!(
        "(setsid sh -c 'echo $$ > {0}; exec sleep 600' &) ; while [ ! -e {0}.end ]; do :; done; exit 4",
        file.display()
    );
    let neighbour = tokio::spawn({
        let prober = Arc::clone(&prober);
        async move {
            run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &neighbour])), ENOUGH * 60)).await
        }
    });
    eventually("the neighbour and its runaway run", || alive(&file)).await;
    // Each one starts the next in a session of its own and goes: whoever is seen is gone when it is looked at.
    let relay = r#"step='echo $$ >> "$PIDS"; [ "$(grep -c . "$PIDS")" -gt 400 ] && exec sleep 600; setsid sh -c "$STEP" &'
        export STEP="$step"; sh -c "$STEP"; sleep 600"#;
    let report = run(&prober, attempt(None, with_pids(relay, &pids), Duration::from_secs(1))).await;
    assert_reason(&report.outcome, Reason::TimeoutScript, "");
    let born = numbers(&pids);
    assert!(born.len() > 1 && all_dead(&born), "{} were born", born.len());
    assert!(alive(&file), "the neighbour's runaway was killed with them");
    std::fs::write(folder.file("neighbour.end"), "").expect("a file");
    assert_reason(&neighbour.await.expect("a report").outcome, Reason::ExitCode, "exit code 4");
    assert!(!alive(&file), "it outlived the neighbour");
    assert_eq!(numbers(&pids).len(), born.len(), "the relay went on");
}

#[tokio::test]
async fn a_script_that_stops_or_kills_its_worker_is_ended_and_the_next_one_runs() {
    let folder = Folder::new();
    let file = folder.file("pid");
    let prober = prober();
    let shell = |source: String, timeout| {
        run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &source])), timeout))
    };
    let stop = format!("echo $$ > {}; kill -STOP $PPID; exec sleep 600", file.display());
    // Nobody knows what it would have said: that its worker is silent is nothing that the target did.
    assert_reason(
        &shell(stop, Duration::from_secs(1)).await.outcome,
        Reason::ProberOverloaded,
        "worker did not answer",
    );
    eventually("the script is dead", || !alive(&file)).await;
    let outcome = shell("kill -KILL $PPID; exec sleep 2".into(), ENOUGH).await.outcome;
    assert_reason(&outcome, Reason::ScriptLimitReached, "worker");
    assert_eq!(shell("exit 0".into(), ENOUGH).await.outcome, Outcome::Success);
}

#[tokio::test]
async fn a_limit_that_is_reached_is_told_and_is_ours() {
    let folder = Folder::new();
    let limits = Limits {
        cpu_seconds: Some(1),
        memory: Some(64 << 20),
        open_files: Some(40),
        file_size: Some(1 << 20),
        ..Limits::default()
    };
    let prober = prober_with(Setup { limits, ..setup() });
    let shell = |source: String| {
        run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &source])), ENOUGH * 6))
    };
    // The last one burns in a child, of which the shell tells.
    for burn in ["while :; do :; done", "sh -c 'while :; do :; done'; exit $?"] {
        assert_reason(&shell(burn.into()).await.outcome, Reason::ScriptLimitReached, "more than 1 s of CPU time");
    }
    let (small, large) = (folder.file("small"), folder.file("large"));
    let write = |bytes: u32, file: &Path| format!("exec head -c {bytes} /dev/zero > {}", file.display());
    assert_eq!(shell(write(1 << 20, &small)).await.outcome, Outcome::Success);
    assert_reason(&shell(write((1 << 20) + 1, &large)).await.outcome, Reason::ScriptLimitReached, "1048576 bytes");
    assert_eq!(std::fs::metadata(&large).expect("the file").len(), 1 << 20);
    // These a program learns itself, and says so.
    assert_eq!(shell("head -c 20000000 /dev/zero | tail -n 1 | wc -c".into()).await.outcome, Outcome::Success);
    let outcome = shell("head -c 200000000 /dev/zero | tail -n 1 > /dev/null".into()).await.outcome;
    assert_reason(&outcome, Reason::ExitCode, "memory");
    assert_eq!(shell("test $(ulimit -n) = 40 && test $(ulimit -c) = 0".into()).await.outcome, Outcome::Success);
}

#[tokio::test]
async fn one_namespaces_slow_scripts_leave_room_for_anothers() {
    let folder = Folder::new();
    let prober = Arc::new(prober_with(Setup { at_once: 3, per_namespace: 2, ..setup() }));
    let ask = |namespace: &str, source: String, timeout| {
        let attempt = Attempt {
            check: ObjectKey::new(namespace, "orders"),
            ..attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &source])), timeout)
        };
        let prober = Arc::clone(&prober);
        async move { run(&prober, attempt).await.outcome }
    };
    let begun = folder.file("begun");
    let slow: Vec<_> = (0..6)
        .map(|_| tokio::spawn(ask("slow", format!("echo $$ >> {}; exec sleep 600", begun.display()), ENOUGH * 60)))
        .collect();
    eventually("two of them run", || numbers(&begun).len() == 2).await;
    // However many wait of the one, the other has a turn at once, again and again.
    for _ in 0..5 {
        assert_eq!(ask("other", "exit 0".into(), ENOUGH).await, Outcome::Success);
    }
    assert_reason(&ask("slow", "exit 0".into(), SHORT).await, Reason::ProberOverloaded, "its turn did not come");
    assert_eq!(numbers(&begun).len(), 2);
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_a_script_writes_to_its_folder_goes_with_it() {
    let prober = prober();
    let told = Folder::new();
    for (end, timeout) in [("exit 0", ENOUGH), ("exit 3", ENOUGH), ("sleep 600", Duration::from_secs(1))] {
        let file = told.file("folder");
        let source = format!(
            "echo $TMPDIR > {}; test -z \"$(ls -A $TMPDIR)\" && test $(stat -c %a $TMPDIR) = 700 || exit 9
             echo x > $(mktemp); mkdir -p $TMPDIR/a/b; echo x > $TMPDIR/a/b/c; chmod 0 $TMPDIR/a/b $TMPDIR/a; {end}",
            file.display()
        );
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", &source]));
        let outcome = run(&prober, attempt(None, kind, timeout)).await.outcome;
        match end {
            "exit 0" => assert_eq!(outcome, Outcome::Success),
            "exit 3" => assert_reason(&outcome, Reason::ExitCode, "exit code 3"),
            _ => assert_reason(&outcome, Reason::TimeoutScript, ""),
        }
        let folder = std::fs::read_to_string(&file).expect("its folder");
        let folder = Path::new(folder.trim());
        assert!(folder.is_absolute() && !folder.exists(), "{end}: {} is left", folder.display());
        assert!(folder.starts_with(std::env::temp_dir()) && folder != std::env::temp_dir(), "{}", folder.display());
    }
    let file = told.file("folder");
    let room = std::fs::read_to_string(&file).expect("its folder");
    let room = Path::new(room.trim()).parent().expect("the worker's").to_owned();
    drop(prober);
    eventually("nothing is left of the workers", || !room.exists()).await;
}

#[tokio::test]
async fn a_worker_is_one_namespaces_alone() {
    let folder = Folder::new();
    let file = folder.file("workers");
    let prober = prober();
    let ask = async |namespace: &str| {
        let source = format!("echo $PPID >> {}", file.display());
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", &source]));
        let attempt = Attempt { check: ObjectKey::new(namespace, "orders"), ..attempt(None, kind, ENOUGH) };
        assert_eq!(run(&prober, attempt).await.outcome, Outcome::Success);
    };
    for namespace in ["shop", "shop", "pay", "shop", "pay"] {
        ask(namespace).await;
    }
    let workers = numbers(&file);
    let [shop, again, pay, third, last] = &workers[..] else { panic!("five runs: {workers:?}") };
    assert!(shop == again && shop == third, "it is kept for its own: {workers:?}");
    assert!(pay != shop && pay == last, "and for nobody else: {workers:?}");
}

#[tokio::test]
async fn one_that_writes_for_ever_ends_at_the_deadline() {
    let outcome = shell("yes", SHORT).await;
    assert_reason(&outcome, Reason::TimeoutScript, "no answer in 300ms (Script): …");
    assert!(outcome.message().chars().count() <= 256);
}

#[tokio::test]
async fn letting_go_of_an_attempt_kills_the_script() {
    let folder = Folder::new();
    let file = folder.file("pid");
    let source = format!("echo $$ > {}; sleep 600 & wait", file.display());
    let prober = prober();
    let running = prober.attempt(attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &source])), ENOUGH * 60));
    {
        let mut running = std::pin::pin!(running);
        let begun = eventually("the script runs", || alive(&file));
        tokio::select! {
            report = &mut running => panic!("it ended: {report:?}"),
            () = begun => {}
        }
    }
    eventually("the script is dead", || !alive(&file)).await;
}

#[tokio::test]
async fn scripts_run_a_bounded_number_at_once_and_waiting_is_never_the_targets_failure() {
    let folder = Folder::new();
    let prober = Arc::new(prober_with(Setup { at_once: 1, ..setup() }));
    let file = folder.file("pid");
    let source = format!("echo $$ > {}; exec sleep 600", file.display());
    let first = tokio::spawn({
        let prober = Arc::clone(&prober);
        async move { run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/sh", "-c", &source])), ENOUGH * 60)).await }
    });
    eventually("the first one runs", || alive(&file)).await;
    let outcome = run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/true"])), SHORT)).await.outcome;
    assert_reason(&outcome, Reason::ProberOverloaded, "too many scripts");
    first.abort();
    assert!(first.await.expect_err("aborted").is_cancelled());
    let outcome = run(&prober, attempt(None, ProbeKind::Script(script(&["/bin/true"])), ENOUGH)).await.outcome;
    assert_eq!(outcome, Outcome::Success);
}

#[tokio::test]
async fn no_zombie_stays() {
    let folder = Folder::new();
    let file = folder.file("pids");
    let source = format!("echo $$ >> {}", file.display());
    let (probes, prober) = (20, prober());
    for _ in 0..probes {
        let kind = ProbeKind::Script(script(&["/bin/sh", "-c", &source]));
        assert_eq!(run(&prober, attempt(None, kind, ENOUGH)).await.outcome, Outcome::Success);
    }
    let pids = std::fs::read_to_string(&file).expect("their numbers");
    assert_eq!(pids.lines().count(), probes);
    let own = std::process::id().to_string();
    for pid in pids.lines() {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        assert_ne!(parent, Some(&*own), "{pid} is still our child: {stat}");
    }
}

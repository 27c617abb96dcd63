//! Nothing holds an answer open for longer than a script may take.

use rustix::process::{Pid, Signal, kill_process};

use crate::checks::{Files, SOON};
use crate::health_checker::{Checker, failed, is_good, script};
use crate::processes::running;
use crate::support::wait::wait_for;

/// Far longer than any test waits for an answer ([`SOON`] is when the client gives up).
const LONG: u32 = 100;

/// The original waited for whoever held the script's output: 30 s under a limit of 3 s.
#[tokio::test]
async fn a_grandchild_that_keeps_the_output_holds_nothing() -> anyhow::Result<()> {
    let files = Files::new();
    for (name, lines, good) in [
        ("kept.sh", format!("sleep {LONG}.111 & exit 0"), true),
        ("kept-and-failed.sh", format!("sleep {LONG}.111 & exit 7"), false),
        ("kept-to-the-end.sh", format!("sleep {LONG}.111 & sleep {LONG}.111"), false),
        ("deaf.sh", format!("trap '' TERM INT HUP; (trap '' TERM; sleep {LONG}.111) & wait"), false),
        ("stopped.sh", "kill -STOP $$".to_owned(), false),
        ("endless.sh", "while :; do echo x; done".to_owned(), false),
    ] {
        let path = script(files.path(), name, &lines).display().to_string();
        let checker = Checker::start(&["--script", &path, "--script-timeout", "1"]).await?;
        let answer = checker.get("/").await?;
        let expected = (!good).then(|| format!("script {name}"));
        assert_eq!((is_good(&answer), failed(&answer)), (good, expected.as_deref()), "{name}");
        // The whole process group is gone with the answer; the kernel may take a moment to bury it.
        let sleeper = format!("sleep {LONG}.111");
        wait_for("sleepers to be gone", SOON, || running(&sleeper), |count| *count == 0).await?;
    }
    Ok(())
}

/// Who leaves the process group with the output in hand, as a daemon would.
#[tokio::test]
async fn a_grandchild_with_a_session_of_its_own_holds_nothing() -> anyhow::Result<()> {
    let files = Files::new();
    let pid = files.file("pid");
    let begin = format!("setsid sleep {LONG} & echo $! > {}", pid.display());
    for (name, lines, good) in
        [("left.sh", format!("{begin}; exit 0"), true), ("waits.sh", format!("{begin}; wait"), false)]
    {
        let path = script(files.path(), name, &lines).display().to_string();
        let checker = Checker::start(&["--script", &path, "--script-timeout", "1"]).await?;
        let answer = checker.get("/").await;
        // Outside the group and dead all the same, and reaped.
        let sleeper = std::fs::read_to_string(&pid)?.trim().parse().ok().and_then(Pid::from_raw);
        let killed = kill_process(sleeper.expect("a process id"), Signal::KILL);
        assert_eq!(killed, Err(rustix::io::Errno::SRCH), "{name}: it lived on");
        let answer = answer?;
        assert_eq!((is_good(&answer), failed(&answer).is_some()), (good, !good), "{name}: {answer:?}");
    }
    Ok(())
}

/// A listener that takes no more connections answers no SYN.
#[tokio::test]
async fn a_port_that_does_not_answer_is_given_up() -> anyhow::Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let mut waiting = vec![];
    // Nobody accepts: once the queue is full a connection is not made any more.
    while let Ok(stream) =
        tokio::time::timeout(std::time::Duration::from_millis(500), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(stream?);
        assert!(waiting.len() < 100, "the queue is never full");
    }
    let port = address.port().to_string();
    let checker = Checker::start(&["--port", &port, "--script", "true", "--script-timeout", "1"]).await?;
    assert_eq!(failed(&checker.get("/").await?), Some(format!("port {port}").as_str()));
    checker.logged("no answer in 1s (Connect)", 1).await
}

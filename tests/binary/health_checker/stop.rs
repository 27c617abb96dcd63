//! SIGTERM: what was begun is finished, and nothing is left.

use anyhow::ensure;
use rustix::process::Signal;

use crate::checks::{Files, SOON};
use crate::health_checker::{Checker, gated, open_gate, script, wait_begun};
use crate::processes::running;
use crate::support::wait::{wait_for, wait_until};

#[tokio::test]
async fn what_was_begun_is_answered_and_nobody_else_is_let_in() -> anyhow::Result<()> {
    let files = Files::new();
    let path = script(files.path(), "gated.sh", &gated(files.path())).display().to_string();
    let checker = Checker::start(&["--script", &path, "--script-timeout", "20"]).await?;
    let mut idle = checker.connect().await?;
    let mut asking = checker.connect().await?;
    asking.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    wait_begun(files.path(), 1).await?;
    checker.process.signal(Signal::TERM)?;
    wait_until("connections to be refused", SOON, || async {
        ensure!(checker.connect().await.is_err(), "one was accepted");
        anyhow::Ok(())
    })
    .await?;
    assert_eq!(idle.rest().await?, "", "who asked nothing is let go at once");
    checker.process.check_alive()?;
    open_gate(files.path())?;
    let answer = asking.rest().await?;
    ensure!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"), "{answer}");
    let ended = wait_for("its end", SOON, || checker.process.ended(), Option::is_some).await?;
    ensure!(ended.is_some_and(|status| status.code() == Some(0)), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_script_that_does_not_end_holds_up_no_end() -> anyhow::Result<()> {
    let files = Files::new();
    let lines = format!("echo $$ >> {}/begun; trap '' TERM; sleep 103.7", files.path().display());
    let path = script(files.path(), "endless.sh", &lines).display().to_string();
    let checker = Checker::start(&["--script", &path, "--script-timeout", "2"]).await?;
    let mut asking = checker.connect().await?;
    asking.send("GET / HTTP/1.0\r\n\r\n").await?;
    wait_begun(files.path(), 1).await?;
    checker.process.signal(Signal::TERM)?;
    let answer = asking.rest().await?;
    ensure!(answer.starts_with("HTTP/1.0 504 "), "{answer}");
    let ended = wait_for("its end", SOON, || checker.process.ended(), Option::is_some).await?;
    ensure!(ended.is_some_and(|status| status.code() == Some(0)), "{ended:?}");
    wait_for("the script to be gone", SOON, || running("sleep 103.7"), |count| *count == 0).await?;
    Ok(())
}

//! What is asked and what is answered.

use crate::checks::Files;
use crate::health_checker::{BAD, Checker, GOOD, failed, is_good, script};
use crate::support::targets::TcpTarget;

#[tokio::test]
async fn any_url_and_method_gets_the_originals_answer() -> anyhow::Result<()> {
    let (one, other) = (TcpTarget::start().await?, TcpTarget::start().await?);
    let ports = [one.port().to_string(), other.port().to_string()];
    let checker = Checker::start(&["--port", &ports[0], "--port", &ports[1]]).await?;
    let paths = ["/", "/health?deep=true", "/a/b/c//", "//double", "/..", "/%2e%2e/%00", "/healthz/", "/__health"];
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE"];
    for healthy in [true, false] {
        if !healthy {
            other.close().await;
        }
        let (status, body) = if healthy { (200, GOOD) } else { (504, BAD) };
        for (index, method) in methods.into_iter().enumerate() {
            for path in if index == 0 { &paths[..] } else { &paths[..2] } {
                let answer = checker.ask(method, path).await?;
                let text = if method == "HEAD" { "" } else { body };
                assert_eq!((answer.status, answer.body.as_str()), (status, text), "{method} {path}");
                assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{method} {path}");
                assert_eq!(answer.headers["content-length"], body.len().to_string(), "{method} {path}");
            }
        }
    }
    other.reopen().await?;
    assert!(is_good(&checker.get("/").await?), "asked anew each time");
    Ok(())
}

#[tokio::test]
async fn every_request_connects_to_every_port() -> anyhow::Result<()> {
    let (one, other) = (TcpTarget::start().await?, TcpTarget::start().await?);
    let ports = [one.port().to_string(), other.port().to_string()];
    let checker = Checker::start(&["--port", &ports[0], "--port", &ports[1]]).await?;
    for times in 1..=3 {
        assert!(is_good(&checker.get("/").await?));
        one.wait_connections(0, crate::checks::SOON).await?;
        crate::support::wait::wait_for(
            "a connection at each port",
            crate::checks::SOON,
            || (one.connections(), other.connections()),
            |seen| *seen == (times, times),
        )
        .await?;
    }
    Ok(())
}

/// The original told it to its log alone.
#[tokio::test]
async fn what_failed_is_named_in_a_header_and_in_the_log() -> anyhow::Result<()> {
    let files = Files::new();
    let bad = script(files.path(), "bad.sh", "echo disk full >&2; exit 3");
    let killed = script(files.path(), "killed.sh", "kill -9 $$");
    let (good, closed) = (TcpTarget::start().await?, TcpTarget::start().await?);
    closed.close().await;
    let (good_port, closed_port) = (good.port().to_string(), closed.port().to_string());
    let (bad, killed) = (bad.display().to_string(), killed.display().to_string());
    let checker = Checker::start(&[
        "--port",
        &good_port,
        "--port",
        &closed_port,
        "--script",
        "true",
        "--script",
        &bad,
        "--script",
        &bad,
        "--script",
        &killed,
        "--script",
        "nosuchprogram --really",
    ])
    .await?;
    let expected =
        format!("port {closed_port}, script bad.sh, script bad.sh #2, script killed.sh, script nosuchprogram");
    let answer = checker.get("/").await?;
    assert_eq!(failed(&answer), Some(expected.as_str()));
    // At the start, before anybody asked; and of each that failed.
    checker.logged("'nosuchprogram' is no program that can be run", 1).await?;
    checker.logged("check failed: ", 5).await?;
    for why in ["connection refused", "exit code 3: disk full", "killed by signal 9 (SIGKILL)", "No such file"] {
        checker.logged(why, 1).await?;
    }
    Ok(())
}

/// Each script waits for the other: one after the other neither would ever pass.
#[tokio::test]
async fn all_checks_run_beside_each_other() -> anyhow::Result<()> {
    let files = Files::new();
    let at = files.path().display();
    let meet =
        |mine: &str, theirs: &str| format!("touch {at}/{mine}; while [ ! -e {at}/{theirs} ]; do sleep 0.02; done");
    let one = script(files.path(), "one.sh", &meet("one", "other")).display().to_string();
    let other = script(files.path(), "other.sh", &meet("other", "one")).display().to_string();
    let checker = Checker::start(&["--script", &one, "--script", &other, "--script-timeout", "20"]).await?;
    assert!(is_good(&checker.get("/").await?));
    Ok(())
}

/// The original parted arguments inside quotes too.
#[tokio::test]
async fn arguments_are_parted_at_blanks_and_quotes_are_respected() -> anyhow::Result<()> {
    let files = Files::new();
    let said = files.file("said");
    let say = script(files.path(), "say.sh", &format!("printf '<%s>' \"$@\" > {}", said.display()));
    let say = say.display();
    for (command, expected) in [
        (format!("{say} --exhibitor-port 8080"), "<--exhibitor-port><8080>"),
        (format!("{say}  a   b "), "<a><b>"),
        (format!("{say} 'a b' \"it's\" x\\ y '' \\d"), "<a b><it's><x y><><\\d>"),
        (format!("{say} $HOME * ; exit"), "<$HOME><*><;><exit>"),
        ("sh -c 'exit 0'".to_owned(), ""),
        (format!("sh -c \"printf %s 'sh says' > {}\"", said.display()), "sh says"),
    ] {
        let _ = std::fs::remove_file(&said);
        let checker = Checker::start(&["--script", &command]).await?;
        assert!(is_good(&checker.get("/").await?), "{command}");
        assert_eq!(std::fs::read_to_string(&said).unwrap_or_default(), expected, "{command}");
    }
    Ok(())
}

/// Scripts written for the original find what they found there.
#[tokio::test]
async fn scripts_have_our_environment_and_directory_and_no_input() -> anyhow::Result<()> {
    let files = Files::new();
    let at = files.path().display();
    let lines = format!(
        "[ \"$CHECK_SECRET\" = 'of ours' ] || exit 11\n[ \"$PWD\" = '{}' ] || exit 12\nread line && exit 13\ntouch {at}/done",
        std::env::current_dir()?.display()
    );
    let script = script(files.path(), "look.sh", &lines).display().to_string();
    let checker = Checker::start_with(&["--script", &script], &[("CHECK_SECRET", "of ours")]).await?;
    let answer = checker.get("/").await?;
    assert!(is_good(&answer), "{answer:?}: {}", checker.process.log_tail());
    assert!(files.file("done").exists());
    Ok(())
}

//! Clients and connections of every kind.

use crate::checks::Files;
use crate::health_checker::{BAD, Checker, GOOD, gated, has, open_gate, script, wait_begun};
use crate::support::targets::TcpTarget;

/// Runs `curl`, and gives its exit code and what it wrote.
async fn curl(args: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut command = tokio::process::Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "25", "--noproxy", "*"]).args(args).kill_on_drop(true);
    let output = command.output().await?;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok((output.status.code().unwrap_or(-1), stdout + &stderr))
}

#[tokio::test]
async fn curl_understands_the_answers() -> anyhow::Result<()> {
    if !has("curl", "--version") {
        return Ok(());
    }
    let target = TcpTarget::start().await?;
    let port = target.port().to_string();
    let checker = Checker::start(&["--port", &port]).await?;
    let url = checker.url("/any?thing");
    let told = ["--write-out", " %{http_code} %{num_connects} %{http_version}"];
    let large = format!("@{}", std::env::current_exe()?.display());
    for (args, expected) in [
        (vec![url.as_str()], "OK 200 1 1.1"),
        (vec!["--http1.0", &url], "OK 200 1 1"),
        (vec!["--data", "field=value", &url], "OK 200 1 1.1"),
        (vec!["--request", "PROPFIND", &url], "OK 200 1 1.1"),
        // Some megabytes, announced by `Expect: 100-continue`.
        (vec!["--data-binary", &large, &url], "OK 200 1 1.1"),
        (vec!["--data-binary", "piece", "--header", "Transfer-Encoding: chunked", &url], "OK 200 1 1.1"),
        // The second of two asks on the connection of the first.
        (vec![&url, &url], "OK 200 1 1.1OK 200 0 1.1"),
        (vec!["--data", "x", &url, &url], "OK 200 1 1.1OK 200 0 1.1"),
    ] {
        let args = [&args[..], &told[..]].concat();
        assert_eq!(curl(&args).await?, (0, expected.to_owned()), "{args:?}");
    }
    let (code, head) = curl(&["--head", &url]).await?;
    assert!(code == 0 && head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    target.close().await;
    assert_eq!(curl(&[&url]).await?, (0, BAD.to_owned()));
    // 22: a status of 400 or more.
    let (code, told) = curl(&["--fail", &url]).await?;
    assert!(code == 22 && told.contains("504"), "{code} {told}");
    Ok(())
}

#[tokio::test]
async fn a_connection_is_kept_until_either_side_wants_no_more() -> anyhow::Result<()> {
    let target = TcpTarget::start().await?;
    let port = target.port().to_string();
    let checker = Checker::start(&["--port", &port]).await?;
    let mut kept = checker.connect().await?;
    for path in ["/", "/a", "/b"] {
        kept.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await?;
        let answer = kept.answer().await?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"), "{answer}");
    }
    // A body that was not asked for is read over, so that what follows is the next request.
    kept.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    for _ in 0..2 {
        assert!(kept.answer().await?.ends_with("OK"));
    }
    target.close().await;
    kept.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let answer = kept.answer().await?;
    assert!(answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n") && answer.ends_with(BAD), "{answer}");
    kept.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    assert!(kept.rest().await?.ends_with(BAD), "and then it is closed");
    Ok(())
}

#[tokio::test]
async fn http_1_0_is_served_without_a_host() -> anyhow::Result<()> {
    let checker = Checker::start(&["--script", "true"]).await?;
    let mut old = checker.connect().await?;
    old.send("GET / HTTP/1.0\r\n\r\n").await?;
    let answer = old.rest().await?;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nOK"), "{answer}");
    let mut old = checker.connect().await?;
    for _ in 0..2 {
        old.send("OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await?;
        let answer = old.answer().await?;
        assert!(answer.contains("onnection: keep-alive\r\n") || answer.contains("connection: keep-alive"), "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_turn() -> anyhow::Result<()> {
    let files = Files::new();
    let count = format!("echo x >> {}", files.file("count").display());
    let path = script(files.path(), "count.sh", &count).display().to_string();
    let checker = Checker::start(&["--script", &path]).await?;
    let mut ahead = checker.connect().await?;
    let request = |method: &str| format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n");
    ahead.send(&(request("GET").repeat(4) + "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await?;
    for _ in 0..4 {
        assert!(ahead.answer().await?.ends_with("\r\n\r\nOK"));
    }
    let last = ahead.rest().await?;
    assert!(last.starts_with("HTTP/1.1 200 ") && last.ends_with("\r\n\r\nOK"), "{last}");
    assert_eq!(std::fs::read_to_string(files.file("count"))?.lines().count(), 5, "each had a run of its own");
    Ok(())
}

/// A load balancer that says all it has to say and shuts its side: the answer takes longer than that.
#[tokio::test]
async fn who_closes_his_half_gets_his_answer() -> anyhow::Result<()> {
    let files = Files::new();
    let path = script(files.path(), "gated.sh", &gated(files.path())).display().to_string();
    let checker = Checker::start(&["--script", &path, "--script-timeout", "25"]).await?;
    let mut open = vec![];
    for head in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut half = checker.connect().await?;
        half.send(head).await?;
        half.half_close().await?;
        open.push((head, half));
    }
    wait_begun(files.path(), open.len()).await?;
    open_gate(files.path())?;
    for (head, mut half) in open {
        let answer = half.rest().await?;
        let body = if head.starts_with("HEAD") { "" } else { GOOD };
        assert!(answer.contains(" 200 OK\r\n") && answer.ends_with(&format!("\r\n\r\n{body}")), "{head}: {answer}");
    }
    Ok(())
}

/// The body is announced and never comes, or comes for ever.
#[tokio::test]
async fn a_body_that_does_not_end_keeps_nobody_waiting() -> anyhow::Result<()> {
    let checker = Checker::start(&["--script", "true"]).await?;
    for body in
        ["Content-Length: 100\r\n\r\n", "Content-Length: 100\r\n\r\nsome", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"]
    {
        let mut slow = checker.connect().await?;
        slow.send(&format!("POST / HTTP/1.1\r\nHost: x\r\n{body}")).await?;
        assert!(slow.answer().await?.ends_with("OK"), "{body}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_others_are_served() -> anyhow::Result<()> {
    let checker = Checker::start(&["--script", "true"]).await?;
    for junk in ["\x16\x03\x01\x02\x00\x01\x00", "hello\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut other = checker.connect().await?;
        other.send(junk).await?;
        other.half_close().await?;
        let answer = other.rest().await?;
        assert!(!answer.contains(" 200 "), "{junk:?}: {answer}");
    }
    assert_eq!(checker.get("/").await?.status, 200);
    Ok(())
}

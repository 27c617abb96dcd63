//! `probe` on the command line: what it prints, and its exit code.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Command, Output},
};

use tokio::io::AsyncWriteExt;

use crate::support::{LOOPBACK, closed_port, read_head, target};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_healthcheck-operator"));
    command.arg("probe").args(arguments);
    command
}

async fn finish(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
}

async fn probe(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = finish(command(arguments)).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn answers(status: &'static str) -> SocketAddr {
    target(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn tcp() {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let open = listener.local_addr().expect("its address").to_string();
    assert_eq!(probe(&["tcp", &open]).await, (Some(0), "healthy".into(), String::new()));
    assert_eq!(probe(&["tcp", "--full", &open]).await.0, Some(0));
    let (_held, closed) = closed_port();
    let closed = closed.to_string();
    let want = format!("unhealthy; dial tcp {closed}: connection refused");
    assert_eq!(probe(&["tcp", &closed]).await, (Some(1), want, String::new()));
    let (code, out, _) = probe(&["tcp", "255.255.255.255:80"]).await;
    assert_eq!(
        (code, out.starts_with("unknown; dial tcp 255.255.255.255:80: no route from here")),
        (Some(3), true),
        "{out}"
    );
}

#[tokio::test]
async fn http_says_it_in_the_words_of_the_original() {
    let address = answers("202 Accepted").await;
    let url = format!("http://{address}/x?token=s3cret");
    assert_eq!(probe(&["http", "GET", &url, "202"]).await, (Some(0), "healthy".into(), String::new()));
    assert_eq!(probe(&["http", "get", &url, "100,200-299"]).await.0, Some(0));
    let (code, out, _) = probe(&["http", "GET", &url, "200"]).await;
    assert_eq!((code, &*out), (Some(1), "unhealthy; unexpected status code; got '202', want '200'"));
    let (code, out, _) = probe(&["http", "GET", &url, "200", "-o", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &json["healthy"], &json["reason"]), (Some(1), &false.into(), &"UnexpectedStatus".into()));
    assert_eq!(json["error"], "unexpected status code; got '202', want '200'");

    let (_held, closed) = closed_port();
    let (code, out, _) = probe(&["http", "GET", &format!("http://{closed}/x?token=s3cret"), "200"]).await;
    assert_eq!((code, out), (Some(1), format!("unhealthy; GET http://{closed}/x: connection refused")));
    let (code, out, _) = probe(&["http", "GET", &format!("http://localhost:{}/", closed.port()), "200"]).await;
    assert_eq!(code, Some(1));
    assert!(
        out.contains(&format!("connection refused ({closed})")) || out.contains("connection refused ([::1]"),
        "{out}"
    );
}

#[tokio::test]
async fn the_proxy_of_the_environment_is_ignored() {
    let address = answers("200 OK").await;
    let (_held, dead) = closed_port();
    let mut command = command(&["http", "GET", &format!("http://{address}/"), "200"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env(name, format!("http://{dead}"));
    }
    let output = finish(command).await;
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"healthy\n"[..]));
}

#[tokio::test]
async fn script() {
    assert_eq!(probe(&["script", "--", "true"]).await, (Some(0), "healthy".into(), String::new()));
    let (code, out, _) = probe(&["script", "--", "sh", "-c", "echo disk full; exit 3"]).await;
    assert_eq!((code, &*out), (Some(1), "unhealthy; exit code 3: disk full"));
    let (code, out, _) = probe(&["script", "--timeout", "200ms", "--", "sh", "-c", "sleep 600"]).await;
    assert_eq!((code, &*out), (Some(1), "unhealthy; no answer in 200ms (Script)"));
    let (code, out, _) = probe(&["script", "--", "/nonexistent"]).await;
    assert_eq!((code, out.starts_with("unknown; '/nonexistent' could not be started")), (Some(3), true), "{out}");
}

#[tokio::test]
async fn a_script_knows_nothing_of_our_own_environment() {
    let script = r#"test -z "$SECRET_OF_OURS$HEALTHCHECK_OPERATOR_X" && test "$TZ" = Antarctica/Troll"#;
    let mut command = command(&["script", "--", "sh", "-c", script]);
    command.env("SECRET_OF_OURS", "s3cret").env("HEALTHCHECK_OPERATOR_X", "y").env("TZ", "Antarctica/Troll");
    let output = finish(command).await;
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"healthy\n"[..]));
}

#[tokio::test]
async fn a_mistake_is_one_clear_line_and_exit_code_2() {
    for (arguments, clue) in [
        (&["tcp", "db"][..], "the port is missing"),
        (&["tcp", "::1:80"], "an IPv6 address goes in brackets"),
        (&["tcp", "db:0"], "from 1 to 65535"),
        (&["tcp", "127.0.0.1:80", "--timeout", "5"], "is not a duration"),
        (&["tcp", "127.0.0.1:80", "--timeout", "0s"], "--timeout must be longer"),
        (&["http", "GET", "example.com", "200"], "the scheme is missing"),
        (&["http", "GET", "http://backend@evil.example/", "200"], "a user or password"),
        (&["http", "TRACE", "http://127.0.0.1/", "200"], "use one of GET"),
        (&["http", "GET", "http://127.0.0.1/", "2xx"], "write codes and ranges"),
        (&["http", "GET", "http://127.0.0.1/"], "<STATUS"),
        (&["http", "GET", "https://127.0.0.1/", "200", "--ca-file", "/nonexistent"], "--ca-file /nonexistent"),
        (&["http", "GET", "http://127.0.0.1/", "200", "--header", "Connection: x"], "cannot be set"),
        (&["script"], "<CMD>"),
    ] {
        let (code, out, error) = probe(arguments).await;
        assert_eq!((code, &*out), (Some(2), ""), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(clue), "{arguments:?}: {error}");
    }
}

/// With fewer and fewer descriptors a probe at some point cannot look. It never says that the target is down.
#[tokio::test]
async fn without_descriptors_nothing_is_unhealthy() {
    let listener = TcpListener::bind((LOOPBACK, 0)).expect("a port");
    let open = listener.local_addr().expect("its address").to_string();
    let binary = env!("CARGO_BIN_EXE_healthcheck-operator");
    let mut unknown = 0;
    for limit in 4..=24 {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec {binary} probe tcp {open}")]);
        let output = finish(shell).await;
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!out.contains("unhealthy"), "with {limit} descriptors: {out}");
        unknown += usize::from(output.status.code() == Some(3) && out.contains("no file descriptor left"));
        if limit == 24 {
            assert_eq!((output.status.code(), &*out), (Some(0), "healthy\n"));
        }
    }
    assert!(unknown > 0, "no limit left too few descriptors for the socket alone");
}

//! Flags, names and exit codes.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::ensure;
use tokio::net::TcpStream;

use crate::checks::{Files, SOON};
use crate::health_checker::{Checker, failed, is_good, log_file};
use crate::support::operator::{BINARY, command};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::targets::TcpTarget;
use crate::support::wait::{wait_until, wait_while};

const README: &str = include_str!("../../../README.md");

/// Runs a program to its end: its exit code, and both its outputs.
async fn run(program: &Path, args: &[&str]) -> anyhow::Result<(i32, String)> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await??;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    Ok((output.status.code().unwrap_or(-1), stdout + &stderr))
}

#[tokio::test]
async fn a_bad_flag_names_itself_and_the_mend() -> anyhow::Result<()> {
    let taken = TcpTarget::start().await?;
    let taken = taken.address().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--listener", "127.0.0.1:0"], &["at least one --port or --script"]),
        (&["--port", "0"], &["'0'", "--port", "1..=65535"]),
        (&["--port", "70000"], &["'70000'", "--port", "1..=65535"]),
        (&["--port", "-1"], &["-1"]),
        (&["--port", "http"], &["'http'", "--port"]),
        (&["--port"], &["--port", "a value is required"]),
        (&["--port", "80", "--listener", "5500"], &["'5500'", "--listener", "want ADDRESS:PORT"]),
        (&["--port", "80", "--listener", "0.0.0.0:65536"], &["--listener", "0 to 65535"]),
        (&["--port", "80", "--listener", ""], &["--listener"]),
        (&["--port", "80", "--listener", "nosuchhost.invalid:80"], &["--listener nosuchhost.invalid:80", "no address"]),
        (&["--port", "80", "--listener", "192.0.2.1:80"], &["--listener 192.0.2.1:80", "no such address"]),
        (&["--port", "80", "--listener", &taken], &["--listener", "the port is in use"]),
        (&["--script", ""], &["--script", "names no program"]),
        (&["--script", "echo it's"], &["--script", "is not closed"]),
        (&["--script", "true", "--script-timeout", "0"], &["--script-timeout", "1..=86400"]),
        (&["--script", "true", "--script-timeout", "86401"], &["--script-timeout", "1..=86400"]),
        (&["--script", "true", "--script-timeout", "5s"], &["--script-timeout", "'5s'"]),
        (&["--port", "80", "--singleflight=perhaps"], &["--singleflight", "true or false"]),
        (&["--port", "80", "--log-level", "loud"], &["--log-level", "'loud'"]),
        (&["--prot", "80"], &["'--prot'", "'--port'"]),
        (&["--port", "80", "stray"], &["'stray'"]),
    ];
    for (flags, wanted) in cases {
        let ended = command("health-checker").args(*flags).run(SOON).await?;
        let told = String::from_utf8(ended.stderr)?;
        let told = told.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>().join("\n");
        assert_eq!(ended.status.code(), Some(2), "{flags:?}: {told}");
        assert!(told.starts_with("error: ") && !told.contains("panicked"), "{flags:?}: {told}");
        for part in *wanted {
            assert!(told.contains(part), "{flags:?}: {part} is missing in: {told}");
        }
    }
    let ended = command("health-checker").run(SOON).await?;
    let told = String::from_utf8(ended.stderr)?;
    assert!(ended.status.code() == Some(2) && told.contains("--port <PORT>"), "no flag at all is the help: {told}");
    Ok(())
}

#[tokio::test]
async fn near_misses_are_accepted() -> anyhow::Result<()> {
    let target = TcpTarget::start().await?;
    let port = target.port().to_string();
    for level in ["panic", "fatal", "error", "warning", "warn", "info", "debug", "trace", "DEBUG"] {
        let checker = Checker::start(&["--port", &port, "--log-level", level]).await?;
        assert!(is_good(&checker.get("/").await?), "{level}");
    }
    for flags in [
        &["--script-timeout", "1"][..],
        &["--script-timeout", "86400"],
        &["--script-timeout=7", "--script-timeout", "8"],
        &["-script-timeout=3", "-script", "true", "-singleflight"],
        &["--singleflight=false", "--script=true"],
        &["--singleflight=T"],
    ] {
        let checker = Checker::start(&[&["--port", &port], flags].concat()).await?;
        assert!(is_good(&checker.get("/").await?), "{flags:?}");
    }
    for (own, answer) in [("1", false), ("65535", false)] {
        let checker = Checker::start(&["--port", own]).await?;
        let seen = checker.get("/").await?;
        assert_eq!((is_good(&seen), failed(&seen)), (answer, Some(format!("port {own}").as_str())));
    }
    Ok(())
}

#[tokio::test]
async fn it_listens_where_it_is_told() -> anyhow::Result<()> {
    for host in ["", "localhost", "0.0.0.0", "127.0.0.1"] {
        let port = free_port();
        // The last one counts, as in the original.
        let (first, last) = ("127.0.0.1:0", format!("{host}:{port}"));
        let args = ["health-checker", "--script", "true", "--listener", first, "--listener", &last].map(str::to_owned);
        let process = Process::start(Path::new(BINARY), &args, &[], &log_file())?;
        let url = format!("http://127.0.0.1:{port}/");
        let look = || async { anyhow::Ok(reqwest::get(&url).await?.text().await?) };
        let body = wait_while(|| process.check_alive(), &url, SOON, look).await?;
        assert_eq!(body, "OK", "{host}");
    }
    Ok(())
}

/// The original documented 5000 and took 5500.
#[tokio::test]
async fn the_default_listener_is_the_documented_one() -> anyhow::Result<()> {
    let (code, help) = run(Path::new(BINARY), &["health-checker", "--help"]).await?;
    assert!(code == 0 && help.contains("[default: 0.0.0.0:5500]"), "{help}");
    assert!(README.contains("0.0.0.0:5500"));
    let args = ["health-checker", "--script", "true"].map(str::to_owned);
    let process = Process::start(Path::new(BINARY), &args, &[], &log_file())?;
    // It says so either way, where somebody else of this machine has the port too.
    wait_until("the address in the log", SOON, || async {
        let log = process.output();
        ensure!(log.contains("address=0.0.0.0:5500") || log.contains("listen on --listener 0.0.0.0:5500"), "{log}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn by_the_name_of_the_original_it_is_the_original() -> anyhow::Result<()> {
    let files = Files::new();
    let version = format!("health-checker version {}\n", env!("CARGO_PKG_VERSION"));
    for name in ["health-checker", "health-checker_linux_amd64"] {
        let program = files.file(name);
        symlink(BINARY, &program)?;
        for flag in ["--version", "-version", "-v", "-V"] {
            assert_eq!(run(&program, &[flag]).await?, (0, version.clone()), "{name} {flag}");
        }
        for flag in ["--help", "-help", "-h"] {
            let (code, help) = run(&program, &[flag]).await?;
            assert!(code == 0 && help.contains("Usage: health-checker [OPTIONS]"), "{name} {flag}: {help}");
            for flag in ["--port", "--script", "--script-timeout", "--singleflight", "--listener", "--log-level"] {
                assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}[")), "{flag}: {help}");
            }
        }
        let port = free_port();
        let target = TcpTarget::start().await?;
        let args = ["-listener", &format!("127.0.0.1:{port}"), "-port", &target.port().to_string()].map(str::to_owned);
        let process = Process::start(&program, &args, &[], &log_file())?;
        let place = ("127.0.0.1", port);
        wait_while(|| process.check_alive(), "the listener", SOON, || TcpStream::connect(place)).await?;
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/")).await?;
        assert_eq!((answer.status().as_u16(), answer.text().await?.as_str()), (200, "OK"));
        assert_eq!(process.stop()?.code(), Some(0));
    }
    assert_eq!(run(Path::new(BINARY), &["health-checker", "--version"]).await?, (0, version));
    Ok(())
}

//! What the environment says: settings in place of flags, and whether there is colour.

use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::checks::{Files, SOON, check, quick_http, wait_printed};
use crate::support::operator::{BINARY, command};
use crate::support::ports::free_port;
use crate::support::targets::HttpTarget;
use crate::support::wait::wait_until;

const ESCAPE: char = '\u{1b}';
const OK: &str = "  targets: [{name: t, probe: {script: {command: ['true']}}}]";

/// Every kind of flag once: a path, an address, a number, a choice, a switch, a list and one of the log.
#[tokio::test]
async fn variables_do_what_their_flags_do() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    target.set_status(500);
    let files = Files::with(&[quick_http("web", target.port())]);
    let operator = command("standalone")
        .env("HEALTHCHECK_OPERATOR_FILENAME", files.path())
        .env("HEALTHCHECK_OPERATOR_UNHEALTHY_CODE", "418")
        .env("HEALTHCHECK_OPERATOR_DETAILS", "none")
        .env("HEALTHCHECK_OPERATOR_DISABLE_HEALTH", "true")
        .env("HEALTHCHECK_OPERATOR_ACCESS_LOG_SKIP", "/quiet,/healthz")
        .env("HEALTHCHECK_OPERATOR_LOG_FORMAT", "json")
        .env("HEALTHCHECK_OPERATOR_LOG_LEVEL", "info,access=debug")
        .serve()?;
    let answer = operator.wait_get("/healthz?verbose", SOON, |answer| answer.status == 418).await?;
    ensure!(answer.body.trim() == "Unhealthy", "details none: {}", answer.body);
    ensure!(operator.get("/__health").await?.status == 404);
    wait_printed(&operator, r#"{"timestamp":"#).await?;
    // Two addresses of ours, in place of the harness's own flags.
    let (public, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let mut other = tokio::process::Command::new(BINARY)
        .args(["standalone", "--unhealthy-code", "420"])
        .env("HEALTHCHECK_OPERATOR_FILENAME", files.path())
        .env("HEALTHCHECK_OPERATOR_LISTEN", &public)
        .env("HEALTHCHECK_OPERATOR_ADMIN_LISTEN", &admin)
        .env("HEALTHCHECK_OPERATOR_UNHEALTHY_CODE", "418")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    wait_until("the flag to win over the variable", SOON, || async {
        let seen = reqwest::get(format!("http://{public}/healthz")).await?.status().as_u16();
        ensure!(seen == 420, "{seen}");
        ensure!(reqwest::get(format!("http://{admin}/livez")).await?.status().is_success());
        anyhow::Ok(())
    })
    .await
    .with_context(|| format!("ended: {:?}", other.try_wait()))
}

#[tokio::test]
async fn a_wrong_variable_is_refused_with_the_flags_name() -> anyhow::Result<()> {
    for (variable, value, flag) in [
        ("HEALTHCHECK_OPERATOR_UNHEALTHY_CODE", "99", "--unhealthy-code"),
        ("HEALTHCHECK_OPERATOR_LISTEN", "nowhere", "--listen"),
        ("HEALTHCHECK_OPERATOR_DISABLE_HEALTH", "perhaps", "--disable-health"),
    ] {
        let ended = command("standalone").env(variable, value).run(SOON).await?;
        let told = String::from_utf8(ended.stderr)?;
        ensure!(ended.status.code() == Some(2) && told.contains(flag) && told.contains(value), "{variable}: {told}");
    }
    Ok(())
}

/// What a command prints, on a terminal of its own or into a pipe.
async fn printed(line: &[&str], terminal: bool, environment: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut command = if terminal {
        let mut command = tokio::process::Command::new("script");
        let quoted: Vec<_> = [&[BINARY], line].concat().iter().map(|word| format!("'{word}'")).collect();
        command.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
        command
    } else {
        let mut command = tokio::process::Command::new(BINARY);
        command.args(line);
        command
    };
    // Where CI is set, clap takes any terminal for one that has colours.
    command.env_remove("CI");
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
    command.envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(SOON, command.output()).await??;
    Ok(String::from_utf8(ended.stdout)? + &String::from_utf8(ended.stderr)?)
}

#[tokio::test]
async fn there_is_colour_on_a_terminal_alone_and_none_where_it_is_not_wanted() -> anyhow::Result<()> {
    let files = Files::with(&[check("a", OK)]);
    let path = files.path().display().to_string();
    // One line of the log, and an error of the command line.
    let log: &[&str] = &["standalone", "--once", "-f", &path];
    let error: &[&str] = &["probe", "--no-such-flag"];
    for (line, word) in [(log, "health changed"), (error, "unexpected argument")] {
        for (terminal, environment, coloured) in [
            (true, &[][..], true),
            // Set to nothing is not set (no-color.org).
            (true, &[("NO_COLOR", "")], true),
            (true, &[("NO_COLOR", "1")], false),
            (true, &[("TERM", "dumb")], false),
            (false, &[], false),
        ] {
            let text = printed(line, terminal, environment).await?;
            let at = format!("{line:?}, a terminal: {terminal}, {environment:?}: {text:?}");
            assert!(text.contains(word), "{at}");
            assert_eq!(text.contains(ESCAPE), coloured, "{at}");
        }
    }
    // What is for machines is for them on a terminal too.
    let json = printed(&[log, &["--log-format", "json", "-o", "json"]].concat(), true, &[]).await?;
    assert!(json.contains("health changed") && !json.contains(ESCAPE), "{json:?}");
    Ok(())
}

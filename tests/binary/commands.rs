//! Every other command: its words and its exit code.

use std::process::Output;

use serde_json::Value;

use crate::checks::{Files, SOON, check, without_reader};
use crate::support::operator::command;
use crate::support::ports::free_port;
use crate::support::targets::{HttpTarget, TcpTarget};

/// Runs `line`, parted at spaces, and gives its code, standard output and standard error.
async fn run(line: &str) -> anyhow::Result<(i32, String, String)> {
    let words: Vec<&str> = line.split(' ').collect();
    run_words(&words).await
}

async fn run_words(words: &[&str]) -> anyhow::Result<(i32, String, String)> {
    let (first, rest) = words.split_first().expect("a command");
    let Output { status, stdout, stderr } = command(first).args(rest).run(SOON).await?;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    assert!(!stderr.contains("panicked"), "{stderr}");
    Ok((status.code().unwrap_or(-1), stdout, stderr))
}

#[tokio::test]
async fn a_probe_says_healthy_or_why_not() -> anyhow::Result<()> {
    let (tcp, http) = (TcpTarget::start().await?, HttpTarget::start().await?);
    let closed = free_port();
    let (at, url) = (tcp.address(), format!("http://{}/path?q=secret", http.address()));
    let shown = format!("http://{}/path", http.address());
    let cases = [
        (format!("probe tcp {at}"), 0, "healthy".to_owned()),
        (format!("probe tcp --full {at}"), 0, "healthy".to_owned()),
        (
            format!("probe tcp 127.0.0.1:{closed}"),
            1,
            format!("unhealthy; dial tcp 127.0.0.1:{closed}: connection refused"),
        ),
        (format!("probe http GET {url} 200"), 0, "healthy".to_owned()),
        (format!("probe http HEAD {url} 100,200-299"), 0, "healthy".to_owned()),
        (
            format!("probe http GET {url} 204,300-399"),
            1,
            "unhealthy; unexpected status code; got '200', want '204,300-399'".to_owned(),
        ),
        (
            format!("probe http GET http://127.0.0.1:{closed}/ 200"),
            1,
            format!("unhealthy; GET http://127.0.0.1:{closed}/: connection refused"),
        ),
        ("probe script -- true".to_owned(), 0, "healthy".to_owned()),
        ("probe script -- false".to_owned(), 1, "unhealthy; exit code 1".to_owned()),
        (
            "probe script -- /nonexistent/program".to_owned(),
            3,
            "unknown; '/nonexistent/program' could not be started: No such file or directory (os error 2)".to_owned(),
        ),
    ];
    for (line, code, expected) in cases {
        let (seen, stdout, stderr) = run(&line).await?;
        assert_eq!((seen, stdout.trim_end(), stderr.as_str()), (code, expected.as_str(), ""), "{line}");
    }
    assert_eq!(tcp.connections(), 1, "a half-open probe is not accepted, a full one is");
    http.set_hangs(true);
    let (code, stdout, _) = run(&format!("probe http GET {url} 200 --timeout 300ms")).await?;
    assert_eq!(code, 1);
    assert!(stdout.starts_with("unhealthy; ") && stdout.contains("300ms") && stdout.contains(&shown), "{stdout}");
    assert!(!stdout.contains("secret"), "{stdout}");
    Ok(())
}

#[tokio::test]
async fn a_script_that_is_too_slow_is_killed_with_all_it_started() -> anyhow::Result<()> {
    let files = Files::new();
    let lives = files.file("lives");
    // It would write two seconds later, were it left alone; the second script takes that long to be killed.
    let script = format!("(sleep 2; echo alive > {}) & sleep 30", lives.display());
    let (code, stdout, _) = run_words(&["probe", "script", "--timeout", "500ms", "--", "sh", "-c", &script]).await?;
    assert_eq!((code, stdout.as_str()), (1, "unhealthy; no answer in 500ms (Script)\n"));
    let (code, stdout, _) =
        run_words(&["probe", "script", "--", "sh", "-c", "sleep 2.5; echo over >&2; exit 0", "--timeout", "9s"])
            .await?;
    assert!(code == 1 && stdout.contains("no answer in 2s"), "{stdout}");
    assert!(!lives.exists(), "a child of the script outlived it");
    Ok(())
}

#[tokio::test]
async fn a_probe_tells_machines_the_same() -> anyhow::Result<()> {
    let http = HttpTarget::start().await?;
    http.set_status(503);
    let (code, stdout, _) = run(&format!("probe http GET http://{}/ 200 -o json", http.address())).await?;
    let told: Value = serde_json::from_str(&stdout)?;
    assert_eq!(
        (code, &told["healthy"], &told["reason"]),
        (1, &Value::Bool(false), &"UnexpectedStatus".into()),
        "{told}"
    );
    assert_eq!(told["error"], "unexpected status code; got '503', want '200'");
    let (code, stdout, _) = run("probe script -o json -- /nonexistent/program").await?;
    let told: Value = serde_json::from_str(&stdout)?;
    assert_eq!((code, &told["healthy"], &told["reason"]), (3, &Value::Null, &"CannotStart".into()), "{told}");
    let (code, stdout, _) = run(&format!("probe http GET http://{}/ 200 -o yaml", http.address())).await?;
    let told: Value = serde_saphyr::from_str(&stdout)?;
    assert_eq!((code, &told["healthy"], told["outcome"].as_str()), (1, &Value::Bool(false), Some("failure")), "{told}");
    assert!(stdout.lines().count() > 3 && !stdout.ends_with("\n\n"), "{stdout}");
    Ok(())
}

#[tokio::test]
async fn validate_says_ok_or_every_fault() -> anyhow::Result<()> {
    let files = Files::new();
    files.write(
        "a.yaml",
        &[
            check("one", "  targets: [{name: t, host: db, port: 1}]"),
            check("two", "  targets: [{name: t, service: {name: web}}]"),
        ],
    );
    let good = files.file("a.yaml").display().to_string();
    let (code, stdout, stderr) = run(&format!("validate -f {good}")).await?;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("ok shop/one ({good}:1)\nok shop/two ({good}:7)\n"));
    let (code, stdout, stderr) = run(&format!("validate --standalone -f {good}")).await?;
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.starts_with(&format!("{good}:11:23: spec.targets[0].service: ")), "{stderr}");

    files.write("b.yaml", &[check("bad", "  interval: 1s\n  timeout: 5s\n  targets: []")]);
    let bad = files.file("b.yaml").display().to_string();
    let (code, stdout, stderr) = run(&format!("validate -f {}", files.path().display())).await?;
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    let places: Vec<_> = stderr.lines().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    assert_eq!(places, [format!("{bad}:6:3: spec.timeout"), format!("{bad}:7:3: spec.targets")]);
    let (code, stdout, stderr) = run(&format!("validate -o json -f {bad}")).await?;
    let told: Value = serde_json::from_str(&stdout)?;
    assert_eq!((code, stderr.as_str(), &told["valid"]), (2, "", &Value::Bool(false)));
    assert_eq!(
        (&told["faults"][0]["line"], &told["faults"][0]["fieldPath"]),
        (&6.into(), &"spec.timeout".into()),
        "{told}"
    );

    let (code, _, stderr) = run("validate -f /nonexistent.yaml").await?;
    assert_eq!(
        (code, stderr.as_str()),
        (2, "/nonexistent.yaml: cannot be read: No such file or directory (os error 2)\n")
    );
    Ok(())
}

#[tokio::test]
async fn the_commands_that_only_print() -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    for line in ["version", "--version"] {
        assert_eq!(run(line).await?, (0, format!("healthcheck-operator {version}\n"), String::new()));
    }
    let (code, crds, _) = run("crds").await?;
    let file = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crds/healthchecks.healthcheck-operator.dev.yaml"
    ))?;
    assert!(code == 0 && crds == file, "crds/ is what `crds` prints");
    let (code, help, _) = run("--help").await?;
    assert_eq!(code, 0);
    for command in ["crds", "probe", "runner", "standalone", "health-checker", "completions", "validate", "version"] {
        assert!(help.contains(&format!("\n  {command}")), "{command}: {help}");
    }
    Ok(())
}

#[tokio::test]
async fn completions_are_what_the_shell_understands() -> anyhow::Result<()> {
    let (code, script, _) = run("completions bash").await?;
    assert_eq!(code, 0);
    let files = Files::new();
    std::fs::write(files.file("completions"), script)?;
    // The shell itself completes `healthcheck-operator stand`, by the function that the script registers.
    let ask = r#". "$0"; set -- $(complete -p healthcheck-operator); while [ "$1" != -F ]; do shift; done
COMP_WORDS=(healthcheck-operator stand); COMP_CWORD=1; "$2" healthcheck-operator stand healthcheck-operator; echo "${COMPREPLY[@]}""#;
    let told = std::process::Command::new("bash").args(["-c", ask]).arg(files.file("completions")).output()?;
    assert_eq!(String::from_utf8(told.stdout)?, "standalone\n", "{}", String::from_utf8_lossy(&told.stderr));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = run(&format!("completions {shell}")).await?;
        assert!(code == 0 && script.contains("standalone"), "{shell}");
    }
    Ok(())
}

/// Who reads the first line and goes (`| head -1`) is no reason to panic.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_panic() -> anyhow::Result<()> {
    let files = Files::with(&[check("one", "  targets: [{name: t, probe: {script: {command: ['true']}}}]")]);
    let file = files.file("checks.yaml").display().to_string();
    for (line, code) in [
        ("version".to_owned(), 0),
        ("crds".to_owned(), 0),
        ("completions bash".to_owned(), 0),
        (format!("validate -f {file}"), 0),
        (format!("standalone --once -f {file}"), 0),
        ("probe script -- true".to_owned(), 0),
        ("probe script -- false".to_owned(), 1),
    ] {
        let args: Vec<_> = line.split(' ').collect();
        let (ended, told) = without_reader(&args).await?;
        assert!(!told.contains("panicked"), "{line}: {told}");
        assert_eq!(ended, Some(code), "{line}: {told}");
    }
    Ok(())
}

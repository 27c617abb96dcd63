//! What users get wrong: each gives one clear line that names the thing and the mend, and exit code 2; never a panic.

use crate::checks::{Files, SOON, check, standalone};
use crate::support::operator::command;

const TARGET: &str = "  targets: [{name: t, host: 127.0.0.1, port: 1}]";

/// A file that is refused, and the line that says so, after the file's name.
struct Refused {
    what: &'static str,
    text: Vec<u8>,
    line: &'static str,
}

fn refused(what: &'static str, text: impl Into<Vec<u8>>, line: &'static str) -> Refused {
    Refused { what, text: text.into(), line }
}

fn spec(line: &str) -> String {
    check("web", &format!("{line}\n{TARGET}"))
}

fn bomb() -> String {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..9 {
        let list = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    text
}

fn matrix() -> Vec<Refused> {
    vec![
        refused("malformed", check("web", "  targets: [{name: t"), ":5:13: not YAML: unclosed bracket '{'"),
        refused("tab", "kind:\n\t- x\n", ":2:2: not YAML: tabs disallowed"),
        refused(
            "unknown field",
            spec("  intervall: 1s"),
            ":5:3: spec.intervall: unknown field; did you mean interval?",
        ),
        refused(
            "field in the wrong place",
            check("web", "  targets: [{name: t, host: h, port: 1, path: /}]"),
            ":5:41: spec.targets[0].path: unknown field here: it belongs to spec.targets[0].probe.http",
        ),
        refused(
            "wrong unit",
            spec("  interval: 5 minutes"),
            ":5:3: spec.interval: must be a duration: numbers with the units h, m, s or ms, such as 10s, 1m30s or 500ms; got '5 minutes'",
        ),
        refused("no unit", spec("  interval: 5"), ":5:3: spec.interval: must be "),
        refused("wrong type", spec("  failureThreshold: three"), ":5:3: spec.failureThreshold: must be "),
        refused(
            "impossible combination",
            spec("  interval: 1s\n  timeout: 2s"),
            ":6:3: spec.timeout: timeout must not be above interval: lower timeout or raise interval",
        ),
        refused("no target", check("web", "  targets: []"), ":5:3: spec.targets: must have from 1 to 64 items"),
        refused("two probes at once", spec("  probe: {tcp: {}, http: {}}"), ":5:3: spec.probe: "),
        refused(
            "duplicated key",
            spec("  interval: 1s\n  interval: 2s"),
            ":6:3: not YAML: interval is written twice in one mapping: keep one of them",
        ),
        refused("alias bomb", bomb(), ":5:38: not YAML: its aliases (*name) expand to too much: write the values out"),
        refused("tower", "[".repeat(100_000), ":1:256: not YAML: nested too deeply"),
        refused("not UTF-8", b"kind: \xff\xfe\n", ": cannot be read: not UTF-8 text"),
        refused("binary", vec![0; 64], ":1:1: not YAML: "),
        refused("huge", vec![b'#'; 64 * 1024 * 1024 + 1], ": cannot be read: larger than 64 MiB: split it"),
        refused("one long scalar", vec![b'x'; 8 * 1024 * 1024], ":1:1: "),
        refused("other kind", "apiVersion: v1\nkind: Pod\n", ":2:1: kind: Pod is not read here: only HealthCheck is"),
        refused(
            "other version",
            spec("  interval: 1s").replace("v1alpha1", "v1"),
            ":1:1: apiVersion: must be healthcheck-operator.dev/v1alpha1, not healthcheck-operator.dev/v1",
        ),
        refused(
            "needs a cluster",
            check("web", "  targets: [{name: t, service: {name: web}}]"),
            ":5:23: spec.targets[0].service: a service target needs a cluster to look its endpoints up: use host when running from files",
        ),
        refused("no such member", check("web", "  targets: [{name: t, healthCheck: {name: web}}]"), ":5:"),
    ]
}

/// What is wrong with how a bad file was told, if anything is.
async fn complaint(bad: &Refused, mode: &[&str]) -> anyhow::Result<Option<String>> {
    let files = Files::new();
    let file = files.file("checks.yaml");
    std::fs::write(&file, &bad.text)?;
    let ended = standalone(&file).args(mode).run(SOON).await?;
    let told = String::from_utf8(ended.stderr)?;
    let begin = format!("error: {}{}", file.display(), bad.line);
    // A line that people read in a terminal: the file's content is not poured into it.
    let good = ended.status.code() == Some(2)
        && told.starts_with(&begin)
        && told.lines().count() == 1
        && told.len() < 600
        && ended.stdout.is_empty();
    let shown: String = told.chars().take(600).collect();
    Ok((!good).then(|| format!("{}: {}, wanted {begin}; told {shown}", bad.what, ended.status)))
}

#[tokio::test]
async fn a_bad_file_is_one_line_with_its_place_and_the_mend() -> anyhow::Result<()> {
    let mut complaints = Vec::new();
    for bad in matrix() {
        for mode in [&["--once"][..], &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]] {
            complaints.extend(complaint(&bad, mode).await?);
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_bad_flag_names_itself_and_the_mend() -> anyhow::Result<()> {
    let files = Files::with(&[check("web", TARGET)]);
    let file = files.file("checks.yaml").display().to_string();
    let cases: &[(&[&str], &[&str])] = &[
        (&["standalone", "-f"], &["--filename"]),
        (&["standalone", "-f", "/nonexistent.yaml"], &["/nonexistent.yaml: cannot be read: No such file or directory"]),
        (&["standalone", "-f", &file, "--lissen", ":1"], &["'--lissen'", "'--listen'"]),
        (&["standalone", "-f", &file, "--listen", "nowhere"], &["'nowhere'", "--listen", "like 127.0.0.1:8080"]),
        (&["standalone", "-f", &file, "--listen", "127.0.0.1:70000"], &["'127.0.0.1:70000'", "--listen"]),
        (&["standalone", "-f", &file, "--max-in-flight", "0"], &["--max-in-flight", "1..=65536"]),
        (&["standalone", "-f", &file, "--max-in-flight", "many"], &["--max-in-flight", "'many'"]),
        (&["standalone", "-f", &file, "--max-in-flight-per-host", "-1"], &["-1"]),
        (
            &["standalone", "-f", &file, "--unhealthy-code", "1000"],
            &["--unhealthy-code", "want a status from 200 to 599"],
        ),
        (&["standalone", "-f", &file, "--details", "all"], &["--details", "none, summary, full"]),
        (&["standalone", "-f", &file, "-o", "json"], &["--once"]),
        (&["standalone", "-f", &file, "--tls-cert", "x.pem"], &["--tls-key"]),
        (
            &["standalone", "-f", &file, "--tls-cert", "x.pem", "--tls-key", "y.pem"],
            &["--tls-cert", "x.pem", "No such file"],
        ),
        (&["standalone", "-f", &file, "--api-token-file", "none"], &["--api-token-file", "none", "No such file"]),
        (
            &["standalone", "-f", &file, "--envoy-listen", ":8083"],
            &["--envoy-listen [::]:8083", "--api-token-file", "127.0.0.1:8083"],
        ),
        (
            &["standalone", "-f", &file, "--envoy-listen", "0.0.0.0:8083"],
            &["--envoy-listen 0.0.0.0:8083", "--api-token-file"],
        ),
        (&["standalone", "-f", &file, "--log-level", "loud"], &["--log-level", "error, warn, info"]),
        (&["standalone", "-f", &file, "--listen", "192.0.2.1:1"], &["--listen 192.0.2.1:1", "no such address"]),
        (&["standelone"], &["standelone", "standalone"]),
        (&["validate"], &["--filename"]),
        (&["probe", "tcp", "localhost"], &["the port is missing", "HOST:PORT"]),
        (&["probe", "tcp", "http://localhost:80"], &["no scheme here", "HOST:PORT"]),
        (
            &["probe", "http", "GET", "https://localhost", "200", "--ca-file", &file],
            &["--ca-file", "holds no certificate in PEM"],
        ),
        (&["probe", "tcp", "::1:80"], &["an IPv6 address goes in brackets"]),
        (&["probe", "tcp", "127.0.0.1:0"], &["1 to 65535"]),
        (&["probe", "http", "GET", "localhost", "200"], &["the scheme is missing"]),
        (&["probe", "http", "FETCH", "http://localhost", "200"], &["GET, HEAD, POST"]),
        (&["probe", "http", "GET", "http://localhost", "2xx"], &["codes and ranges"]),
        (&["probe", "http", "GET", "http://localhost"], &["STATUS"]),
        (&["probe", "tcp", "127.0.0.1:1", "--timeout", "5"], &["--timeout", "10s"]),
        (&["probe", "tcp", "127.0.0.1:1", "--timeout", "0s"], &["--timeout", "such as 2s"]),
        (&["probe", "script"], &["CMD"]),
        (&["completions", "csh"], &["'csh'", "bash"]),
    ];
    for (words, wanted) in cases {
        let (first, rest) = words.split_first().expect("a command");
        let ended = command(first).args(rest).run(SOON).await?;
        let told = String::from_utf8(ended.stderr)?;
        assert_eq!(ended.status.code(), Some(2), "{words:?}: {told}");
        assert!(told.starts_with("error: ") && !told.contains("panicked"), "{words:?}: {told}");
        for part in *wanted {
            assert!(told.contains(part), "{words:?}: {part} is missing in: {told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flag_from_the_environment_is_refused_alike() -> anyhow::Result<()> {
    let files = Files::with(&[check("web", TARGET)]);
    let ended = standalone(files.path()).env("HEALTHCHECK_OPERATOR_MAX_IN_FLIGHT", "none").run(SOON).await?;
    let told = String::from_utf8(ended.stderr)?;
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(told.contains("'none'") && told.contains("--max-in-flight"), "{told}");
    Ok(())
}

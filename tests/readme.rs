//! The console sessions of README.md happen as they are written.
//!
//! `cluster…` sessions need an API server: `tests/apiserver` has them.

#[path = "support/mod.rs"]
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};

use support::console::{Block, Step, blocks};
use support::operator::BINARY;
use support::process::Process;
use support::programs::skip;
use support::wait::wait_until;
use support::{netns, run_dir};

const README: &str = include_str!("../README.md");
const EXAMPLE: &str = "examples/quickstart.yaml";
/// Only a failure takes as long.
const SOON: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    // The README's ports are 8080 and 8081: they are free in a network of our own, and only there for certain.
    let network = if args.list { Ok(()) } else { netns::enter() };
    if let Err(why) = network.and_then(|()| has_curl()) {
        return if skip(&format!("{why:#}")) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let conclusion = libtest_mimic::run(&args, trials());
    run_dir::finish(conclusion.has_failed());
    conclusion.exit_code()
}

/// The sessions use it.
fn has_curl() -> anyhow::Result<()> {
    let found = std::process::Command::new("curl").arg("--version").output();
    found.map(drop).context("cannot run `curl`, which the README's sessions use")
}

fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> anyhow::Result<()>| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    vec![
        trial("parser::finds_blocks", finds_blocks),
        trial("parser::refuses_what_nobody_would_run", refuses_what_nobody_would_run),
        trial("parser::an_ellipsis_matches_anything", an_ellipsis_matches_anything),
        trial("parser::runs_a_step", runs_a_step),
        trial("readme::every_session_is_run_somewhere", every_session_is_run_somewhere),
        trial("readme::cli", cli),
        trial("readme::quickstart", quickstart),
    ]
}

fn session(name: &str) -> anyhow::Result<Block> {
    let found = blocks(README)?.into_iter().find(|block| block.name == name);
    found.with_context(|| format!("README.md has no session '{name}'"))
}

fn play(block: &Block) -> anyhow::Result<()> {
    for step in &block.steps {
        step.check(&step.run(Path::new(BINARY))?).with_context(|| format!("README.md:{}", block.line))?;
    }
    Ok(())
}

fn every_session_is_run_somewhere() -> anyhow::Result<()> {
    for block in blocks(README)? {
        let known = matches!(block.name.as_str(), "quickstart" | "cli") || block.name.starts_with("cluster");
        ensure!(known, "README.md:{}: no test runs the session '{}'", block.line, block.name);
    }
    Ok(())
}

fn cli() -> anyhow::Result<()> {
    play(&session("cli")?)
}

/// The command above the session, by the built binary instead of `cargo run`.
fn quickstart() -> anyhow::Result<()> {
    let started = format!("cargo run --release -- standalone -f {EXAMPLE}\n");
    ensure!(README.contains(&started), "README.md does not start the quickstart by: {started}");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE).display().to_string();
    let arguments = ["standalone", "-f", &example].map(str::to_owned);
    let log = run_dir::sub_dir("operators").join("quickstart.log");
    let operator = Process::start(Path::new(BINARY), &arguments, &[], &log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(wait_until("the quickstart to be healthy", SOON, || async {
        operator.check_alive()?;
        let answer = reqwest::get("http://localhost:8080/healthz?verbose").await?;
        let (healthy, body) = (answer.status().is_success(), answer.text().await?);
        ensure!(healthy, "{body}");
        anyhow::Ok(())
    }))?;
    play(&session("quickstart")?)?;
    operator.check_alive()
}

fn step(command: &str, expected: &[&str]) -> Step {
    Step { command: command.to_owned(), expected: expected.iter().map(|line| (*line).to_owned()).collect() }
}

fn finds_blocks() -> anyhow::Result<()> {
    let document = "\
# Title

```sh
not for us
```

<!-- test: one -->
```console
$ first
a

  b
$ second \\
  more
```
<!-- test: two -->

```console
$ third
```
";
    let found = blocks(document)?;
    let expected = [
        Block {
            name: "one".to_owned(),
            line: 9,
            steps: vec![step("first", &["a", "", "  b"]), step("second \\\n  more", &[])],
        },
        Block { name: "two".to_owned(), line: 19, steps: vec![step("third", &[])] },
    ];
    ensure!(found == expected, "{found:#?}");
    Ok(())
}

fn refuses_what_nobody_would_run() -> anyhow::Result<()> {
    for (document, why) in [
        ("```console\n$ a\n```\n", "line 1: no `<!-- test: NAME -->`"),
        ("<!-- test: a -->\ntext\n```console\n$ a\n```\n", "line 2: not the console block"),
        ("<!-- test: a -->\n<!-- test: b -->\n", "line 2: no console block"),
        ("<!-- test: a -->\n", "the last `test:` comment"),
        ("<!-- test: a -->\n```console\n```\n", "line 2: the block has no command"),
        ("<!-- test: a -->\n```console\nout\n```\n", "line 3: output before"),
        ("<!-- test: a -->\n```console\n$ a\n", "line 2: the block does not end"),
        ("<!-- test: a -->\n```console\n$ a \\\n", "line 3: the command does not end"),
    ] {
        match blocks(document) {
            Ok(found) => bail!("{document:?} gave {found:?}"),
            Err(error) => ensure!(error.to_string().starts_with(why), "{document:?}: {error}"),
        }
    }
    Ok(())
}

fn an_ellipsis_matches_anything() -> anyhow::Result<()> {
    let good: &[(&[&str], &str)] = &[
        (&[], ""),
        (&["a"], "a\n"),
        (&["a"], "a  \n"),
        (&["a … c … e"], "a b c d e"),
        (&["…c"], "abcabc"),
        (&["a…"], "a"),
        (&["…"], ""),
        (&["…"], "a\nb\n"),
        (&["a", "…", "c", "…"], "a\nb\nc\n"),
        (&["é…ü"], "éßü"),
    ];
    for (expected, output) in good {
        step("x", expected).check(output)?;
    }
    let bad: &[(&[&str], &str)] = &[
        (&[], "a"),
        (&["a"], ""),
        (&["a"], "a\nb"),
        (&["a … c"], "a b d"),
        (&["a…b…c"], "acb"),
        (&["a", "…", "c"], "a\nb\n"),
        (&["a…b"], "a\nb"),
        (&["a", "b"], "b\na"),
    ];
    for (expected, output) in bad {
        ensure!(step("x", expected).check(output).is_err(), "{expected:?} matched {output:?}");
    }
    Ok(())
}

fn runs_a_step() -> anyhow::Result<()> {
    let both = step("echo out; echo err >&2; test -f Cargo.toml && echo here; healthcheck-operator version", &[]);
    let printed = both.run(Path::new(BINARY))?;
    ensure!(printed == format!("out\nerr\nhere\nhealthcheck-operator {}\n", env!("CARGO_PKG_VERSION")), "{printed}");
    Ok(())
}

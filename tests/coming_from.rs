//! What `docs/coming-from` says of ours is done as it is written. How its pages mark what, its README has.

#[path = "support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use support::console::{Block, blocks};
use support::operator::BINARY;
use support::process::Process;
use support::programs::skip;
use support::targets::{HttpTarget, TcpTarget};
use support::wait::{wait_until, wait_while};
use support::{netns, run_dir};

/// Only a failure takes as long.
const SOON: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args = Arguments::from_args();
    // The pages' ports are free in a network of our own, and only there for certain.
    let network = if args.list { Ok(()) } else { netns::enter() };
    let curl = || std::process::Command::new("curl").arg("--version").output().map(drop).context("cannot run `curl`");
    if let Err(why) = network.and_then(|()| curl()) {
        return if skip(&format!("{why:#}")) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // One after the other: they share the ports.
    let args = Arguments { test_threads: Some(1), ..args };
    let conclusion = libtest_mimic::run(&args, trials());
    run_dir::finish(conclusion.has_failed());
    conclusion.exit_code()
}

/// Every page there is, whoever wrote it.
fn trials() -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coming-from");
    let pages = std::fs::read_dir(folder).expect("the pages").map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<_> = pages.filter(|page| page.file_name().is_some_and(|name| name != "README.md")).collect();
    pages.sort();
    let trial = |page: PathBuf| {
        let name = page.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Trial::test(format!("coming_from::{name}"), move || {
            follow(&page).map_err(|error| Failed::from(format!("{}: {error:#}", page.display())))
        })
    };
    let parsed = Trial::test("parser::a_page_is_read_in_its_order", || {
        a_page_is_read_in_its_order().map_err(|error| Failed::from(format!("{error:#}")))
    });
    pages.into_iter().map(trial).chain([parsed]).collect()
}

/// One thing that a page tells to do.
#[derive(Debug, PartialEq, Eq)]
enum Act {
    File { name: String, text: String },
    Start { url: String, command: String },
    Play(Block),
    Backend { port: u16, word: String },
}

/// What `page` tells to do, with the line it stands in.
fn acts(page: &str) -> anyhow::Result<Vec<(usize, Act)>> {
    let mut acts = Vec::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let marked = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        let Some((word, rest)) = marked.and_then(|marked| marked.split_once(": ")) else {
            if line.starts_with("```") && line.len() > 3 {
                // Not ours: passed over to its end.
                lines.by_ref().find(|(line, _)| *line == "```").with_context(|| format!("line {number}: no end"))?;
            }
            continue;
        };
        let act = if word == "backend" {
            let (port, word) = rest.split_once(' ').with_context(|| format!("line {number}: want PORT WORD"))?;
            Act::Backend { port: port.parse()?, word: word.to_owned() }
        } else {
            let (fence, _) = lines.next().with_context(|| format!("line {number}: no block"))?;
            ensure!(fence.starts_with("```"), "line {number}: no block right after it");
            let text: Vec<_> = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```").collect();
            let text = text.join("\n") + "\n";
            match word {
                "file" => Act::File { name: rest.to_owned(), text },
                "start" => Act::Start { url: rest.to_owned(), command: text.trim().to_owned() },
                "test" => {
                    let session = blocks(&format!("{line}\n{fence}\n{text}```\n"))?;
                    Act::Play(session.into_iter().next().with_context(|| format!("line {number}: no session"))?)
                }
                _ => bail!("line {number}: '{word}' is none of file, start, test and backend"),
            }
        };
        acts.push((number, act));
    }
    Ok(acts)
}

/// A page's directory, its backends, and the program it has started.
struct Scene {
    directory: TempDir,
    web: HttpTarget,
    database: TcpTarget,
    started: Option<Process>,
}

fn follow(page: &Path) -> anyhow::Result<()> {
    let acts = acts(&std::fs::read_to_string(page)?)?;
    ensure!(acts.iter().any(|(_, act)| matches!(act, Act::Play(_))), "it shows nothing");
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut scene = Scene {
            directory: tempfile::tempdir()?,
            web: HttpTarget::start_on(at(9000)).await?,
            database: TcpTarget::start_on(at(5432)).await?,
            started: None,
        };
        for (line, act) in &acts {
            scene.act(act).await.with_context(|| format!("line {line}"))?;
        }
        anyhow::Ok(())
    })
}

impl Scene {
    async fn act(&mut self, act: &Act) -> anyhow::Result<()> {
        match act {
            Act::File { name, text } => Ok(std::fs::write(self.directory.path().join(name), text)?),
            Act::Start { url, command } => self.start(url, command).await,
            Act::Play(block) => self.play(block).await,
            Act::Backend { port: 9000, word } => {
                self.web.set_status(word.parse()?);
                Ok(())
            }
            Act::Backend { port: 5432, word } if word == "closed" => {
                self.database.close().await;
                Ok(())
            }
            Act::Backend { port: 5432, word } if word == "open" => Ok(self.database.reopen().await?),
            Act::Backend { port, word } => bail!("there is no backend {port} that could be '{word}'"),
        }
    }

    async fn start(&mut self, url: &str, command: &str) -> anyhow::Result<()> {
        // Its ports are free before the next one begins.
        if let Some(started) = self.started.take() {
            started.stop()?;
        }
        let folder = Path::new(BINARY).parent().context("the binary's directory")?;
        let script =
            format!("cd {} && PATH={}:$PATH && exec {command}", self.directory.path().display(), folder.display());
        let log = run_dir::sub_dir("operators").join("coming_from.log");
        let started = Process::start(Path::new("sh"), &["-c".to_owned(), script], &[], &log)?;
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        let answered = || async { anyhow::Ok(http.get(url).send().await?.status()) };
        wait_while(|| started.check_alive(), url, SOON, answered).await?;
        self.started = Some(started);
        Ok(())
    }

    /// Verdicts take their time: every command is run until it prints what is written.
    async fn play(&self, block: &Block) -> anyhow::Result<()> {
        for step in &block.steps {
            wait_until("what is written", SOON, || async {
                step.check(&step.run_in(Path::new(BINARY), self.directory.path())?)
            })
            .await?;
        }
        Ok(())
    }
}

fn a_page_is_read_in_its_order() -> anyhow::Result<()> {
    let page = "# Page\n\n```yaml\ntheirs: <!-- file: no -->\n```\n<!-- file: a.yaml -->\n```yaml\na: 1\n```\n<!-- backend: 9000 503 -->\n\
                <!-- start: http://localhost/ -->\n```sh\nprogram -f a.yaml\n```\n<!-- test: it -->\n```console\n$ echo\n\n```\n";
    let acts = acts(page)?;
    let lines: Vec<_> = acts.iter().map(|(line, _)| *line).collect();
    ensure!(lines == [6, 10, 11, 15], "{acts:?}");
    ensure!(acts[0].1 == Act::File { name: "a.yaml".into(), text: "a: 1\n".into() }, "{acts:?}");
    ensure!(acts[1].1 == Act::Backend { port: 9000, word: "503".into() }, "{acts:?}");
    ensure!(matches!(&acts[2].1, Act::Start { command, .. } if command == "program -f a.yaml"), "{acts:?}");
    ensure!(matches!(&acts[3].1, Act::Play(block) if block.steps.len() == 1), "{acts:?}");
    for (page, why) in [
        ("<!-- file: a -->\ntext\n", "no block right after"),
        ("<!-- tset: a -->\n```console\n$ a\n```\n", "'tset' is none of"),
        ("```sh\nno end\n", "no end"),
    ] {
        let error = self::acts(page).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.contains(why), "{page}: {error}");
    }
    Ok(())
}

//! The console sessions of a document, as tests.
//!
//! A fenced `console` block right after the comment `<!-- test: NAME -->` is a session: `$ ` begins a command, the lines
//! up to the next are what it prints. A command that ends in `\` goes on in the next line. `…` in an expected line
//! stands for any text within it, and a line that is `…` alone for any lines, none included.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

const ANYTHING: char = '…';

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub name: String,
    /// Where its first command is, from 1.
    pub line: usize,
    pub steps: Vec<Step>,
}

/// A command and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    pub expected: Vec<String>,
}

/// The sessions of a document in Markdown.
///
/// # Errors
/// A `console` block that has no name (nobody would run it), no command, or text before its first command; a name
/// without a block; a block without an end.
pub fn blocks(document: &str) -> anyhow::Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut name: Option<String> = None;
    let mut lines = document.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(marked) = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->")) {
            ensure!(name.is_none(), "line {number}: no console block before the next `test:` comment");
            name = Some(marked.to_owned());
        } else if line == "```console" {
            let name =
                name.take().with_context(|| format!("line {number}: no `<!-- test: NAME -->` before the block"))?;
            blocks.push(Block { name, line: number + 1, steps: steps(&mut lines, number)? });
        } else {
            ensure!(name.is_none() || line.is_empty(), "line {number}: not the console block that the comment names");
        }
    }
    ensure!(name.is_none(), "the last `test:` comment has no block");
    Ok(blocks)
}

fn steps<'a>(lines: &mut impl Iterator<Item = (&'a str, usize)>, begin: usize) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    while let Some((line, number)) = lines.next() {
        if line == "```" {
            ensure!(!steps.is_empty(), "line {begin}: the block has no command");
            return Ok(steps);
        }
        if let Some(command) = line.strip_prefix("$ ") {
            let mut command = command.to_owned();
            while command.ends_with('\\') {
                let (next, _) = lines.next().with_context(|| format!("line {number}: the command does not end"))?;
                let _ = write!(command, "\n{next}");
            }
            steps.push(Step { command, expected: Vec::new() });
        } else {
            let step = steps.last_mut().with_context(|| format!("line {number}: output before the first command"))?;
            step.expected.push(line.to_owned());
        }
    }
    bail!("line {begin}: the block does not end")
}

impl Step {
    /// Whether `output` is what the step expects; trailing spaces and a missing end of line do not count.
    ///
    /// # Errors
    /// Shows both.
    pub fn check(&self, output: &str) -> anyhow::Result<()> {
        let seen: Vec<&str> = output.lines().map(str::trim_end).collect();
        let expected: Vec<&str> = self.expected.iter().map(|line| line.trim_end()).collect();
        ensure!(
            lines_match(&expected, &seen),
            "$ {}\nexpected:\n{}\nprinted:\n{}",
            self.command,
            expected.join("\n"),
            seen.join("\n")
        );
        Ok(())
    }

    /// Runs the command by `sh` in the package's directory, with the built binary's directory first on PATH, and gives
    /// what it printed, both streams in their order.
    ///
    /// # Errors
    /// When `sh` cannot be run.
    pub fn run(&self, binary: &Path) -> anyhow::Result<String> {
        self.run_in(binary, Path::new(env!("CARGO_MANIFEST_DIR")))
    }

    /// The same in another directory.
    ///
    /// # Errors
    /// When `sh` cannot be run.
    pub fn run_in(&self, binary: &Path, directory: &Path) -> anyhow::Result<String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = binary.parent().map(Path::to_owned);
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?;
        let both = format!("exec 2>&1\n{}", self.command);
        let ran = Command::new("sh")
            .args(["-c", &both])
            .current_dir(directory)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .context("cannot run sh")?;
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    }
}

fn lines_match(expected: &[&str], seen: &[&str]) -> bool {
    match expected.split_first() {
        None => seen.is_empty(),
        Some((line, rest)) if line.chars().eq([ANYTHING]) => {
            (0..=seen.len()).any(|skipped| lines_match(rest, &seen[skipped..]))
        }
        Some((line, rest)) => {
            seen.split_first().is_some_and(|(first, seen)| line_matches(line, first) && lines_match(rest, seen))
        }
    }
}

fn line_matches(expected: &str, seen: &str) -> bool {
    let Some((before, after)) = expected.split_once(ANYTHING) else { return expected == seen };
    let Some(rest) = seen.strip_prefix(before) else { return false };
    // Any place that lets the rest match will do.
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| line_matches(after, &rest[at..]))
}

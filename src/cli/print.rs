//! Standard output and standard error, where the reader may be gone: `println!` would panic.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _, stderr, stdout},
};

use anyhow::Context as _;

use super::exit::Failed;

/// Prints `text` as it is. A reader that has gone away (`… | head -1`) has read what it wanted: no error.
///
/// # Errors
/// When standard output cannot be written, the disk behind it being full, say.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output").map_err(Failed::wrap)
        }
        _ => Ok(()),
    }
}

/// `error` with what caused it, on one line. A cause that the text in front of it holds already is not told again, and of
/// one with many lines (a parser's picture of a file, say) only the first is.
#[must_use]
pub fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        let cause = cause.lines().next().unwrap_or_default();
        if text.is_empty() {
            text.push_str(cause);
        } else if !text.contains(cause) {
            text.push_str(": ");
            text.push_str(cause);
        }
    }
    text
}

/// What one probe found, in the same words for every command: `error` is why it is not healthy.
#[must_use]
pub fn found(healthy: Option<bool>, error: &str) -> String {
    match healthy {
        Some(true) => "healthy".to_owned(),
        Some(false) => format!("unhealthy; {error}"),
        None => format!("unknown; {error}"),
    }
}

/// Tells what is wrong, in a line on standard error.
pub fn complain(what: &dyn Display) {
    // Nobody is left to be told that nobody is left.
    let _ = writeln!(stderr(), "error: {what}");
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_told_once_and_on_one_line() {
        let error = anyhow!("os error 2").context("cannot read 'x': os error 2").context("give another file");
        assert_eq!(told(&error), "give another file: cannot read 'x': os error 2");
        let error = anyhow!("line 1: no mapping\n 1 | x\n   | ^").context("cannot parse");
        assert_eq!(told(&error), "cannot parse: line 1: no mapping");
        assert_eq!(told(&anyhow!("alone")), "alone");
    }
}

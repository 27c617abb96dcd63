//! Standard output and standard error, where the reader may be gone: `println!` would panic.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _, stderr, stdout},
};

use anyhow::Context as _;

/// Prints `text` as it is. A reader that has gone away (`… | head -1`) has read what it wanted: no error.
///
/// # Errors
/// When standard output cannot be written, the disk behind it being full, say.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

/// Tells what is wrong, in a line on standard error.
pub fn complain(what: &dyn Display) {
    // Nobody is left to be told that nobody is left.
    let _ = writeln!(stderr(), "error: {what}");
}

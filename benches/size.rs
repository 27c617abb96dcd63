//! How large the release binary is, as cargo makes it (stripped). See `docs/benchmarks.md`.
//!
//!     cargo bench --bench size

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;

use anyhow::ensure;
use common::{operator::binary, table::Table};

fn main() -> anyhow::Result<()> {
    if !common::wanted("size") {
        return Ok(());
    }
    let path = binary()?;
    common::introduce("size: the release binary");
    let size = std::fs::metadata(path)?.len();
    // `size` counts what is loaded: a binary with its symbols left in shows by the difference.
    let output = Command::new("size").arg(path).output()?;
    ensure!(output.status.success(), "size: {}", String::from_utf8_lossy(&output.stderr));
    let loaded = String::from_utf8(output.stdout)?;
    let figures: Vec<u64> =
        loaded.lines().nth(1).unwrap_or_default().split_whitespace().map_while(|text| text.parse().ok()).collect();
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let mut table = Table::new(["part", "size"]);
    table.row(["file".to_owned(), megabytes(size)]);
    for (part, bytes) in ["code and constants", "data", "zeroed data"].into_iter().zip(figures) {
        table.row([part.to_owned(), megabytes(bytes)]);
    }
    table.print(&path.display().to_string());
    Ok(())
}

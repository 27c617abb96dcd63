//! What `standalone` takes of memory and of an idle core, how soon a failure is a verdict, what becomes of a stall of its
//! own, and what TLS costs. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench engine

#[path = "../common/mod.rs"]
mod common;
mod idle;
mod memory;
mod stalls;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tls;
mod verdicts;

use common::{figures::Figures, operator::binary, wanted};
use support::{netns, run_dir};

type Part = (&'static str, fn(&mut Figures) -> anyhow::Result<()>);

/// How `BENCH_ONLY` calls them.
const PARTS: [Part; 5] = [
    ("memory", memory::measure),
    ("idle", idle::measure),
    ("verdicts", verdicts::measure),
    ("stalls", stalls::measure),
    ("tls", tls::measure),
];

fn main() -> anyhow::Result<()> {
    let parts: Vec<Part> = PARTS.into_iter().filter(|(name, _)| wanted(name)).collect();
    if parts.is_empty() {
        return Ok(());
    }
    binary()?;
    netns::enter()?;
    common::introduce("engine: `standalone` on one core, its targets and all meters on the other");
    common::step_aside()?;
    let mut figures = Figures::new("engine");
    let done = parts.into_iter().try_for_each(|(_, measure)| measure(&mut figures));
    // What was measured before something went wrong was measured.
    figures.write()?;
    run_dir::finish(done.is_err());
    done
}

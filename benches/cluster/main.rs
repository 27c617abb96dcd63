//! The operator against a real API server: how soon a verdict is in the API, alone and in a storm, what 10,000 HealthChecks
//! take, what an outage of the server does, and what is written while nothing happens. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench cluster
//!
//! API server, etcd, operator and targets share the machine's cores: what the figures say of the operator includes the
//! wait for the others' turn.

#[path = "../common/mod.rs"]
mod common;
mod flips;
mod gates;
mod herd;
mod many;
mod outage;
mod seen;
mod stage;
mod steady;
mod storm;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::{figures::Figures, operator::binary};
use stage::Stage;
use support::{netns, programs::Programs, run_dir};

fn main() -> anyhow::Result<()> {
    if !PARTS.into_iter().any(common::wanted) {
        return Ok(());
    }
    // Both may need the network, which is left next.
    binary()?;
    let programs = Programs::locate()?;
    netns::enter()?;
    common::introduce("cluster: the controller beside a real API server");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(measure(&programs));
    run_dir::finish(done.is_err());
    done
}

/// `BENCH_ONLY` names the parts to run; `hold`, which leaves 10,000 checks to a profiler, runs only when it is named.
const PARTS: [&str; 7] = ["flips", "gates", "steady", "storm", "many", "outage", "hold"];

async fn measure(programs: &Programs) -> anyhow::Result<()> {
    let stage = Stage::start(programs).await?;
    for part in PARTS.into_iter().filter(|part| common::wanted(part)) {
        // Each leaves what it found, whatever becomes of the next.
        let mut figures = Figures::new("cluster");
        match part {
            "flips" => flips::measure(&stage, &mut figures).await?,
            "gates" => gates::measure(&stage).await?,
            "steady" => steady::measure(&stage, &mut figures).await?,
            "storm" => storm::measure(&stage, &mut figures).await?,
            "many" => many::measure(&stage, &mut figures).await?,
            "outage" => outage::measure(&stage, &mut figures).await?,
            _ if std::env::var("BENCH_ONLY").is_ok_and(|only| !only.is_empty()) => many::hold(&stage).await?,
            _ => {}
        }
        figures.write()?;
    }
    Ok(())
}

//! The operator against a real API server: how soon a verdict is in the API, what 10,000 HealthChecks take, and what is
//! written while nothing happens. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench cluster
//!
//! API server, etcd, operator and targets share the machine's cores: what the figures say of the operator includes the
//! wait for the others' turn.

#[path = "../common/mod.rs"]
mod common;
mod flips;
mod gates;
mod many;
mod stage;
mod steady;
#[path = "../../tests/support/mod.rs"]
mod support;

use common::operator::binary;
use stage::Stage;
use support::{netns, programs::Programs, run_dir};

fn main() -> anyhow::Result<()> {
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

/// `BENCH_ONLY` names the parts to run: `flips,gates,many,steady`.
async fn measure(programs: &Programs) -> anyhow::Result<()> {
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |part: &str| only.is_empty() || only.split(',').any(|name| name == part);
    let stage = Stage::start(programs).await?;
    if wanted("flips") {
        flips::measure(&stage).await?;
    }
    if wanted("gates") {
        gates::measure(&stage).await?;
    }
    if wanted("steady") {
        steady::measure(&stage).await?;
    }
    if wanted("many") {
        many::measure(&stage).await?;
    }
    Ok(())
}

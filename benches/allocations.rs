//! How often a probe takes memory from the heap, on the fast lane and on the ordinary one, and how much of the heap an
//! endpoint keeps. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench allocations
//!
//! The engine runs in this process, whose allocator counts; what it probes is nginx, which is another one.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use common::{
    OTHERS, connections,
    figures::Figures,
    manifests::{Plan, Probe},
    nginx::Nginx,
    rounds, scaled,
    stats::median,
    table::Table,
    window,
};
use healthcheck_operator::{
    compile::Mode,
    engine::{self, Board, Engine, Limits, Parts, Surroundings},
    probe::{Prober, Settings},
    source::{self, Source},
    telemetry::{Beats, Metrics},
};
use support::{netns, run_dir};
use tokio_util::sync::CancellationToken;

struct Counting;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What was asked for, and not what the allocator spends on it.
fn count(taken: usize, given_back: usize) {
    if taken > 0 {
        TAKEN.fetch_add(1, Relaxed);
        BYTES.fetch_add(taken as u64, Relaxed);
    }
    LIVE.fetch_add(taken as i64 - given_back as i64, Relaxed);
}

// SAFETY: every call is the system allocator's own, with what it was asked; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

const ENDPOINTS: usize = 1_000;
const FEW: usize = 10_000;
const MANY: usize = 100_000;
const WARM_UP: Duration = Duration::from_secs(3);
const SECONDS: u64 = 4;
const SOON: Duration = Duration::from_secs(180);

fn main() -> anyhow::Result<()> {
    if !common::wanted("allocations") {
        return Ok(());
    }
    netns::enter()?;
    common::introduce("allocations: an engine in this process, nginx on the other core");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = Figures::new("allocations");
    let done = runtime.block_on(measure(&mut figures));
    figures.write()?;
    run_dir::finish(done.is_err());
    done
}

async fn measure(figures: &mut Figures) -> anyhow::Result<()> {
    let nginx = Nginx::start(OTHERS, false)?;
    let mut table = Table::new(["probe", "lane", "probes", "allocations/probe", "bytes/probe"]);
    for probe in [Probe::Tcp, Probe::Http] {
        for (lane, fast) in [("fast", true), ("ordinary", false)] {
            eprintln!("allocations: {}, {lane}", probe.name());
            let running = Running::start(&Plan::loopback(scaled(ENDPOINTS), probe, nginx.port), fast).await?;
            running.asked(scaled(ENDPOINTS)).await?;
            tokio::time::sleep(WARM_UP).await;
            let (asked, taken, bytes) = (connections::opened()?, TAKEN.load(Relaxed), BYTES.load(Relaxed));
            tokio::time::sleep(window(SECONDS)).await;
            let (taken, bytes) = (TAKEN.load(Relaxed) - taken, BYTES.load(Relaxed) - bytes);
            let asked = connections::opened()? - asked;
            ensure!(asked > 0, "nothing was probed");
            let each = |count: u64| count as f64 / asked as f64;
            table.row([
                probe.name().to_owned(),
                lane.to_owned(),
                asked.to_string(),
                format!("{:.3}", each(taken)),
                format!("{:.0}", each(bytes)),
            ]);
            figures.note(format!("{}, {lane} lane, allocations per probe", probe.name()), each(taken), "");
            figures.note(format!("{}, {lane} lane, bytes allocated per probe", probe.name()), each(bytes), "B");
            running.stop().await;
        }
    }
    table.print(&format!("The steady state, {} endpoints at 1 s", scaled(ENDPOINTS)));
    heap(nginx.port, figures).await
}

/// What is live when every endpoint has been asked once.
async fn heap(port: u16, figures: &mut Figures) -> anyhow::Result<()> {
    let mut slopes = vec![];
    for round in 1..=rounds(5).div_ceil(2) {
        let mut kept = vec![];
        for endpoints in [scaled(FEW), scaled(MANY)] {
            eprintln!("round {round}: heap of {endpoints} endpoints");
            let before = LIVE.load(Relaxed);
            let plan = Plan { interval: "60s".into(), ..Plan::loopback(endpoints, Probe::Tcp, port) };
            let running = Running::start(&plan, true).await?;
            running.asked(endpoints).await?;
            kept.push((LIVE.load(Relaxed) - before) as f64);
            running.stop().await;
        }
        slopes.push((kept[1] - kept[0]) / (scaled(MANY) - scaled(FEW)) as f64);
    }
    println!("live heap of the engine with its board: {:.0} bytes for an endpoint\n", median(slopes.iter().copied()));
    figures.reach_all("7a", "bytes per endpoint, engine, live heap, 10k → 100k", &slopes);
    Ok(())
}

/// An engine with its board and nobody who reads it.
struct Running {
    _engine: Engine,
    began: u64,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(plan: &Plan, fast_lane: bool) -> anyhow::Result<Self> {
        let (board, stop) = (Arc::new(Board::new()), CancellationToken::new());
        let parts = Parts {
            lane: Arc::new(Prober::new(Settings { fast_lane, ..Settings::standalone() })),
            board,
            limits: Limits { in_flight: 4096, per_host: 256 },
            surroundings: Surroundings::default(),
            metrics: Metrics::default(),
            beats: Beats::default(),
        };
        let began = connections::opened()?;
        let (engine, ended) = engine::start(parts, stop.clone());
        for number in 0..plan.checks() {
            let text = plan.check(number);
            let loaded = source::load(&[Source { name: "bench".into(), text }], Mode::Standalone);
            ensure!(loaded.faults.is_empty(), "{:?}", loaded.faults);
            for declared in loaded.declared {
                engine.upsert(source::desired(Arc::new(declared.check))).await;
            }
        }
        engine.settle().await;
        Ok(Self { _engine: engine, began, stop, ended })
    }

    /// Waits for so many probes.
    async fn asked(&self, probes: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < SOON {
            if connections::opened()? - self.began >= probes as u64 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("waited {SOON:?} for {probes} probes")
    }

    async fn stop(self) {
        self.stop.cancel();
        // A panic in the engine has been printed already.
        let _ = self.ended.await;
    }
}

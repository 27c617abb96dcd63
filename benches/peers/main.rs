//! Ours beside HAProxy, Envoy, blackbox_exporter and a raw epoll loop, on the same work in the same session: what a check
//! costs, how punctual it is on the wire, and what an endpoint takes of memory. See `docs/performance.md`.
//!
//!     cargo bench --bench peers
//!
//! Everything runs in a network of its own: whoever is measured on one core, what it asks and all meters on the other.

#[path = "../common/mod.rs"]
mod common;
mod configs;
mod contenders;
mod pace;
mod paced;
mod raw;
mod run;
mod saturated;
mod sizes;
#[path = "../../tests/support/mod.rs"]
mod support;
mod task;

use common::{OTHERS, certificates, figures::Figures, nginx::Nginx, operator::binary, wanted};
use support::{netns, run_dir};
use task::Work;

fn main() -> anyhow::Result<()> {
    if let Some(args) = raw::asked(std::env::args()) {
        return raw::run(&args);
    }
    let works: Vec<Work> = Work::ALL.into_iter().filter(|work| wanted(work.part())).collect();
    if works.is_empty() && !wanted(saturated::PART) && !wanted(sizes::PART) {
        return Ok(());
    }
    binary()?;
    netns::enter()?;
    common::introduce("peers: the prober on one core, its targets on the other");
    common::step_aside()?;
    let done = measure(&works);
    run_dir::finish(done.is_err());
    done
}

/// What is asked.
pub struct Servers {
    plain: Nginx,
    /// Lets sessions go on.
    tls: Nginx,
}

impl Servers {
    fn start() -> anyhow::Result<Self> {
        certificates::make()?;
        Ok(Self { plain: Nginx::start(OTHERS, false)?, tls: Nginx::start_tls(OTHERS, true)? })
    }

    pub const fn of(&self, work: Work) -> &Nginx {
        if matches!(work, Work::Https) { &self.tls } else { &self.plain }
    }
}

fn measure(works: &[Work]) -> anyhow::Result<()> {
    let servers = Servers::start()?;
    let mut figures = Figures::new("peers");
    if !works.is_empty() {
        paced::measure(works, &servers, &mut figures)?;
    }
    if wanted(saturated::PART) {
        saturated::measure(servers.plain.port, &mut figures)?;
    }
    if wanted(sizes::PART) {
        sizes::measure(servers.plain.port, &mut figures)?;
    }
    figures.write()
}

//! The flags that bound the engine.

use clap::{Args, value_parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::Limits;

/// More in flight than this serves nobody.
const MOST_IN_FLIGHT: u64 = 16_384;

/// How much the engine may run at once.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Probing")]
pub struct EngineArgs {
    /// Probes in flight at once, 1-65536 [default: half of the descriptors this process may open, at most 16384]
    #[arg(
        long, value_name = "N", value_parser = value_parser!(u32).range(1..=65_536),
        env = "HEALTHCHECK_OPERATOR_MAX_IN_FLIGHT"
    )]
    max_in_flight: Option<u32>,
    /// Probes in flight at once on one host, 1-65536
    #[arg(
        long, value_name = "N", default_value_t = 256, value_parser = value_parser!(u32).range(1..=65_536),
        env = "HEALTHCHECK_OPERATOR_MAX_IN_FLIGHT_PER_HOST"
    )]
    max_in_flight_per_host: u32,
}

impl EngineArgs {
    /// The limits to run with. Raises the soft limit on descriptors to the hard one first: the soft one is there for
    /// programs that use `select`.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let in_flight = self.max_in_flight.unwrap_or_else(|| {
            let half = (descriptors() / 2).clamp(16, MOST_IN_FLIGHT);
            u32::try_from(half).unwrap_or(u32::MAX)
        });
        Limits { in_flight: in_flight as usize, per_host: self.max_in_flight_per_host as usize }
    }
}

fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

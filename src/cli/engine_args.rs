//! The flags that bound the engine.

use clap::{Args, value_parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::engine::Limits;

/// More in flight than this serves nobody.
const MOST_IN_FLIGHT: u64 = 16_384;
/// Below this nothing would be probed in time; that descriptors run out is then told as `NoDescriptors`.
const FEWEST_IN_FLIGHT: u64 = 16;

/// How much the engine may run at once.
#[derive(Args, Clone, Debug)]
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
    /// Whether most TCP and plain HTTP probes take the fast lane; to compare, and to be safe
    #[arg(long, value_name = "on|off", default_value = FAST_LANE, hide = true, env = "HEALTHCHECK_OPERATOR_FAST_LANE",
          value_parser = ["on", "off"])]
    fast_lane: String,
}

/// Whether the fast lane is on unless said otherwise.
const FAST_LANE: &str = "on";

impl EngineArgs {
    /// The limits to run with. Raises the soft limit on descriptors to the hard one first: the soft one is there for
    /// programs that use `select`.
    #[must_use]
    pub fn limits(&self) -> Limits {
        // Raised whatever the flags say: a limit that was given needs its descriptors all the more.
        self.limits_with(descriptors())
    }

    /// Whether the fast lane is on.
    #[must_use]
    pub fn fast_lane(&self) -> bool {
        self.fast_lane == "on"
    }

    /// How many idle connections may be kept for probes with `reuseConnection`: an eighth of the descriptors. The fast lane
    /// adds to it what no probe in flight needs.
    #[must_use]
    pub fn kept_connections() -> usize {
        kept_with(descriptors())
    }

    /// The limits of a process that may open so many `descriptors`. Half of them is for probes in flight, an eighth
    /// for further addresses of names, an eighth for connections that are kept, and one in 32 for what is asked on demand; a
    /// sixteenth is for each listener, and the rest for files, and for the few more that a script needs.
    fn limits_with(&self, descriptors: u64) -> Limits {
        let half = (descriptors / 2).clamp(FEWEST_IN_FLIGHT, MOST_IN_FLIGHT);
        let in_flight = self.max_in_flight.map_or(half, u64::from);
        Limits {
            in_flight: usize::try_from(in_flight).unwrap_or(usize::MAX),
            per_host: self.max_in_flight_per_host as usize,
        }
    }
}

fn kept_with(descriptors: u64) -> usize {
    usize::try_from((descriptors / 8).min(MOST_IN_FLIGHT)).unwrap_or(usize::MAX)
}

fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    now.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        engine: EngineArgs,
    }

    fn limits(args: &[&str], descriptors: u64) -> (usize, usize) {
        let cli = Cli::try_parse_from([&["x"], args].concat()).expect("flags");
        let limits = cli.engine.limits_with(descriptors);
        (limits.in_flight, limits.per_host)
    }

    #[test]
    fn probes_may_take_half_of_the_descriptors_within_reason() {
        for (descriptors, in_flight) in
            [(0, 16), (20, 16), (256, 128), (1024, 512), (20_000, 10_000), (1_048_576, 16_384), (u64::MAX, 16_384)]
        {
            assert_eq!(limits(&[], descriptors), (in_flight, 256), "{descriptors} descriptors");
        }
    }

    #[test]
    fn all_that_may_be_open_at_once_fits_into_the_descriptors() {
        for descriptors in [1024_u64, 4096, 20_000, 65_536, 1_048_576] {
            let limits = Cli::try_parse_from(["x"]).expect("flags").engine.limits_with(descriptors);
            let probing = limits.in_flight + limits.spare() + limits.on_demand() + kept_with(descriptors);
            // As `server::Limits` has it for each of as many as there can be.
            let listening = 3 * (descriptors / 16).clamp(32, 1024);
            let left = descriptors.checked_sub(probing as u64 + listening);
            assert!(left.is_some_and(|left| left >= descriptors / 64), "{descriptors}: {left:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_what_is_taken() {
        let args = ["--max-in-flight", "40000", "--max-in-flight-per-host", "7"];
        assert_eq!(limits(&args, 1024), (40_000, 7));
        assert_eq!(limits(&["--max-in-flight", "1"], 1024), (1, 256));
    }
}

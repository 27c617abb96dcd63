//! The figures that are to be reached, row by row: what `make bench` tells at its end.

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Nobody asked for more.
    None,
}

use Bound::{AtLeast, AtMost};

impl Bound {
    /// `None` where there is nothing to reach.
    pub fn is_reached(self, value: f64) -> Option<bool> {
        match self {
            AtMost(bound) => Some(value <= bound),
            AtLeast(bound) => Some(value >= bound),
            Self::None => None,
        }
    }

    pub fn tell(self, unit: &str) -> String {
        let (sign, bound) = match self {
            AtMost(bound) => ("≤", bound),
            AtLeast(bound) => ("≥", bound),
            Self::None => return "–".to_owned(),
        };
        let space = if unit.is_empty() { "" } else { " " };
        format!("{sign} {bound}{space}{unit}")
    }
}

/// One line of the last table. Who measures it writes a figure with the same row and metric.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub row: &'static str,
    pub metric: &'static str,
    pub unit: &'static str,
    pub goal: Bound,
    pub moonshot: Bound,
}

const fn goal(row: &'static str, metric: &'static str, unit: &'static str, goal: Bound, moonshot: Bound) -> Goal {
    Goal { row, metric, unit, goal, moonshot }
}

/// In the order of the table.
pub const GOALS: &[Goal] = &[
    goal("1", "CPU per TCP check, half-open, ours : HAProxy", "", AtMost(0.80), AtMost(0.60)),
    goal("2", "CPU per HTTP check, fresh connection, ours : HAProxy", "", AtMost(0.85), AtMost(0.65)),
    goal("3", "CPU per TCP check, half-open, ours : Envoy", "", AtMost(0.40), AtMost(0.30)),
    goal("3", "CPU per HTTP check, fresh connection, ours : Envoy", "", AtMost(0.48), AtMost(0.37)),
    goal("3", "CPU per TCP check, half-open, ours : blackbox_exporter", "", AtMost(0.08), AtMost(0.06)),
    goal("3", "CPU per HTTP check, fresh connection, ours : blackbox_exporter", "", AtMost(0.08), AtMost(0.06)),
    goal("3b", "CPU per HTTP check, kept connection, ours : Envoy", "", AtMost(0.40), AtMost(0.25)),
    goal("4", "saturated, CPU per TCP check, ours : raw epoll loop", "", AtMost(1.15), AtMost(1.05)),
    goal("4", "saturated, CPU per HTTP check, ours : raw epoll loop", "", AtMost(1.15), AtMost(1.05)),
    goal("5", "interval error on the wire, p99", "ms", AtMost(1.0), AtMost(0.1)),
    goal("5", "interval error on the wire, size of the mean", "ms", AtMost(0.01), Bound::None),
    goal("6", "burst: most probes in a millisecond : mean", "", AtMost(5.0), AtMost(2.0)),
    goal("7a", "bytes per endpoint, engine, resident, 10k → 100k", "B", AtMost(512.0), AtMost(128.0)),
    goal("7a", "bytes per endpoint, engine, live heap, 10k → 100k", "B", AtMost(512.0), AtMost(128.0)),
    goal("7b", "bytes per endpoint, operator, objects cached, one in each", "B", AtMost(3000.0), AtMost(1500.0)),
    goal("7b", "bytes per endpoint, operator, objects cached, 64 in each", "B", AtMost(3000.0), AtMost(1500.0)),
    goal("8", "failure → verdict beyond the theoretical wait, p99", "ms", AtMost(5.0), AtMost(1.0)),
    goal("9", "verdict → status, idle, p99", "ms", AtMost(100.0), AtMost(20.0)),
    goal("9", "verdict → status, 1,000 endpoints of 20 objects flip, max", "s", AtMost(1.0), Bound::None),
    goal("9", "verdict → status, 1,000 objects flip, max", "s", AtMost(25.0), Bound::None),
    goal("9", "verdict → status, those with a gate among 1,000 objects that flip, max", "s", Bound::None, AtMost(2.0)),
    goal("10", "API writes per 1,000 probes, steady, the Lease aside", "", AtMost(0.0), Bound::None),
    goal("10", "status writes per flip in a storm", "", Bound::None, AtMost(1.0)),
    // A check of 50 endpoints flips once and has many counts to tell: there is nothing to hold that against.
    goal("10", "status writes per flip in a storm, 1,000 endpoints of 20 objects", "", Bound::None, Bound::None),
    goal("11", "10,000 HealthChecks, start → all scheduled", "s", AtMost(5.0), AtMost(1.0)),
    goal("12", "CPU per script, ours : bare posix_spawn", "", AtMost(1.2), AtMost(1.05)),
    goal("12", "CPU per script with a heap of 1 GB, ours : bare posix_spawn", "", AtMost(1.2), AtMost(1.05)),
    goal("13", "CPU per HTTPS check, resumed : fresh, both verified", "", AtMost(0.70), Bound::None),
    goal("13", "CPU per HTTPS check, kept connection", "µs", Bound::None, AtMost(15.0)),
    goal("14", "false failures, stopped for 3 s", "", AtMost(0.0), AtMost(0.0)),
    goal("14", "false failures, a tenth of a core", "", AtMost(0.0), AtMost(0.0)),
    goal("14", "false failures, ten times too much to do", "", AtMost(0.0), AtMost(0.0)),
    goal("14", "stopped for 3 s, back on time within", "intervals", Bound::None, AtMost(1.0)),
    goal("15", "idle, 10,000 checks at 60 s", "% of a core", AtMost(1.5), AtMost(0.8)),
    goal("16", "/healthz, requests a second, ours : nginx", "", AtLeast(0.5), AtLeast(1.0)),
    goal("16", "/healthz, p99", "ms", AtMost(1.0), Bound::None),
    goal("16", "/healthz, p99, ours : nginx", "", Bound::None, AtMost(1.0)),
];

/// The line for it, if there is one.
pub fn find(row: &str, metric: &str) -> Option<&'static Goal> {
    GOALS.iter().find(|goal| goal.row == row && goal.metric == metric)
}

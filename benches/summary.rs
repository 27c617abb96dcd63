//! Every goal beside what was measured, from what the other benchmarks left in `target`. See `docs/benchmarks.md`.
//!
//!     cargo bench --bench summary

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use common::{
    figures::{self, Figure},
    goals::{GOALS, Goal},
    table::Table,
};
use serde_json::{Value, json};

/// Who leaves figures.
const BENCHES: [&str; 6] = ["peers", "engine", "scripts", "healthz", "allocations", "cluster"];

/// The lines of the table whose figures `cluster` names after what it did: those that have all of these words, of which the
/// worst counts.
const NAMED: [(&str, &str, &[&str]); 9] = [
    ("7b", "bytes per endpoint, operator, objects cached, one in each", &["memory, 1 in each check"]),
    ("7b", "bytes per endpoint, operator, objects cached, 64 in each", &["memory, 64 in each check"]),
    ("9", "verdict → status, idle, p99", &["verdict → status, idle, p99"]),
    (
        "9",
        "verdict → status, 1,000 endpoints of 20 objects flip, max",
        &["endpoints of", "the last verdict → its status"],
    ),
    ("9", "verdict → status, 1,000 objects flip, max", &["checks", "the last verdict → its status"]),
    (
        "9",
        "verdict → status, those with a gate among 1,000 objects that flip, max",
        &["verdict → status of those with a gate"],
    ),
    ("10", "API writes per 1,000 probes, steady, the Lease aside", &["API writes per 1,000 probes, steady"]),
    ("10", "status writes per flip in a storm", &["status writes per flip"]),
    ("11", "10,000 HealthChecks, start → all scheduled", &["start → all scheduled, 1 in each check"]),
];

/// What `cluster` found for the lines of the table.
fn named(all: &[Figure]) -> Vec<Figure> {
    let mut rest: Vec<&Figure> = all.iter().filter(|figure| figure.row.is_empty()).collect();
    let mut found = vec![];
    for (row, metric, words) in NAMED {
        let (its, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|figure| words.iter().all(|word| figure.metric.contains(word)));
        rest = others;
        if let Some(worst) = its.into_iter().max_by(|one, other| one.value.total_cmp(&other.value)) {
            found.push(Figure { row: row.into(), metric: metric.into(), ..worst.clone() });
        }
    }
    found
}

fn main() -> anyhow::Result<()> {
    let mut found = vec![];
    for name in BENCHES {
        found.extend(figures::read(name)?);
    }
    found.extend(named(&figures::read("cluster")?));
    let mut table = Table::new(["#, metric", "measured", "goal", "reached", "moonshot", "reached"]);
    let mut rows = vec![];
    for goal in GOALS {
        let figure = found.iter().find(|figure| figure.row == goal.row && figure.metric == goal.metric);
        let value = figure.map(|figure| figure.value);
        table.row([
            format!("{:<2}  {}", goal.row, goal.metric),
            value.map_or_else(|| "not measured".to_owned(), |value| show(value, goal.unit)),
            goal.goal.tell(goal.unit),
            yes(value.and_then(|value| goal.goal.is_reached(value))),
            goal.moonshot.tell(goal.unit),
            yes(value.and_then(|value| goal.moonshot.is_reached(value))),
        ]);
        rows.push(row(goal, figure));
    }
    println!("{}\n", machine());
    if common::scaled(100) != 100 {
        println!("BENCH_SCALE is {} %: these are no figures of full size\n", common::scaled(100));
    }
    table.print("What was to be reached, and what was measured");
    let notes: Vec<&Figure> =
        found.iter().filter(|figure| common::goals::find(&figure.row, &figure.metric).is_none()).collect();
    let file = common::target_dir()?.join("bench.json");
    let whole = json!({"machine": machine(), "scale": common::scaled(100), "rows": rows, "notes": notes});
    std::fs::write(&file, serde_json::to_string_pretty(&whole)?)?;
    println!("the same as JSON, with what else was measured: {}", file.display());
    Ok(())
}

fn row(goal: &Goal, figure: Option<&Figure>) -> Value {
    let value = figure.map(|figure| figure.value);
    json!({
        "row": goal.row, "metric": goal.metric, "unit": goal.unit, "value": value,
        "rounds": figure.map(|figure| &figure.rounds),
        "goal": goal.goal.tell(goal.unit), "goal_reached": value.and_then(|value| goal.goal.is_reached(value)),
        "moonshot": goal.moonshot.tell(goal.unit),
        "moonshot_reached": value.and_then(|value| goal.moonshot.is_reached(value)),
    })
}

/// Three digits that mean something.
fn show(value: f64, unit: &str) -> String {
    let size = value.abs();
    let digits = if size >= 100.0 || value.fract() == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

fn yes(reached: Option<bool>) -> String {
    match reached {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    }
    .to_owned()
}

/// What it ran on.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |two| two.1);
    format!("{cores} cores, {model}, Linux {}, {}", read("/proc/sys/kernel/osrelease").trim(), jiff::Timestamp::now())
}

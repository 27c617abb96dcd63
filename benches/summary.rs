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

fn main() -> anyhow::Result<()> {
    let mut found = vec![];
    for name in BENCHES {
        found.extend(figures::read(name)?);
    }
    let mut table = Table::new(["#, metric", "measured", "goal", "reached", "moonshot", "reached"]);
    let mut rows = vec![];
    for goal in GOALS {
        let figure = found.iter().find(|figure| figure.row == goal.row && figure.metric == goal.metric);
        let value = figure.map(|figure| figure.value);
        table.row([
            format!("{:<2}  {}", goal.row, goal.metric),
            value.map_or_else(|| "not measured".to_owned(), |value| show(value, goal)),
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

/// Three digits that mean something, and more where those would not tell whether a bound is reached.
fn show(value: f64, goal: &Goal) -> String {
    let size = value.abs();
    let least = if size >= 100.0 || value.fract() == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        3
    };
    let text = |digits: usize| format!("{value:.digits$}");
    let tells = |digits: &usize| {
        let shown = text(*digits).parse().unwrap_or(value);
        [goal.goal, goal.moonshot].into_iter().all(|bound| bound.is_reached(shown) == bound.is_reached(value))
    };
    let digits = (least..least + 6).find(tells).unwrap_or(least);
    format!("{} {}", text(digits), goal.unit).trim_end().to_owned()
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

//! What a benchmark found, as JSON: `target/NAME.json`, a flat list of `{row, metric, value, unit}`. A figure without a
//! row is a note; of one that was measured several times, `rounds` has them all.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{goals, stats::median};

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Of the table of goals ([`goals::GOALS`]); empty for a note.
    #[serde(default)]
    pub row: String,
    pub metric: String,
    pub value: f64,
    #[serde(default)]
    pub unit: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<f64>,
}

/// The figures of one benchmark. What an earlier run of it found stays until it is found anew, so that its parts can be
/// run one by one.
pub struct Figures {
    name: &'static str,
    found: Vec<Figure>,
}

impl Figures {
    pub const fn new(name: &'static str) -> Self {
        Self { name, found: vec![] }
    }

    /// A figure of the table of goals, which has its unit.
    ///
    /// # Panics
    /// When the table has no such line: who measures has misspelt it.
    pub fn reach(&mut self, row: &str, metric: &str, value: f64) {
        let goal = goals::find(row, metric).unwrap_or_else(|| panic!("no goal {row}, {metric:?}"));
        self.push(row, metric, value, goal.unit, vec![]);
    }

    /// The median of some rounds, as a figure of the table of goals.
    ///
    /// # Panics
    /// As [`Self::reach`].
    pub fn reach_all(&mut self, row: &str, metric: &str, rounds: &[f64]) {
        self.reach(row, metric, median(rounds.iter().copied()));
        if let Some(last) = self.found.last_mut() {
            last.rounds = rounds.to_vec();
        }
    }

    /// A figure that is worth keeping and has no goal.
    pub fn note(&mut self, metric: impl Into<String>, value: f64, unit: &str) {
        self.push("", &metric.into(), value, unit, vec![]);
    }

    /// The median of some rounds, as a figure without a goal.
    pub fn note_all(&mut self, metric: impl Into<String>, rounds: &[f64], unit: &str) {
        self.push("", &metric.into(), median(rounds.iter().copied()), unit, rounds.to_vec());
    }

    fn push(&mut self, row: &str, metric: &str, value: f64, unit: &str, rounds: Vec<f64>) {
        // JSON has no word for what is not a number.
        if value.is_finite() {
            let (row, metric, unit) = (row.to_owned(), metric.to_owned(), unit.to_owned());
            self.found.push(Figure { row, metric, value, unit, rounds });
        }
    }

    /// Writes them beside what was there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(self) -> anyhow::Result<()> {
        let file = file(self.name)?;
        let same = |one: &Figure, other: &Figure| one.row == other.row && one.metric == other.metric;
        let mut all = read(self.name)?;
        all.retain(|old| !self.found.iter().any(|new| same(new, old)));
        all.extend(self.found);
        std::fs::write(&file, serde_json::to_string_pretty(&all)?)?;
        println!("the same as JSON: {}\n", file.display());
        Ok(())
    }
}

/// Of `NAME`.
pub fn file(name: &str) -> anyhow::Result<PathBuf> {
    Ok(super::target_dir()?.join(format!("{name}.json")))
}

/// What `name` found when it last ran; nothing where it did not.
pub fn read(name: &str) -> anyhow::Result<Vec<Figure>> {
    let file = file(name)?;
    match std::fs::read(&file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{}: no list of figures", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

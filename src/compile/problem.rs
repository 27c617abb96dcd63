//! What is wrong, and where.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The field as in `spec.targets[0].port`.
    pub field_path: String,
    /// What is wrong and how it is mended.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field_path, self.message)
    }
}

/// Problems as they are found.
#[derive(Clone, Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Notes one more.
    pub fn add(&mut self, field_path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field_path: field_path.into(), message: message.into() });
    }

    /// Notes one more unless `holds`.
    pub fn require(&mut self, holds: bool, field_path: impl Into<String>, message: &str) {
        if !holds {
            self.add(field_path, message);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes all of `problems`.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        self.0.extend(problems);
    }

    /// In the order they were found, each once.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        let mut seen = std::collections::HashSet::new();
        self.0.into_iter().filter(|problem| seen.insert(problem.clone())).collect()
    }
}

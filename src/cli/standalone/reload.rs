//! The set of checks that the files declare, and how it changes.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    check::{Check, ObjectKey},
    compile::Mode,
    engine::Engine,
    source::{Fault, Source, gather, load},
};

/// The checks that files declare; all that is wrong with them where anything is.
pub(super) type Reading = Result<Vec<Check>, Vec<Fault>>;

/// What is run where no file is named: things that exist on any machine, such as the program's own listeners.
const EMBEDDED: &str = include_str!("../../../examples/quickstart.yaml");

/// The files, and what they declared when they were last good.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Shared with the engine: ten thousand checks are kept once.
    applied: HashMap<ObjectKey, Arc<Check>>,
    /// The hash of what was read last, good or bad: the texts themselves would be kept for this alone.
    seen: Option<u64>,
    hasher: RandomState,
}

/// How much a reading changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub applied: usize,
    pub removed: usize,
}

impl Change {
    pub const fn any(self) -> bool {
        self.applied + self.removed > 0
    }
}

impl Files {
    /// Without `paths`, the example that is part of the program.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, applied: HashMap::new(), seen: None, hasher: RandomState::new() }
    }

    /// Whether anything runs.
    pub fn any(&self) -> bool {
        !self.applied.is_empty()
    }

    /// What the files declare now.
    pub fn read(&mut self) -> Reading {
        let found = self.gather();
        self.seen = Some(self.hasher.hash_one(&found));
        compile(found)
    }

    /// What the files declare now; `None` where they say, word for word, what they said when they were read last. Whoever
    /// writes beside them, or writes the same again, costs a look and no more.
    pub fn read_again(&mut self) -> Option<Reading> {
        let found = self.gather();
        let hash = self.hasher.hash_one(&found);
        (self.seen.replace(hash) != Some(hash)).then(|| compile(found))
    }

    fn gather(&self) -> (Vec<Source>, Vec<Fault>) {
        if self.paths.is_empty() {
            let embedded = Source { name: "(embedded)".to_owned(), text: EMBEDDED.to_owned() };
            return (vec![embedded], vec![]);
        }
        gather(&self.paths)
    }

    /// Makes the engine run `checks`, and nothing else that came from these files.
    pub async fn apply(&mut self, checks: Vec<Check>, engine: &Engine) -> Change {
        let mut change = Change::default();
        let mut before = std::mem::take(&mut self.applied);
        for check in checks {
            let check = match before.remove(&check.key) {
                Some(same) if *same == check => same,
                _ => {
                    change.applied += 1;
                    if !check.gates.is_empty() {
                        tracing::warn!(check = %check.key, "gates need a cluster to act on: here they do nothing");
                    }
                    for problem in &check.overrides.problems {
                        tracing::warn!(check = %check.key, "{problem}; it is left out");
                    }
                    let check = Arc::new(check);
                    super::send(engine, check.clone()).await;
                    check
                }
            };
            self.applied.insert(check.key.clone(), check);
        }
        for key in before.into_keys() {
            change.removed += 1;
            engine.remove(key).await;
        }
        change
    }
}

fn compile((sources, mut faults): (Vec<Source>, Vec<Fault>)) -> Reading {
    let loaded = load(&sources, Mode::Standalone);
    faults.extend(loaded.faults);
    if faults.is_empty() {
        Ok(loaded.declared.into_iter().map(|declared| declared.check).collect())
    } else {
        Err(faults)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: healthcheck-operator.dev/v1alpha1\nkind: HealthCheck\nmetadata: {{name: {name}}}\n\
             spec: {{targets: [{{name: a, host: 127.0.0.1, port: 1}}]}}\n"
        )
    }

    #[test]
    fn without_a_file_the_embedded_example_is_run() {
        let checks = Files::new(vec![]).read().expect("no fault");
        assert!(checks.iter().any(|check| &*check.key.name == "listeners"), "{checks:?}");
    }

    #[test]
    fn only_files_that_say_something_else_are_compiled_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("a.yaml"), manifest("one")).expect("writable");
        let mut files = Files::new(vec![directory.path().to_owned()]);
        assert_eq!(files.read().map(|checks| checks.len()), Ok(1));
        fs::write(at("notes.txt"), "beside them").expect("writable");
        fs::write(at("a.yaml"), manifest("one")).expect("writable");
        assert!(files.read_again().is_none(), "the same words");
        fs::write(at("b.yaml"), manifest("two")).expect("writable");
        let both = files.read_again().expect("another file").expect("no fault");
        assert_eq!(both.len(), 2);
        // What moves from one file to another may be told in another place.
        fs::rename(at("b.yaml"), at("c.yaml")).expect("writable");
        assert!(files.read_again().is_some(), "another name");
        fs::write(at("c.yaml"), "[").expect("writable");
        assert!(matches!(files.read_again(), Some(Err(_))), "broken");
        assert!(files.read_again().is_none(), "broken in the same way, and told");
        fs::write(at("c.yaml"), manifest("two")).expect("writable");
        assert!(matches!(files.read_again(), Some(Ok(_))), "mended");
    }
}

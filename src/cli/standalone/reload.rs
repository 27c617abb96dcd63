//! The set of checks that the files declare, and how it changes.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use crate::{
    check::{Check, ObjectKey},
    compile::Mode,
    engine::Engine,
    source::{Fault, gather, load},
};

/// The files, and what they declared when they were last good.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Shared with the engine: ten thousand checks are kept once.
    applied: HashMap<ObjectKey, Arc<Check>>,
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
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, applied: HashMap::new() }
    }

    /// What the files declare now; all that is wrong with them where anything is.
    pub fn read(&self) -> Result<Vec<Check>, Vec<Fault>> {
        let (sources, mut faults) = gather(&self.paths);
        let loaded = load(&sources, Mode::Standalone);
        faults.extend(loaded.faults);
        if faults.is_empty() {
            Ok(loaded.declared.into_iter().map(|declared| declared.check).collect())
        } else {
            Err(faults)
        }
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

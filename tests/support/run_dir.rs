//! One directory for each run of a test binary: logs, certificates, databases. It is removed
//! after a run in which all passed and kept, and named, after one in which something failed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Runs that failed are forgotten after this long, or they would fill the disk.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// The run's own directory, made at the first call.
///
/// # Panics
/// When it cannot be made.
pub fn run_dir() -> &'static Path {
    DIRECTORY.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runs");
        std::fs::create_dir_all(&all).expect("target/tmp can be written");
        forget_old(&all);
        let name = format!("{}-{}", env!("CARGO_CRATE_NAME"), std::process::id());
        let directory = all.join(name);
        // A process of an earlier boot may have had our id.
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).expect("target/tmp can be written");
        directory
    })
}

/// A new directory inside the run's, named after `name`.
///
/// # Panics
/// When it cannot be made.
pub fn sub_dir(name: &str) -> PathBuf {
    let directory = run_dir().join(name);
    std::fs::create_dir_all(&directory).expect("the run directory can be written");
    directory
}

/// To be called at the end of a run, when the programs are stopped.
pub fn finish(failed: bool) {
    let Some(directory) = DIRECTORY.get() else { return };
    if failed || std::env::var_os("KEEP_RUN").is_some() {
        println!("logs of this run: {}", directory.display());
    } else {
        let _ = std::fs::remove_dir_all(directory);
    }
}

fn forget_old(all: &Path) {
    let Ok(runs) = std::fs::read_dir(all) else { return };
    for run in runs.flatten() {
        let age = run.metadata().and_then(|data| data.modified());
        if age.is_ok_and(|when| SystemTime::now().duration_since(when).is_ok_and(|age| age > KEPT_FOR)) {
            let _ = std::fs::remove_dir_all(run.path());
        }
    }
}

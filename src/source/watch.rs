//! Tells when files may have changed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Config, EventKind, PollWatcher, RecursiveMode, Watcher, event::AccessKind};
use tokio::sync::mpsc;

/// How often files are looked at where the kernel cannot tell.
const POLL: Duration = Duration::from_millis(500);
/// An editor writes a file in several steps; what follows within this belongs together.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches files and directories until it is dropped.
pub struct Watch {
    _watcher: Box<dyn Watcher + Send>,
    changed: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches `paths`. A file is watched through its directory, so that one replaced by a rename (an editor's way, and a
    /// mounted ConfigMap's) is seen.
    ///
    /// # Errors
    /// When a directory cannot be watched, not even by looking at it again and again.
    pub fn new(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let directories: BTreeSet<&Path> = paths.iter().map(|path| directory(path)).collect();
        let (tell, changed) = mpsc::channel(1);
        let mut watcher = start(&tell, &directories)?;
        if watcher.is_none() {
            watcher = Some(poll(&tell, &directories)?);
        }
        let Some(_watcher) = watcher else { anyhow::bail!("no way to watch files") };
        Ok(Self { _watcher, changed })
    }

    /// Waits until something changed and has settled. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.changed.recv().await.is_none() {
            // The watcher is gone, which it is only with us.
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SETTLE).await;
        // What came meanwhile is about to be read.
        let _ = self.changed.try_recv();
    }
}

fn directory(path: &Path) -> &Path {
    if path.is_dir() {
        return path;
    }
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// The kernel's own watch; `None` where it has none left to give.
fn start(tell: &mpsc::Sender<()>, directories: &BTreeSet<&Path>) -> anyhow::Result<Option<Box<dyn Watcher + Send>>> {
    let Ok(mut watcher) = notify::recommended_watcher(teller(tell.clone())) else { return Ok(None) };
    for directory in directories {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            tracing::warn!(directory = %directory.display(), %error, "files are polled: the kernel gives no watch");
            return Ok(None);
        }
    }
    Ok(Some(Box::new(watcher)))
}

fn poll(tell: &mpsc::Sender<()>, directories: &BTreeSet<&Path>) -> anyhow::Result<Box<dyn Watcher + Send>> {
    let config = Config::default().with_poll_interval(POLL).with_compare_contents(true);
    let mut watcher = PollWatcher::new(teller(tell.clone()), config)?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(Box::new(watcher))
}

fn teller(tell: mpsc::Sender<()>) -> impl FnMut(notify::Result<notify::Event>) + Send + 'static {
    move |event| {
        // Our own reading is no change.
        let is_access = event.as_ref().is_ok_and(|event| {
            matches!(event.kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(notify::event::AccessMode::Write)))
        });
        if !is_access {
            // Full: the change before it has not been looked at yet, and the look will see this one too.
            let _ = tell.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("checks.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&file)).unwrap();
        std::fs::write(&file, "b").unwrap();
        assert!(told(&mut watch).await, "written");
        let next = directory.path().join("next");
        std::fs::write(&next, "c").unwrap();
        assert!(told(&mut watch).await);
        std::fs::rename(&next, &file).unwrap();
        assert!(told(&mut watch).await, "replaced by a rename");
    }

    #[tokio::test]
    async fn polling_sees_it_too() {
        let directory = tempfile::tempdir().unwrap();
        let (tell, changed) = mpsc::channel(1);
        let _watcher = poll(&tell, &BTreeSet::from([directory.path()])).unwrap();
        let mut watch = Watch { _watcher, changed };
        std::fs::write(directory.path().join("new.yaml"), "x").unwrap();
        assert!(told(&mut watch).await);
    }
}

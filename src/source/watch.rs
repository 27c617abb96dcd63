//! Tells when files may have changed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Config, EventKind, PollWatcher, RecursiveMode, Watcher, event::AccessKind};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::files::files_of;

/// How often files are looked at for what the kernel does not tell.
const POLL: Duration = Duration::from_millis(500);
/// An editor writes a file in several steps; what follows within this belongs together.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches files and directories until it is dropped.
pub struct Watch {
    _watcher: Box<dyn Watcher + Send>,
    told: mpsc::Receiver<()>,
    paths: Vec<PathBuf>,
    seen: Vec<Mark>,
}

impl Watch {
    /// Watches `paths`. A file is watched through its directory, so that one replaced by a rename (an editor's way, and a
    /// mounted ConfigMap's) is seen at once. What the kernel does not tell of, such as a link to a directory that is
    /// turned to another one, a directory made anew, or a file edited behind a link, is seen within half a second.
    ///
    /// # Errors
    /// When a directory cannot be watched, not even by looking at it again and again.
    pub fn new(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let directories: BTreeSet<&Path> = paths.iter().map(|path| directory(path)).collect();
        let (tell, told) = mpsc::channel(1);
        let mut watcher = start(&tell, &directories)?;
        if watcher.is_none() {
            watcher = Some(poll(&tell, &directories)?);
        }
        let Some(_watcher) = watcher else { anyhow::bail!("no way to watch files") };
        Ok(Self { _watcher, told, paths: paths.to_vec(), seen: marks(paths) })
    }

    /// Waits until something changed and has settled. Cancel-safe.
    pub async fn changed(&mut self) {
        let mut looks = interval(POLL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The sender is gone only with the watcher, which is ours.
                Some(()) = self.told.recv() => break,
                _ = looks.tick() => if marks(&self.paths) != self.seen { break },
            }
        }
        tokio::time::sleep(SETTLE).await;
        // What came meanwhile is about to be read.
        let _ = self.told.try_recv();
        self.seen = marks(&self.paths);
    }
}

/// What tells a file or directory from what it was before: device, inode, size, and time of change in nanoseconds.
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    path: PathBuf,
    identity: Option<(u64, u64, u64, i64, i64)>,
}

/// The marks of `paths` and of what they lead to, links followed.
fn marks(paths: &[PathBuf]) -> Vec<Mark> {
    let of = |path: PathBuf| {
        // A pipe changes by being read.
        let lasting = fs::metadata(&path).ok().filter(|m| m.is_file() || m.is_dir());
        let identity = lasting.map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        Mark { path, identity }
    };
    paths.iter().flat_map(|path| files_of(path).unwrap_or_else(|_| vec![path.clone()])).map(of).collect()
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
        // With nothing to look at itself: what it tells comes from the watcher.
        let mut watch = Watch { _watcher, told: changed, paths: Vec::new(), seen: Vec::new() };
        std::fs::write(directory.path().join("new.yaml"), "x").unwrap();
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_tell_is_seen_too() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for version in ["v1", "v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("checks.yaml"), version).unwrap();
        }
        std::os::unix::fs::symlink(at("v1"), at("current")).unwrap();
        let mut watch = Watch::new(&[at("current")]).unwrap();
        std::os::unix::fs::symlink(at("v2"), at("next")).unwrap();
        fs::rename(at("next"), at("current")).unwrap();
        assert!(told(&mut watch).await, "a link turned to another directory");
        // The kernel's watch is on v1.
        fs::write(at("v2/checks.yaml"), "edited").unwrap();
        assert!(told(&mut watch).await, "an edit behind the link");
        fs::remove_dir_all(at("v2")).unwrap();
        assert!(told(&mut watch).await, "a directory that is gone");
        fs::create_dir(at("v2")).unwrap();
        fs::write(at("v2/checks.yaml"), "again").unwrap();
        assert!(told(&mut watch).await, "and made anew");
    }

    #[tokio::test]
    async fn one_change_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("checks.yaml");
        fs::write(&file, "a").unwrap();
        // The kernel's own events may come late; the looks are what this is about.
        let (_tell, nothing) = mpsc::channel(1);
        let paths = vec![file.clone()];
        let mut watch = Watch { _watcher: Box::new(notify::NullWatcher), told: nothing, seen: marks(&paths), paths };
        fs::write(&file, "bb").unwrap();
        assert!(told(&mut watch).await);
        // Four looks go by.
        let again = tokio::time::timeout(POLL * 4, watch.changed()).await;
        assert!(again.is_err(), "told twice");
    }
}

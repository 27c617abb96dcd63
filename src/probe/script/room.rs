//! Folders of scripts: what one writes to its `TMPDIR` is its own, and goes with it.

use std::{
    env, fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statvfs};

/// What the names of rooms begin with; the number of the process that made it follows, and one more.
const PREFIX: &str = "healthcheck-operator-script-";

/// A folder for the scripts of one worker, one after the other. Dropping this removes it.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    /// Held for as long as the room is somebody's, which [`sweep`] asks.
    _lock: OwnedFd,
}

impl Room {
    /// A new one, or none where there is no place that we may write to.
    ///
    /// # Errors
    /// There is such a place, and it takes no more.
    pub fn make() -> io::Result<Option<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let place = env::temp_dir();
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = place.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match make_private(&path) {
                Ok(()) => return Ok(Some(Self { _lock: lock(&path)?, path })),
                // Left by a process of the same number, or somebody's who wants to be in the way.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if is_no_place(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// A folder for one script, kept for the next where the script left it alone: to make and remove one can cost half of
/// what it takes to run a small program.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// While there is one that nothing is in.
    made: Option<Made>,
}

#[derive(Debug)]
struct Made {
    look: Look,
    at: Instant,
    /// Whether any change from now on is one of `look`.
    settled: bool,
}

/// What changes with a folder: whatever is made, removed or renamed in it, its mode and its attributes count.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    device: u64,
    number: u64,
    changed: (i64, i64),
}

/// A file system tells time by the kernel's tick, of at most 10 ms: a second change within one leaves no trace.
const TICK: Duration = Duration::from_millis(20);

impl Folder {
    /// Makes nothing yet.
    pub fn new(room: &Path) -> Self {
        Self { path: room.join("run"), made: None }
    }

    /// A folder that nothing is in, closed to others.
    ///
    /// # Errors
    /// None can be made.
    pub fn ready(&mut self) -> io::Result<&Path> {
        // Another's script, of the same user, may have been at it meanwhile.
        if !self.is_untouched() {
            if self.made.is_some() {
                self.clear();
            }
            make_private(&self.path)?;
            let at = Instant::now();
            self.made = Look::at(&self.path).ok().map(|look| Made { look, at, settled: false });
        } else if let Some(made) = &mut self.made {
            made.settled = made.settled || made.at.elapsed() >= TICK;
        }
        Ok(&self.path)
    }

    /// Removes what a script left; whether it is gone. Nobody may be at work in it any more.
    pub fn clear(&mut self) -> bool {
        if self.is_untouched() {
            return true;
        }
        self.made = None;
        remove(&self.path)
    }

    fn is_untouched(&self) -> bool {
        let Some(made) = &self.made else { return false };
        Look::at(&self.path).is_ok_and(|look| look == made.look) && (made.settled || self.is_empty())
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none())
    }
}

impl Look {
    fn at(path: &Path) -> io::Result<Self> {
        let seen = fs::symlink_metadata(path)?;
        Ok(Self { device: seen.dev(), number: seen.ino(), changed: (seen.ctime(), seen.ctime_nsec()) })
    }
}

fn is_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem)
}

/// Makes a folder that is closed to others.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

/// Takes a folder for this process, unless another one has it.
fn lock(path: &Path) -> io::Result<OwnedFd> {
    let folder = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Removes the rooms of processes that were killed before they could. A container that is started again finds its
/// `/tmp` as it was.
pub fn sweep() {
    for entry in fs::read_dir(env::temp_dir()).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && let Ok(_lock) = lock(&entry.path())
        {
            remove(&entry.path());
        }
    }
}

/// Removes a folder with all that is in it; whether it is gone. Nobody may be at work in it any more.
pub(super) fn remove(path: &Path) -> bool {
    fs::remove_dir_all(path).is_ok() || remove_piecemeal(path).is_ok() || !path.exists()
}

/// The same where folders are closed to us, or lie deeper in one another than there are descriptors: what is in a folder
/// is brought up before the folder goes.
fn remove_piecemeal(top: &Path) -> io::Result<()> {
    let mut number = 0_u64;
    loop {
        let mut entries = fs::read_dir(top)?;
        let Some(entry) = entries.next().transpose()? else { return fs::remove_dir(top) };
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            continue;
        }
        open_up(&entry.path())?;
        for inner in fs::read_dir(entry.path())? {
            let inner = inner?;
            if inner.file_type()?.is_dir() {
                open_up(&inner.path())?;
                fs::rename(inner.path(), fresh(top, &mut number))?;
            } else {
                fs::remove_file(inner.path())?;
            }
        }
        fs::remove_dir(entry.path())?;
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// A name that nothing in `top` has.
fn fresh(top: &Path, number: &mut u64) -> PathBuf {
    loop {
        *number += 1;
        let path = top.join(format!("{PREFIX}{number}"));
        if path.symlink_metadata().is_err() {
            return path;
        }
    }
}

/// Whether nothing more can be written where `path` is.
pub(super) fn is_full(path: &Path) -> bool {
    // Some file systems count no files.
    statvfs(path).is_ok_and(|have| have.f_bavail == 0 || (have.f_files > 0 && have.f_favail == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_ones_own_and_goes_with_it() {
        let room = Room::make().expect("room").expect("a place");
        let path = room.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("the room").permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").expect("a file");
        sweep();
        assert!(path.join("file").exists(), "it is somebody's");
        drop(room);
        assert!(!path.exists());
        make_private(&path).expect("one that was left");
        fs::write(path.join("file"), "x").expect("a file");
        sweep();
        assert!(!path.exists(), "it was nobody's");
    }

    #[test]
    fn a_folder_is_kept_only_where_nothing_was_done_to_it() {
        let room = tempfile::tempdir().expect("a room");
        let number = |path: &Path| fs::metadata(path).map(|seen| (seen.ino(), seen.ctime(), seen.ctime_nsec()));
        let deeds: [fn(&Path); 5] = [
            |path| fs::write(path.join("file"), "x").expect("a file"),
            |path| {
                fs::write(path.join("file"), "x").expect("a file");
                fs::remove_file(path.join("file")).expect("removed");
            },
            |path| fs::set_permissions(path, fs::Permissions::from_mode(0o500)).expect("a mode"),
            |path| fs::remove_dir(path).expect("removed"),
            |path| {
                fs::rename(path, path.with_extension("away")).expect("renamed");
                fs::create_dir(path).expect("another");
                fs::remove_dir_all(path.with_extension("away")).expect("removed");
            },
        ];
        let mut folder = Folder::new(room.path());
        for deed in deeds {
            for _ in 0..3 {
                let path = folder.ready().expect("a folder").to_owned();
                let before = number(&path).expect("it is there");
                // From then on it is believed by its time alone.
                std::thread::sleep(TICK);
                assert!(folder.clear());
                assert_eq!(number(&path).expect("kept"), before);
            }
            let path = folder.ready().expect("a folder").to_owned();
            deed(&path);
            assert!(folder.clear() && !path.exists(), "it goes with what was done to it");
            // Between two scripts too.
            folder.ready().expect("a folder");
            std::thread::sleep(TICK);
            folder.ready().expect("a folder");
            assert!(folder.clear());
            deed(&path);
            let path = folder.ready().expect("a folder");
            let seen = fs::metadata(path).expect("it is there");
            assert_eq!((seen.mode() & 0o777, fs::read_dir(path).expect("read").count()), (0o700, 0));
        }
    }

    #[test]
    fn a_file_that_came_within_the_tick_of_its_folder_goes_too() {
        let room = tempfile::tempdir().expect("a room");
        for _ in 0..50 {
            let mut folder = Folder::new(room.path());
            let file = folder.ready().expect("a folder").join("file");
            fs::write(&file, "x").expect("a file");
            assert!(folder.clear() && !file.exists());
        }
    }

    #[test]
    fn folders_that_are_closed_or_lie_deep_go_too() {
        let top = tempfile::tempdir().expect("a folder");
        let path = top.path().join("room");
        let mut deep = path.clone();
        (0..200).for_each(|_| deep.push("a"));
        fs::create_dir_all(&deep).expect("folders");
        fs::write(deep.join("file"), "x").expect("a file");
        std::os::unix::fs::symlink(top.path(), path.join("a/link")).expect("a link");
        fs::write(top.path().join("other"), "x").expect("a file");
        for closed in [deep.as_path(), &path.join("a/a")] {
            fs::set_permissions(closed, fs::Permissions::from_mode(0o000)).expect("a mode");
        }
        remove_piecemeal(&path).expect("all of it goes");
        assert!(!path.exists() && top.path().join("other").exists(), "and nothing else");
    }
}

//! A small process that runs one script after the other, so that nothing of a script outlives its run.
//!
//! It is this program once more, and parent of all that its script leaves behind, whatever session or group that moved
//! to: when a run ends, all its descendants are that script's, and none is another's. It holds neither threads nor
//! credentials, and ends with who started it.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::PathBuf,
    time::Duration,
};

use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};
use serde::{Deserialize, Serialize};

use super::{
    Ended, Limits, Run, memory,
    process::{self, NO_SPACE},
    room::{self, Folder},
    seal, tree,
};

/// The first argument of a worker; the second are its [`Orders`].
pub(super) const COMMAND: &str = "script-worker";
/// How long a worker tries to end what does not die before it leaves it to others.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// What holds for all scripts of a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub limits: Limits,
    /// Where a script gets a folder of its own.
    pub room: Option<PathBuf>,
    /// See [`super::Setup::sealed`].
    pub sealed: Option<PathBuf>,
}

impl Orders {
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// What scripts together have run out of since `shortages` were counted.
    pub(super) fn lacked(&self, shortages: Option<u64>) -> Option<String> {
        if memory::shortages() > shortages {
            return Some(
                "the system killed for want of memory while it ran: all scripts together used it up".to_owned(),
            );
        }
        // Elsewhere a full disk may be the very thing that a script looks for.
        let full = self.is_sealed() && self.room.as_deref().is_some_and(room::is_full);
        full.then(|| NO_SPACE.to_owned())
    }
}

/// What a worker says to a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub ended: Ended,
    /// This worker takes no more requests.
    pub last: bool,
}

/// Whether the arguments of this process, its name left out, are those of a worker; works, and says how it ended.
///
/// # Errors
/// The system refuses a limit or to be asked.
pub fn work_if_asked(mut words: impl Iterator<Item = OsString>) -> Option<io::Result<()>> {
    if words.next()? != COMMAND {
        return None;
    }
    let orders = words.next().and_then(|word| serde_json::from_str(word.to_str()?).ok());
    Some(match orders {
        Some(orders) => work(&orders),
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "a script worker is started by the runner alone")),
    })
}

/// Serves standard input, a socket, until that is closed.
fn work(orders: &Orders) -> io::Result<()> {
    let mut asker = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Scripts of the same user may neither look into this process nor take it over.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_child_subreaper(Some(getpid()))?;
    if let Some(folder) = &orders.sealed
        && let Err(error) = seal::keep_off(folder)
    {
        eprintln!("scripts cannot be kept off {}: {error}", folder.display());
    }
    orders.limits.take_on()?;
    let served = serve(&mut asker, orders);
    // Who asked has removed it already, unless it was killed.
    if let Some(room) = &orders.room {
        room::remove(room);
    }
    served
}

fn serve(asker: &mut UnixStream, orders: &Orders) -> io::Result<()> {
    let mut requests = BufReader::new(asker.try_clone()?);
    let mut line = Vec::new();
    let mut folder = orders.room.as_deref().map(Folder::new);
    loop {
        line.clear();
        if requests.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let run: Run = serde_json::from_slice(&line)?;
        let done = process::run(&run, orders, folder.as_mut(), asker.as_fd());
        if done.unheard {
            tree::end_all(LAST_PATIENCE);
            return Ok(());
        }
        let last = done.left || orders.limits.worn();
        let mut answer = serde_json::to_vec(&Answer { ended: done.ended, last })?;
        answer.push(b'\n');
        asker.write_all(&answer)?;
        if last {
            tree::end_all(LAST_PATIENCE);
            return Ok(());
        }
    }
}

//! Workers that wait for a script to run.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    runtime::Handle,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Ended, How, Limits, Run, Setup,
    process::refused,
    room::Room,
    tree,
    worker::{self, Orders},
};

/// So many workers are kept for the next script, however long that takes to come. A kept one costs a megabyte or two, a
/// new one as much CPU as several small scripts.
const KEPT: usize = 8;
/// How long the others are kept, as many as may run at once: long enough for most to be wanted again.
const LINGER: Duration = Duration::from_secs(15);
/// How long after the deadline a worker may answer; it kills within 100 ms, and the machine may be busy.
const GRACE: Duration = Duration::from_millis(700);
/// What is handed on of our own environment. Nothing else is: it may hold what a script must not know.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Starts workers, and keeps some.
#[derive(Debug)]
pub(super) struct Pool {
    program: PathBuf,
    limits: Limits,
    sealed: Option<PathBuf>,
    at_once: usize,
    idle: Arc<Mutex<Idle>>,
}

/// Workers that wait.
#[derive(Debug, Default)]
struct Idle {
    /// Who waits for longest first.
    workers: Vec<Kept>,
    /// Whether somebody comes to look who has waited for too long.
    is_watched: bool,
}

#[derive(Debug)]
struct Kept {
    /// With whose scripts it has run. A script can lower the limits of its worker for good, so it is no other
    /// namespace's worker.
    namespace: String,
    since: Instant,
    worker: Worker,
}

impl Pool {
    pub fn new(setup: &Setup) -> Self {
        let Setup { program, limits, sealed, at_once, .. } = setup.clone();
        Self { program, limits, sealed, at_once, idle: Arc::default() }
    }

    /// Has a worker run a script. Dropping the future ends the script and all it started.
    pub async fn run(&self, run: &Run, deadline: Instant) -> Ended {
        let mut worker = match self.take(&run.namespace) {
            Ok(worker) => worker,
            Err(error) => return Ended::without_output(refused("a worker for the script", &error)),
        };
        match timeout_at(deadline + GRACE, worker.ask(run)).await {
            Ok(Ok(answer)) => {
                if !answer.last {
                    self.keep(&run.namespace, worker);
                }
                answer.ended
            }
            Ok(Err(error)) => {
                let why = format!("the worker that ran it is gone, killed maybe for want of memory: {error}");
                Ended::without_output(How::LimitReached(why))
            }
            Err(_) => {
                worker.kill();
                // It would have said so at the deadline, whatever its script did: what is late is not the script.
                let why = "its worker did not answer: the machine is too busy, or a script has stopped it";
                Ended::without_output(How::Overloaded(why.to_owned()))
            }
        }
    }

    fn take(&self, namespace: &str) -> io::Result<Worker> {
        while let Some(mut worker) = self.kept(namespace) {
            if worker.lives() {
                return Ok(worker);
            }
        }
        let room = Room::make()?;
        let orders = Orders {
            limits: self.limits.clone(),
            room: room.as_ref().map(|room| room.path().to_owned()),
            sealed: self.sealed.clone(),
        };
        Worker::start(&self.program, &serde_json::to_string(&orders)?, room)
    }

    /// The one that ran last: what it needs is still in the caches, and those that nobody needs are told by their age.
    fn kept(&self, namespace: &str) -> Option<Worker> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.workers.iter().rposition(|kept| kept.namespace == namespace)?;
        Some(idle.workers.remove(place).worker)
    }

    fn keep(&self, namespace: &str, worker: Worker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let too_many = (idle.workers.len() >= self.at_once.max(KEPT)).then(|| idle.workers.remove(0));
        idle.workers.push(Kept { namespace: namespace.to_owned(), since: Instant::now(), worker });
        if idle.workers.len() > KEPT && !idle.is_watched {
            idle.is_watched = true;
            tokio::spawn(watch(Arc::downgrade(&self.idle)));
        }
        drop(idle);
        drop(too_many);
    }
}

/// Lets go of who was not wanted for long, until only those are left that are always kept.
async fn watch(idle: Weak<Mutex<Idle>>) {
    loop {
        sleep(LINGER).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        let over = idle.workers.len().saturating_sub(KEPT);
        let old = idle.workers.iter().take(over).take_while(|kept| kept.since.elapsed() >= LINGER).count();
        let unwanted: Vec<_> = idle.workers.drain(..old).collect();
        idle.is_watched = idle.workers.len() > KEPT;
        let over = !idle.is_watched;
        drop(idle);
        drop(unwanted);
        if over {
            return;
        }
    }
}

/// One worker. When this is dropped it ends whatever it runs, and then itself.
#[derive(Debug)]
struct Worker {
    stream: BufReader<UnixStream>,
    /// Until it is dropped.
    child: Option<Child>,
    process: Option<Pid>,
    room: Option<Room>,
}

impl Worker {
    fn start(program: &Path, orders: &str, room: Option<Room>) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut command = Command::new(program);
        command
            .arg0(env!("CARGO_PKG_NAME"))
            .args([worker::COMMAND, orders])
            .env_clear()
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Not of the terminal's group: Ctrl-C is for who started us, and then comes to the worker as our end.
            .process_group(0);
        // Held over the start, so that [`end_orphans`] never takes a worker it does not know yet for an orphan.
        let mut live = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let process = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        live.extend(process);
        Ok(Self { stream: BufReader::new(ours), child: Some(child), process, room })
    }

    fn lives(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    async fn ask(&mut self, run: &Run) -> io::Result<worker::Answer> {
        let mut line = serde_json::to_vec(run)?;
        line.push(b'\n');
        self.stream.write_all(&line).await?;
        line.clear();
        self.stream.read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_slice(&line)?)
    }

    /// Ends a worker that does not answer, with all that it runs: a script may have stopped it.
    fn kill(&self) {
        let Some(process) = self.process else { return };
        for process in tree::descendants(process).into_iter().chain([process]) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some((mut child, process)) = self.child.take().zip(self.process) else { return };
        let room = self.room.take();
        let gone = move || {
            WORKERS.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        };
        match Handle::try_current() {
            // It is known until it is gone, or it would be killed as an orphan before it has killed what it runs.
            Ok(runtime) => {
                runtime.spawn(async move {
                    let _ = child.wait().await;
                    gone();
                    // It may be full, and nobody waits for it.
                    spawn_blocking(move || drop(room));
                });
            }
            Err(_) => gone(),
        }
    }
}

/// The workers of this process that live.
static WORKERS: LazyLock<Mutex<HashSet<Pid>>> = LazyLock::new(Mutex::default);

/// Makes this process the parent of what is left of a script whose worker was killed. For a process that has no other
/// children than workers, the runner; it calls [`end_orphans`] at every SIGCHLD.
///
/// # Errors
/// The system does not take it.
pub fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Kills adopted children, and reaps those that are dead. The end of whoever left one behind is a SIGCHLD, and so is
/// its own.
pub fn end_orphans() {
    let workers = WORKERS.lock().unwrap_or_else(PoisonError::into_inner);
    for child in tree::own_children() {
        if !workers.contains(&child) {
            let _ = kill_process(child, Signal::KILL);
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_served_a_burst_is_kept_for_a_while_and_then_let_go() {
        // Whatever starts: here nobody asks it anything.
        let setup = Setup { program: "/bin/true".into(), at_once: 12, ..Setup::default() };
        let pool = Pool::new(&setup);
        let waiting = || pool.idle.lock().unwrap_or_else(PoisonError::into_inner).workers.len();
        for _ in 0..20 {
            pool.keep("a", Worker::start(&setup.program, "", None).expect("a worker"));
        }
        assert_eq!(waiting(), 12, "as many as may run at once");
        sleep(LINGER / 2).await;
        for _ in 0..2 {
            let worker = pool.kept("a").expect("one that waits");
            pool.keep("a", worker);
        }
        assert_eq!(waiting(), 12);
        sleep(LINGER * 2).await;
        assert_eq!(waiting(), KEPT);
        assert!(pool.kept("b").is_none() && pool.kept("a").is_some());
    }
}

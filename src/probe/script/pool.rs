//! Workers that wait for a script to run.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::{Child, Command},
    runtime::Handle,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::{
    Ended, How, Limits, Run, Setup,
    process::refused,
    room::Room,
    tree,
    worker::{self, Orders},
};

/// So many workers are kept for the next script. A kept one costs a megabyte or two, a new one a millisecond.
const KEPT: usize = 8;
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
    /// With whose scripts they have run, who waits for longest first. A script can lower the limits of its worker
    /// for good, so it is no other namespace's worker.
    idle: Mutex<Vec<(String, Worker)>>,
}

impl Pool {
    pub fn new(setup: &Setup) -> Self {
        let Setup { program, limits, sealed, .. } = setup.clone();
        Self { program, limits, sealed, idle: Mutex::default() }
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

    fn kept(&self, namespace: &str) -> Option<Worker> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let place = idle.iter().rposition(|(whose, _)| whose == namespace)?;
        Some(idle.remove(place).1)
    }

    fn keep(&self, namespace: &str, worker: Worker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let too_many = (idle.len() >= KEPT).then(|| idle.remove(0));
        idle.push((namespace.to_owned(), worker));
        drop(idle);
        drop(too_many);
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

//! One process group, from spawn to the last trace of it.

use std::{
    collections::HashSet,
    fs, io,
    io::Write,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    process::{Pid, Signal, WaitOptions},
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::{Child, Command},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Ended, How, Run, tail::Tail};

/// Of what a script writes, the end is kept.
const OUTPUT_LIMIT: usize = 4096;
/// What is still read after the end of a script, which a child of it that keeps writing must not stretch.
const DRAIN_LIMIT: usize = 256 * 1024;
/// How long a killed process is waited for; one stuck in the kernel is left to the runtime to reap.
const REAP_PATIENCE: Duration = Duration::from_millis(100);
/// A program just written may be busy for a moment while another process that was forked meanwhile still holds it open.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is handed on of our own environment. Nothing else is: it may hold what a script must not know.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// Runs one script to its end or to `deadline`.
pub(super) async fn run(run: &Run, deadline: Instant) -> Ended {
    let (mut group, mut output) = match start(run, deadline).await {
        Ok(started) => started,
        Err(how) => return Ended::without_output(how),
    };
    let mut tail = Tail::new(OUTPUT_LIMIT);
    let status = timeout_at(deadline, watch(&mut group.child, &mut output, &mut tail)).await;
    group.kill();
    let how = match status {
        Ok(Ok(status)) => how(status),
        Ok(Err(error)) => How::CannotStart(format!("its end could not be waited for: {error}")),
        Err(_) => {
            // Its end is only waited for so that no zombie stays; how it ended is known.
            let _ = timeout(REAP_PATIENCE, group.child.wait()).await;
            How::TimedOut
        }
    };
    drain(&output, &mut tail);
    drop(group);
    Ended { how, output: tail.into_text() }
}

/// Reads what the script writes until it ends. It ends when its own process does, whoever else holds the pipe.
async fn watch(child: &mut Child, output: &mut pipe::Receiver, tail: &mut Tail) -> io::Result<ExitStatus> {
    let mut buffer = vec![0; 16 * 1024];
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            status = child.wait() => return status,
            read = output.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) => open = false,
                Ok(count) => tail.push(&buffer[..count]),
            },
        }
    }
}

/// What is in the pipe already, without waiting for more.
fn drain(output: &pipe::Receiver, tail: &mut Tail) {
    let mut buffer = vec![0; 16 * 1024];
    let mut left = DRAIN_LIMIT;
    while let Ok(count @ 1..) = output.try_read(&mut buffer) {
        tail.push(&buffer[..count]);
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}

fn how(status: ExitStatus) -> How {
    match (status.code(), status.signal()) {
        (Some(code), _) => How::Exited(code),
        (None, Some(signal)) => How::Killed(signal),
        (None, None) => How::CannotStart(format!("it ended in an unknown way: {status}")),
    }
}

async fn start(run: &Run, deadline: Instant) -> Result<(Group, pipe::Receiver), How> {
    loop {
        match spawn(run) {
            Ok(started) => return Ok(started),
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() + BUSY_PAUSE < deadline =>
            {
                sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(refused(run, &error)),
        }
    }
}

fn refused(run: &Run, error: &io::Error) -> How {
    let program = run.command.first().map_or("", String::as_str);
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM) => {
            How::Overloaded(format!("'{program}' could not be started: no process or memory left: {error}"))
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            How::NoDescriptors(format!("'{program}' could not be started: no file descriptor left"))
        }
        Some(Errno::NOEXEC) => {
            How::CannotStart(format!("'{program}' could not be started: no program, and no script with a '#!' line"))
        }
        _ => How::CannotStart(format!("'{program}' could not be started: {error}")),
    }
}

fn spawn(run: &Run) -> io::Result<(Group, pipe::Receiver)> {
    let Some((program, arguments)) = run.command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no program"));
    };
    // One pipe for both streams keeps the order in which they were written.
    let (reader, writer) = io::pipe()?;
    let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        // A group of its own, without `pre_exec`, which would turn posix_spawn into a fork of all our memory.
        .process_group(0)
        .kill_on_drop(true);
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", DEFAULT_PATH);
    }
    command.envs(run.env.iter().map(|(name, value)| (name, value)));
    match &run.source {
        None => command.stdin(Stdio::null()),
        Some(source) => command.arg(SOURCE_PATH).stdin(Stdio::from(source_file(source)?)),
    };
    Ok((Group::spawn(&mut command)?, reader))
}

/// Where the interpreter finds an inline script. Opened anew there, it is read from its beginning, while the script's
/// own standard input is the same file at its end: it reads nothing, as from `/dev/null`. So the script is never read
/// from the input it may itself read, nothing is left on a disk, and no argument's length limits it.
const SOURCE_PATH: &str = "/proc/self/fd/0";

fn source_file(source: &str) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("script", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = fs::File::from(file);
    file.write_all(source.as_bytes())?;
    // A script may not rewrite itself under its interpreter.
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// A script's process group; it does not outlive this.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        // Held over the spawn, so that [`reap_orphans`] never takes a script it does not know yet for an orphan.
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        live.extend(id);
        Ok(Self { child, id })
    }

    /// Kills what is left of the group, grandchildren that ignore every other signal included.
    ///
    /// Sent right after the leader's end: its number cannot have come round to another group by then.
    fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            let _ = rustix::process::kill_process_group(id, Signal::KILL);
            LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The groups of scripts that run now.
static LIVE: LazyLock<Mutex<HashSet<Pid>>> = LazyLock::new(Mutex::default);

/// Makes this process the parent of every process its scripts leave behind, those included that left their process
/// group. For a process that has no other children, the runner; it calls [`reap_orphans`] at every SIGCHLD.
///
/// # Errors
/// The system does not take it.
pub fn adopt_orphans() -> io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// Kills adopted children that belong to no running script, and reaps those that are dead. The end of whoever left one
/// behind is a SIGCHLD, and so is its own.
pub fn reap_orphans() {
    let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    for child in children() {
        let group = rustix::process::getpgid(Some(child)).ok();
        if live.contains(&child) || group.is_some_and(|group| live.contains(&group)) {
            continue;
        }
        let _ = rustix::process::kill_process(child, Signal::KILL);
        let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
    }
}

/// The children of this process, whichever of its threads they hang on.
fn children() -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(Path::new("/proc/self/task")) else { return Vec::new() };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter_map(Pid::from_raw)
        .collect()
}

//! One script, from its start to the last trace of it. Runs in a worker, which has nothing else to do.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open, waitpid},
};

use super::{Ended, How, Limits, Run, memory, room::Folder, tail::Tail, tree, worker::Orders};

/// Of what a script writes, the end is kept.
const OUTPUT_LIMIT: usize = 4096;
/// What is still read after the end of a script.
const DRAIN_LIMIT: usize = 256 * 1024;
/// How long killed processes are waited for before the answer is given; one stuck in the kernel takes longer.
const REAP_PATIENCE: Duration = Duration::from_millis(90);
/// A program just written may be busy for a moment while another process that was forked meanwhile still holds it open.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How often the end of a script is looked for where the kernel does not tell it.
const UNTOLD: Duration = Duration::from_millis(5);
/// What is said where scripts have filled what they share.
pub(super) const NO_SPACE: &str = "no space was left where scripts write to";
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a run ended, and what is left of it.
pub(super) struct Done {
    pub ended: Ended,
    /// Who asked for it hung up meanwhile.
    pub unheard: bool,
    /// Of it are left processes that do not die though they were killed, or files that cannot be removed.
    pub left: bool,
}

/// Runs one script to its end, to its timeout, or until `asker` hangs up.
pub(super) fn run(run: &Run, orders: &Orders, mut folder: Option<&mut Folder>, asker: BorrowedFd<'_>) -> Done {
    let deadline = Instant::now() + run.timeout;
    let not_started = |how| Done { ended: Ended::without_output(how), unheard: false, left: false };
    let place = match folder.as_mut().map(|folder| folder.ready()).transpose() {
        Ok(place) => place,
        Err(error) => return not_started(refused("a folder for the script", &error)),
    };
    let shortages = memory::shortages();
    let mut script = match start(run, orders, place, deadline) {
        Ok(script) => script,
        Err(how) => {
            // The next one is to find its place free.
            let cleared = folder.is_none_or(Folder::clear);
            return Done { left: !cleared, ..not_started(how) };
        }
    };
    let mut tail = Tail::new(OUTPUT_LIMIT);
    let end = script.watch(asker, deadline, &mut tail);
    if !matches!(end, Ok(End::Itself(_))) {
        // All that is still in its group at one stroke, before the others are looked for.
        let _ = kill_process_group(script.process, Signal::KILL);
    }
    let dead = tree::end_all(REAP_PATIENCE);
    script.drain(&mut tail);
    let lacked = || orders.lacked(shortages);
    let (how, unheard) = match end {
        Ok(End::Itself(status)) => (how(&status.into(), &orders.limits, lacked), false),
        Ok(End::Deadline) => (How::TimedOut, false),
        Ok(End::HungUp) => (How::TimedOut, true),
        Err(error) => (How::CannotStart(format!("its end could not be waited for: {error}")), false),
    };
    // After the look at what is full: what it wrote goes with it, and before the answer.
    let cleared = folder.is_none_or(Folder::clear);
    Done { ended: Ended { how, output: tail.into_text() }, unheard, left: !(dead && cleared) }
}

/// What ends the watch over a script.
enum End {
    Itself(WaitStatus),
    Deadline,
    HungUp,
}

struct Script {
    process: Pid,
    /// Becomes readable when the script ends. Missing where the kernel has no such thing.
    end: Option<OwnedFd>,
    output: io::PipeReader,
    /// Ours, so that the pipe has no end: it would wake us while the script is still on its way out.
    _open: io::PipeWriter,
}

impl Script {
    /// Reads what the script writes until it ends. It ends when its own process does, whoever else holds the pipe.
    fn watch(&mut self, asker: BorrowedFd<'_>, deadline: Instant, tail: &mut Tail) -> io::Result<End> {
        let mut buffer = vec![0; 16 * 1024];
        let mut open = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let pause = if self.end.is_some() { left } else { left.min(UNTOLD) };
            let [ended, hung_up, readable] = self.look(asker, open, pause)?;
            if (ended || self.end.is_none())
                && let Some((_, status)) = waitpid(Some(self.process), WaitOptions::NOHANG)?
            {
                return Ok(End::Itself(status));
            }
            if hung_up {
                return Ok(End::HungUp);
            }
            if left.is_zero() {
                return Ok(End::Deadline);
            }
            if readable {
                match self.output.read(&mut buffer) {
                    Ok(count) => tail.push(&buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => open = false,
                }
            }
        }
    }

    /// Whether the script ended, the asker hung up, there is something to read.
    fn look(&self, asker: BorrowedFd<'_>, open: bool, pause: Duration) -> io::Result<[bool; 3]> {
        // A request comes only after the answer to the one before: whatever is to be read from the asker is the end.
        let asker = Some(PollFd::from_borrowed_fd(asker, PollFlags::IN));
        let end = self.end.as_ref().map(|end| PollFd::new(end, PollFlags::IN));
        // What cannot be read would be told for ever.
        let output = open.then(|| PollFd::new(&self.output, PollFlags::IN));
        let asked = [end, asker, output];
        let mut descriptors: Vec<PollFd<'_>> = asked.iter().flatten().cloned().collect();
        let pause = Timespec::try_from(pause).map_err(|_| Errno::INVAL)?;
        match poll(&mut descriptors, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut told = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty());
        Ok(asked.map(|asked| asked.is_some() && told.next().unwrap_or_default()))
    }

    /// What is in the pipe already, without waiting for more.
    fn drain(&mut self, tail: &mut Tail) {
        let mut buffer = vec![0; 16 * 1024];
        let mut left = DRAIN_LIMIT;
        while let Ok(count @ 1..) = self.output.read(&mut buffer) {
            tail.push(&buffer[..count]);
            left = left.saturating_sub(count);
            if left == 0 {
                return;
            }
        }
    }
}

/// How the script's own process ended: its code, or the signal.
#[derive(Debug)]
struct Status {
    code: Option<i32>,
    signal: Option<i32>,
}

impl From<WaitStatus> for Status {
    fn from(status: WaitStatus) -> Self {
        Self { code: status.exit_status(), signal: status.terminating_signal() }
    }
}

/// What an end means. `lacked` says what all scripts together ran out of meanwhile: then nobody knows whether this one
/// failed for that, or for what it looked at.
fn how(status: &Status, limits: &Limits, lacked: impl FnOnce() -> Option<String>) -> How {
    // A shell says of its last command's signal 128 and that number.
    let signal = status.signal.or_else(|| status.code.map(|code| code - 128));
    if let Some(limit) = signal.and_then(|signal| limits.told_by(signal)) {
        return How::LimitReached(limit);
    }
    if status.code == Some(0) {
        return How::Exited(0);
    }
    if let Some(lacked) = lacked() {
        return How::LimitReached(lacked);
    }
    match (status.code, status.signal) {
        (Some(code), _) => How::Exited(code),
        (None, Some(signal)) => How::Killed(signal),
        (None, None) => How::CannotStart(format!("it ended in an unknown way: {status:?}")),
    }
}

fn start(run: &Run, orders: &Orders, folder: Option<&Path>, deadline: Instant) -> Result<Script, How> {
    loop {
        match spawn(run, orders, folder) {
            Ok(started) => return Ok(started),
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() + BUSY_PAUSE < deadline =>
            {
                sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(refused(run.command.first().map_or("", String::as_str), &error)),
        }
    }
}

/// What it means that `program` could not be started.
pub(super) fn refused(program: &str, error: &io::Error) -> How {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN | Errno::NOMEM) => {
            How::Overloaded(format!("'{program}' could not be started: no process or memory left: {error}"))
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            How::NoDescriptors(format!("'{program}' could not be started: no file descriptor left"))
        }
        Some(Errno::NOSPC | Errno::DQUOT) => How::LimitReached(format!("'{program}' could not be started: {NO_SPACE}")),
        Some(Errno::NOEXEC) => {
            How::CannotStart(format!("'{program}' could not be started: no program, and no script with a '#!' line"))
        }
        _ => How::CannotStart(format!("'{program}' could not be started: {error}")),
    }
}

fn spawn(run: &Run, orders: &Orders, folder: Option<&Path>) -> io::Result<Script> {
    let Some((program, arguments)) = run.command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no program"));
    };
    // One pipe for both streams keeps the order in which they were written.
    let (output, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer.try_clone()?))
        // A group of its own, without `pre_exec`, which would turn posix_spawn into a fork.
        .process_group(0);
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", DEFAULT_PATH);
    }
    if let Some(folder) = folder {
        command.env("TMPDIR", folder);
        if orders.is_sealed() {
            command.env("HOME", folder);
        }
    }
    command.envs(run.env.iter().map(|(name, value)| (name, value)));
    match &run.source {
        None => command.stdin(Stdio::null()),
        Some(source) => command.arg(SOURCE_PATH).stdin(Stdio::from(source_file(source)?)),
    };
    let child = orders.limits.start(|| command.spawn())?;
    let process = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    orders.limits.fix(process);
    Ok(Script { process, end: pidfd_open(process, PidfdFlags::empty()).ok(), output, _open: writer })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn end(code: Option<i32>, signal: Option<i32>, lacked: Option<&str>) -> How {
        let limits = Limits { cpu_seconds: Some(1), ..Limits::default() };
        how(&Status { code, signal }, &limits, || lacked.map(str::to_owned))
    }

    #[test]
    fn who_may_have_been_killed_for_want_of_memory_did_not_fail() {
        let ours = How::LimitReached("no memory".into());
        // The script's own process, a command of a shell's, and one that a shell made something else of.
        for (code, signal) in [(None, Some(9)), (Some(137), None), (Some(1), None)] {
            assert_eq!(end(code, signal, Some("no memory")), ours, "{code:?} {signal:?}");
        }
        assert_eq!(end(Some(0), None, Some("no memory")), How::Exited(0), "it did what it was there for");
        let own = How::LimitReached("it used more than 1 s of CPU time".into());
        for (code, signal) in [(None, Some(24)), (Some(152), None)] {
            assert_eq!(end(code, signal, Some("no memory")), own);
        }
    }

    #[test]
    fn what_ends_while_nothing_was_lacking_is_told_as_it_is() {
        assert_eq!(end(Some(137), None, None), How::Exited(137));
        assert_eq!(end(Some(1), None, None), How::Exited(1));
        assert_eq!(end(None, Some(9), None), How::Killed(9));
    }
}

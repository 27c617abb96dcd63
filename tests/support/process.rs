//! Child programs that never outlive the tests, with their output in a file.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    child: Mutex<Child>,
    /// It has to live as long.
    _starter: Starter,
}

impl Process {
    /// Starts a program with no input and its output in `log` (appended, so that a program
    /// started again goes on in the same file).
    ///
    /// # Errors
    /// When the program or its log cannot be opened.
    pub fn start(program: &Path, args: &[String], env: &[(String, String)], log: &Path) -> anyhow::Result<Self> {
        Self::start_by(Starter::default(), program, args, env, log)
    }

    /// The same, by this thread.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_by(
        starter: Starter,
        program: &Path,
        args: &[String],
        env: &[(String, String)],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log)?;
        // The kernel kills the child when the thread that started it ends; the thread is a
        // starter, which ends with this process, whatever ends it: SIGKILL too.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.envs(env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = starter
            .start(command)
            .with_context(|| format!("cannot start {} through setpriv (Debian: util-linux)", program.display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name, pid, log: log.to_owned(), child: Mutex::new(child), _starter: starter })
    }

    /// The program's process id. Ours to signal until it has been waited for.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The file with all it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// All it printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, when it has.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Fails when the program has ended, with the last lines of its log: for use inside waits.
    ///
    /// # Errors
    /// When it has ended.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; its log ends:\n{}", self.name, self.log_tail()),
        }
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Freezes it: it keeps its sockets and answers nothing.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen program go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        Ok(self.child().wait()?)
    }

    /// SIGTERM, as the kubelet stops a container, and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after 10 s; it is killed then.
    pub fn stop(&self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < GRACE {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()?;
        bail!("{} did not end within {GRACE:?} of SIGTERM; its log ends:\n{}", self.name, self.log_tail())
    }

    /// Sends it a signal; no error when it has ended already.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // The lock keeps anybody from reaping it meanwhile, which would free its id for others.
        let mut child = self.child();
        if child.try_wait()?.is_none() {
            kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))?;
        }
        Ok(())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Whether the program was ended by a signal of ours.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::KILL.as_raw())
}

type Request = (Command, mpsc::Sender<std::io::Result<Child>>);

/// A thread that starts programs. They get their death signal from the *thread* that started them, so it lives as long as
/// anybody holds this.
#[derive(Clone, Debug)]
pub struct Starter(mpsc::Sender<Request>);

impl Starter {
    /// One that is made `ready` first: what holds for the thread then holds for every program it starts.
    pub fn new(ready: impl FnOnce() + Send + 'static) -> Self {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::spawn(move || {
            ready();
            for (mut command, reply) in requests {
                let _ = reply.send(command.spawn());
            }
        });
        Self(sender)
    }

    fn start(&self, command: Command) -> std::io::Result<Child> {
        let (reply, answer) = mpsc::channel();
        let gone = || std::io::Error::new(ErrorKind::BrokenPipe, "the thread that starts programs is gone");
        self.0.send((command, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

impl Default for Starter {
    /// The one that starts them all unless said otherwise, for as long as this process lives.
    fn default() -> Self {
        static STARTER: LazyLock<Starter> = LazyLock::new(|| Starter::new(|| {}));
        STARTER.clone()
    }
}

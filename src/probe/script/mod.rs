//! Scripts: a program, its exit code, and nothing left behind.

mod limits;
mod memory;
mod pool;
mod process;
mod room;
mod seal;
mod tail;
mod tree;
mod turns;
mod worker;

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::failure::Failure;
use crate::check::Reason;
use pool::Pool;
use turns::{Turn, Turns};

pub use limits::{LEAST_MEMORY, LEAST_OPEN_FILES, Limits};
pub use pool::{adopt_orphans, end_orphans};
pub use room::sweep as sweep_rooms;
pub use seal::can_seal;
pub(super) use tree::may_be_ours;
pub use worker::work_if_asked;

/// How many scripts run at once unless said otherwise.
pub const DEFAULT_CONCURRENCY: usize = 32;

/// The share of the timeout a script may wait for its turn.
const QUEUE_SHARE: u32 = 2;

/// One run of a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Whose script it is: one namespace's scripts do not take the turns of another's.
    #[serde(default)]
    pub namespace: String,
    /// The program and its arguments, or the interpreter of `source`.
    pub command: Vec<String>,
    /// An inline script; the interpreter gets the path of a file that holds it.
    pub source: Option<String>,
    /// Beside the few variables every script has.
    pub env: Vec<(String, String)>,
    /// From now to the kill.
    #[serde(rename = "timeoutMillis", with = "millis")]
    pub timeout: Duration,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    pub how: How,
    /// The last 4 KiB of what it wrote, on either stream.
    pub output: String,
}

/// The ways a run ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, sent by somebody else.
    Killed(i32),
    /// The deadline came, and it was killed with all it started.
    TimedOut,
    /// It took more than it may, and was ended for that.
    LimitReached(String),
    /// It could not be started.
    CannotStart(String),
    /// Others were running and its turn came too late, or the machine takes no more processes.
    Overloaded(String),
    /// No descriptor was left for its pipe.
    NoDescriptors(String),
}

impl Ended {
    pub(super) fn without_output(how: How) -> Self {
        Self { how, output: String::new() }
    }

    pub(super) fn disabled() -> Self {
        Self::without_output(How::CannotStart("scripts are off".to_owned()))
    }
}

/// How scripts are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// This very program, of which workers are made.
    pub program: PathBuf,
    /// So many at once, at least one.
    pub at_once: usize,
    /// So many of one namespace at once, at least one.
    pub per_namespace: usize,
    pub limits: Limits,
    /// Set where scripts are several owners', and strangers to whoever runs them: the folder of the runner's socket,
    /// which they may not replace. There `HOME` is a script's own folder as `TMPDIR` is everywhere, and who fails while
    /// nothing can be written counts for nothing.
    pub sealed: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            // Also where the file was replaced meanwhile.
            program: "/proc/self/exe".into(),
            at_once: DEFAULT_CONCURRENCY,
            per_namespace: DEFAULT_CONCURRENCY,
            limits: Limits::default(),
            sealed: None,
        }
    }
}

/// Runs scripts beside this process, a bounded number at once, each in a worker: see [`work_if_asked`], which `main`
/// calls first.
#[derive(Clone, Debug)]
pub struct Scripts {
    turns: Turns,
    pool: Arc<Pool>,
}

impl Default for Scripts {
    fn default() -> Self {
        Self::new(&Setup::default())
    }
}

impl Scripts {
    /// Starts nothing yet.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        Self { turns: Turns::new(setup.at_once, setup.per_namespace), pool: Arc::new(Pool::new(setup)) }
    }

    /// Runs one script within its timeout. Dropping the future kills it with all it started.
    pub async fn run(&self, mut run: Run) -> Ended {
        let deadline = Instant::now() + run.timeout;
        let Some((turn, queued)) = self.turn(&run.namespace, run.timeout / QUEUE_SHARE).await else {
            return Ended::without_output(How::Overloaded(
                "too many scripts run at once; its turn did not come".into(),
            ));
        };
        run.timeout = deadline.saturating_duration_since(Instant::now());
        let ended = self.pool.run(&run, deadline).await;
        drop(turn);
        match ended.how {
            // Time spent in our queue is not the script's: what it might have done with it nobody knows.
            How::TimedOut if queued => Ended {
                how: How::Overloaded("too many scripts run at once; it had only part of its time".into()),
                ..ended
            },
            _ => ended,
        }
    }

    /// A turn, and whether it had to be waited for.
    async fn turn(&self, namespace: &str, patience: Duration) -> Option<(Turn, bool)> {
        if let Some(turn) = self.turns.now(namespace) {
            return Some((turn, false));
        }
        let turn = timeout(patience, self.turns.next(namespace)).await.ok()??;
        Some((turn, true))
    }
}

/// Exit 0 passes; `whole` is the timeout as it was written, for the message.
pub(super) fn judge(ended: &Ended, whole: Duration) -> Result<(), Failure> {
    let failure = match &ended.how {
        How::Exited(0) => return Ok(()),
        How::Exited(code) => Failure::new(Reason::ExitCode, told(&format!("exit code {code}"), &ended.output)),
        How::Killed(signal) => {
            let what = format!("killed by signal {signal}{}", signal_name(*signal));
            Failure::new(Reason::KilledBySignal, told(&what, &ended.output))
        }
        How::TimedOut => {
            Failure::new(Reason::TimeoutScript, told(&format!("no answer in {whole:?} (Script)"), &ended.output))
        }
        How::LimitReached(why) => Failure::new(Reason::ScriptLimitReached, told(why, &ended.output)),
        How::CannotStart(why) => Failure::new(Reason::CannotStart, why.clone()),
        How::Overloaded(why) => Failure::new(Reason::ProberOverloaded, why.clone()),
        How::NoDescriptors(why) => Failure::new(Reason::NoDescriptors, why.clone()),
    };
    Err(failure)
}

/// What a message may hold of a script's output, in characters.
const TOLD: usize = 200;

/// The end of the output says what went wrong, so that is what is told.
fn told(what: &str, output: &str) -> String {
    let output = output.trim();
    if output.is_empty() {
        return what.to_owned();
    }
    let skip = output.chars().count().saturating_sub(TOLD);
    let cut = if skip > 0 { "…" } else { "" };
    let end: String = output.chars().skip(skip).collect();
    format!("{what}: {cut}{end}")
}

const fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(how: How, output: &str) -> Ended {
        Ended { how, output: output.into() }
    }

    #[test]
    fn the_end_of_the_output_is_told() {
        let second = Duration::from_secs(1);
        assert_eq!(judge(&ended(How::Exited(0), "noise"), second), Ok(()));
        let told = |how, output: &str| judge(&ended(how, output), second).expect_err("a failure");
        assert_eq!(told(How::Exited(3), " disk full\n"), Failure::new(Reason::ExitCode, "exit code 3: disk full"));
        assert_eq!(told(How::Exited(3), ""), Failure::new(Reason::ExitCode, "exit code 3"));
        assert_eq!(told(How::Killed(9), "").message, "killed by signal 9 (SIGKILL)");
        assert_eq!(told(How::TimedOut, "").message, "no answer in 1s (Script)");
        let long = told(How::Exited(1), &format!("{}the cause", "x".repeat(5000)));
        assert!(long.message.ends_with("the cause") && long.message.chars().count() <= 256, "{long:?}");
    }

    #[test]
    fn what_keeps_a_script_from_running_is_ours() {
        let ours: [fn(String) -> How; 4] = [How::CannotStart, How::Overloaded, How::NoDescriptors, How::LimitReached];
        for how in ours.map(|how| how("x".into())) {
            let failure = judge(&ended(how, ""), Duration::ZERO).expect_err("a failure");
            assert_eq!(failure.reason.class(), None);
        }
    }
}

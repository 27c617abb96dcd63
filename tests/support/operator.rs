//! The built binary as a black box.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::ports::free_port;
use super::process::{Process, Starter};
use super::run_dir::sub_dir;
use super::wait::wait_while;

/// How long one request to the operator may take before the test gives up on it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_healthcheck-operator");

/// A subcommand and its arguments, not started yet.
#[derive(Clone, Debug)]
pub struct Command {
    args: Vec<String>,
    env: Vec<(String, String)>,
    under: Vec<String>,
    starter: Starter,
}

/// A running operator with both listeners on free loopback ports. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    public: u16,
    admin: u16,
    http: reqwest::Client,
}

/// An answer of one of its listeners.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

/// Begins a command: `command("controller").arg("--kubeconfig").arg(path).serve()`.
pub fn command(subcommand: &str) -> Command {
    Command { args: vec![subcommand.to_owned()], env: Vec::new(), under: Vec::new(), starter: Starter::default() }
}

impl Command {
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_string_lossy().into_owned());
        self
    }

    pub fn args<T: AsRef<OsStr>>(self, args: impl IntoIterator<Item = T>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.to_owned(), value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Has [`Command::serve`] start it by another program, which ends by executing what follows its own arguments.
    pub fn under(mut self, wrapper: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.under = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Has [`Command::serve`] start it from this thread, with all that holds for that.
    pub fn started_by(mut self, starter: Starter) -> Self {
        self.starter = starter;
        self
    }

    /// Starts it as a server: `--listen` and `--admin-listen` are added. Returns at once; use
    /// [`Operator::wait_alive`] when the test's first word is a request.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(self) -> anyhow::Result<Operator> {
        let (public, admin) = (free_port(), free_port());
        let listen = |flag: &str, port: u16| [flag.to_owned(), format!("127.0.0.1:{port}")];
        let mut args = self.args;
        args.extend(listen("--listen", public));
        args.extend(listen("--admin-listen", admin));
        let (program, args) = match self.under.split_first() {
            None => (BINARY, args),
            Some((program, own)) => {
                let binary = [BINARY.to_owned()];
                (program.as_str(), own.iter().cloned().chain(binary).chain(args).collect())
            }
        };
        let process = Process::start_by(self.starter, Path::new(program), &args, &self.env, &log_file())?;
        let http = reqwest::Client::builder()
            .no_proxy()
            // A redirect is an answer to look at.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_WITHIN)
            .build()?;
        Ok(Operator { process, public, admin, http })
    }

    /// Runs it to its end and returns exit code and output; it is killed after `bound`.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub async fn run(self, bound: Duration) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::new(BINARY);
        command.args(&self.args).envs(self.env).stdin(std::process::Stdio::null()).kill_on_drop(true);
        tokio::time::timeout(bound, command.output())
            .await
            .with_context(|| format!("{:?} did not end within {bound:?}", self.args))?
            .context("cannot run the operator's binary")
    }
}

impl Operator {
    /// The program itself: its pid, log and signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `http://127.0.0.1:PORT` of the public listener.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.public)
    }

    /// `http://127.0.0.1:PORT` of the admin listener.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// GET on the public listener.
    ///
    /// # Errors
    /// When there is no whole answer within 10 s; any status is an answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.answer(self.http.get(format!("{}{path}", self.url()))).await
    }

    /// GET on the admin listener.
    ///
    /// # Errors
    /// As [`Operator::get`].
    pub async fn admin_get(&self, path: &str) -> anyhow::Result<Answer> {
        self.answer(self.http.get(format!("{}{path}", self.admin_url()))).await
    }

    /// Waits until it says that it lives.
    ///
    /// # Errors
    /// After `bound`, or at once when it has ended, with the end of its log.
    pub async fn wait_alive(&self, bound: Duration) -> anyhow::Result<()> {
        self.wait_answer(&format!("{}/livez", self.admin_url()), bound, |answer| answer.status == 200).await?;
        Ok(())
    }

    /// Waits until a path of the public listener gives an answer that `good` likes.
    ///
    /// # Errors
    /// After `bound`, with the last answer; or when the operator has ended.
    pub async fn wait_get(
        &self,
        path: &str,
        bound: Duration,
        good: impl Fn(&Answer) -> bool,
    ) -> anyhow::Result<Answer> {
        self.wait_answer(&format!("{}{path}", self.url()), bound, good).await
    }

    async fn wait_answer(&self, url: &str, bound: Duration, good: impl Fn(&Answer) -> bool) -> anyhow::Result<Answer> {
        wait_while(
            || self.process.check_alive(),
            url,
            bound,
            || async {
                let answer = self.answer(self.http.get(url)).await?;
                ensure!(good(&answer), "{answer:?}");
                anyhow::Ok(answer)
            },
        )
        .await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }
}

fn log_file() -> std::path::PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    sub_dir("operators").join(format!("{}.log", STARTED.fetch_add(1, Ordering::Relaxed)))
}

//! `health-checker`: what gruntwork's program of that name did, asked by real clients. The rows of that system in the
//! table of what this program descends from each have a test here, and so has each of its mistakes.

mod clients;
mod flags;
mod haproxy;
mod held;
mod requests;
mod shared;
mod stop;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::checks::SOON;
use crate::support::operator::{Answer, BINARY};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::programs::skip;
use crate::support::run_dir::sub_dir;
use crate::support::wait::{wait_until, wait_while};

pub const GOOD: &str = "OK";
pub const BAD: &str = "At least one health check failed";

/// A running `health-checker`.
pub struct Checker {
    process: Process,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Checker {
    /// Starts it on a free port and waits until it listens.
    pub async fn start<T: AsRef<str>>(args: &[T]) -> anyhow::Result<Self> {
        Self::start_with(args, &[]).await
    }

    pub async fn start_with<T: AsRef<str>>(args: &[T], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listener = address.to_string();
        let args = ["health-checker", "--listener", &listener].into_iter().chain(args.iter().map(AsRef::as_ref));
        let args: Vec<String> = args.map(str::to_owned).collect();
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let process = Process::start(Path::new(BINARY), &args, &env, &log_file())?;
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build()?;
        wait_while(|| process.check_alive(), "the listener", SOON, || TcpStream::connect(address)).await?;
        Ok(Self { process, address, http })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.ask("GET", path).await
    }

    pub async fn ask(&self, method: &str, path: &str) -> anyhow::Result<Answer> {
        let response = self.http.request(method.parse()?, self.url(path)).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.text().await? })
    }

    pub async fn connect(&self) -> std::io::Result<Raw> {
        Ok(Raw { stream: TcpStream::connect(self.address).await?, read: Vec::new() })
    }

    /// Waits until its log holds `text` so many times.
    pub async fn logged(&self, text: &str, times: usize) -> anyhow::Result<()> {
        let look = || async {
            let log = self.process.output();
            ensure!(log.matches(text).count() >= times, "{log}");
            anyhow::Ok(())
        };
        wait_while(|| self.process.check_alive(), &format!("{times} times {text:?} in the log"), SOON, look).await
    }
}

/// Whether the answer is the original's for "all is well".
pub fn is_good(answer: &Answer) -> bool {
    (answer.status, answer.body.as_str(), failed(answer)) == (200, GOOD, None)
}

/// What the answer says failed, if it says so as the original does.
pub fn failed(answer: &Answer) -> Option<&str> {
    (answer.status == 504 && answer.body == BAD)
        .then(|| answer.headers.get("x-healthcheck-failed").map_or("", |value| value.to_str().expect("ASCII")))
}

/// A connection on which bytes are sent as they are.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    pub async fn send(&mut self, bytes: &str) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_bytes()).await
    }

    /// No more will be sent; answers can still come.
    pub async fn half_close(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// The next answer, head and body, of as many bytes as its head says.
    pub async fn answer(&mut self) -> anyhow::Result<String> {
        tokio::time::timeout(SOON, self.next()).await?
    }

    async fn next(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(length) = whole(&self.read) {
                let rest = self.read.split_off(length);
                return Ok(String::from_utf8(std::mem::replace(&mut self.read, rest))?);
            }
            let count = self.stream.read_buf(&mut self.read).await?;
            ensure!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Everything that comes until the other side closes.
    pub async fn rest(&mut self) -> anyhow::Result<String> {
        tokio::time::timeout(SOON, self.stream.read_to_end(&mut self.read)).await??;
        Ok(String::from_utf8(std::mem::take(&mut self.read))?)
    }
}

/// How many bytes the first answer in `bytes` has, once it is whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let head = text.find("\r\n\r\n")? + 4;
    let length = text[..head].to_ascii_lowercase();
    let length = length.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok())?;
    (bytes.len() >= head + length).then_some(head + length)
}

/// A script with these lines, made executable.
pub fn script(directory: &Path, name: &str, lines: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("a temporary file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our own file");
    path
}

/// Lines that a script may hold: it says in `begun` that it runs, and ends when there is `gate`.
pub fn gated(directory: &Path) -> String {
    let at = directory.display();
    format!("echo $$ >> {at}/begun\nwhile [ ! -e {at}/gate ]; do sleep 0.02; done")
}

pub fn begun(directory: &Path) -> usize {
    std::fs::read_to_string(directory.join("begun")).map_or(0, |text| text.lines().count())
}

/// Waits until so many gated scripts run, or have run.
pub async fn wait_begun(directory: &Path, times: usize) -> anyhow::Result<()> {
    wait_until("scripts to begin", SOON, || async {
        ensure!(begun(directory) == times, "{} have", begun(directory));
        anyhow::Ok(())
    })
    .await
}

pub fn open_gate(directory: &Path) -> std::io::Result<()> {
    std::fs::write(directory.join("gate"), "")
}

/// Whether the machine has `program`. Where it has not, the test that asks says so, and is over; CI must have it.
pub fn has(program: &str, version: &str) -> bool {
    let found = std::process::Command::new(program).arg(version).output().is_ok();
    assert!(found || skip(&format!("no {program} (Debian has a package of that name)")) == 0, "no {program}");
    found
}

fn log_file() -> PathBuf {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    sub_dir("health-checkers").join(format!("{}.log", STARTED.fetch_add(1, Ordering::Relaxed)))
}

//! Hosts outside the cluster, with real servers on them: `tests/node/host`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};

use crate::node::Node;
use crate::room::SOON;
use crate::support::wait::wait_until;

/// Where `serve(["http"])` listens.
pub const HTTP_PORT: u16 = 8080;
/// The path that probes ask for, so that they can be told from a client's requests.
pub const PROBED: &str = "/probed";

static MADE: AtomicU32 = AtomicU32::new(0);

#[derive(Clone)]
pub struct Host {
    node: Arc<Node>,
    pub name: String,
    pub ip: IpAddr,
}

impl Host {
    /// A host without servers, named after `name` and like no other.
    pub async fn add(node: &Arc<Node>, name: &str) -> anyhow::Result<Self> {
        let name = format!("{name}-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let said = node.script("host", &["add", &name]).await?;
        let ip = said.trim().parse().with_context(|| format!("host add printed {said:?}"))?;
        Ok(Self { node: Arc::clone(node), name, ip })
    }

    /// Starts a server and waits until it answers: `["http", "503"]`, `["postgres"]`, …
    pub async fn serve(&self, what: &[&str]) -> anyhow::Result<()> {
        self.act("serve", what).await.map(|_| ())
    }

    /// What the HTTP target answers from now on: a status code, `hang` or `close`.
    pub async fn answer(&self, answer: &str) -> anyhow::Result<()> {
        self.act("answer", &[answer]).await.map(|_| ())
    }

    /// Kills all servers of the host at once; the host stays.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.act("kill", &[]).await.map(|_| ())
    }

    /// Packets from and to it vanish from now on, or do no longer.
    pub async fn drop_packets(&self, dropped: bool) -> anyhow::Result<()> {
        self.act(if dropped { "drop" } else { "pass" }, &[]).await.map(|_| ())
    }

    /// Breaks it in one of the ways in which hosts die: `killed`, `dropped` (packets), or an answer of `http`.
    pub async fn break_by(&self, fault: &str) -> anyhow::Result<()> {
        match fault {
            "killed" => self.kill().await,
            "dropped" => self.drop_packets(true).await,
            answer => self.answer(answer).await,
        }
    }

    /// Undoes [`Host::break_by`].
    pub async fn mend(&self, fault: &str) -> anyhow::Result<()> {
        match fault {
            "killed" => self.serve(&["http"]).await,
            "dropped" => self.drop_packets(false).await,
            _ => self.answer("200").await,
        }
    }

    /// Any other action of `tests/node/host`.
    pub async fn act(&self, action: &str, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec![action, &self.name];
        all.extend(args);
        self.node.script("host", &all).await
    }

    pub async fn remove(&self) -> anyhow::Result<()> {
        self.act("remove", &[]).await.map(|_| ())
    }

    /// The directory that the host sees as `/srv`.
    pub fn directory(&self) -> PathBuf {
        self.node.run_dir().join("hosts").join(&self.name)
    }

    /// What a program of the host has printed.
    pub fn log(&self, program: &str) -> PathBuf {
        self.node.run_dir().join("log").join(format!("{}-{program}.log", self.name))
    }

    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// How many requests the HTTP target has seen.
    pub async fn hits(&self) -> anyhow::Result<u64> {
        self.hits_of("").await
    }

    /// Waits until the HTTP target was asked for [`PROBED`] `times` more: life goes on.
    ///
    /// # Errors
    /// After [`SOON`], with how often it was.
    pub async fn probed(&self, times: u64) -> anyhow::Result<()> {
        let before = self.hits_of(PROBED).await?;
        wait_until(&format!("further probes of {}", self.name), SOON, || async {
            let now = self.hits_of(PROBED).await?;
            ensure!(now >= before + times, "{now}, {before} before");
            anyhow::Ok(())
        })
        .await
    }

    /// How many requests for one path it has seen.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn hits_of(&self, path: &str) -> anyhow::Result<u64> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client.get(format!("http://{}/__hits{path}", self.at(HTTP_PORT))).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        Ok(answer.text().await?.trim().parse()?)
    }
}

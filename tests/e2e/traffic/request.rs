//! One request over a connection of its own.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The most that is read of an answer.
const ANSWER_MAX: u64 = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// `GET /`; answered by 200 and a body that says who answered.
    Http,
}

impl Question {
    /// Asks, and returns who answered.
    ///
    /// # Errors
    /// When there is no answer, or one that a user would not want.
    pub async fn ask(self, to: SocketAddr) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(to).await.context("connect")?;
        match self {
            Self::Http => http(&mut stream).await,
        }
    }
}

async fn http(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").await.context("send")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.context("receive")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "status {status}");
    Ok(body.trim().to_owned())
}

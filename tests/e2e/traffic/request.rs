//! One request over a connection of its own.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

/// The most that is read of an answer.
const ANSWER_MAX: u64 = 64 * 1024;

/// Where the clients' connections come from, one port after the other: below the ports that the kernel gives away, and
/// so many that at three clients' pace none comes again within 150 s. A node remembers for two minutes where it sent a
/// connection that was never answered, and sends what comes from the same port there too, whatever its rules say by
/// then: for a client whose kernel starts anew at some port every ten seconds that looks like a late failure.
const PORTS: Range<u16> = 10_000..32_768;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// `GET /`; answered by 200 and a body that says who answered.
    Http,
    /// A row into the table `orders` of a PostgreSQL, which answers with the address that it was asked at.
    Insert,
    /// A value set in a Redis, which a replica refuses; answered by the address that it was asked at.
    Set,
}

impl Question {
    /// Asks, and returns who answered.
    ///
    /// # Errors
    /// When there is no answer within `within`, or one that a user would not want. Who is not even connected by then
    /// was not heard; who is, was not answered.
    pub async fn ask(self, to: SocketAddr, within: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + within;
        let connected = timeout_at(deadline, connect(to)).await;
        let mut stream = connected.with_context(|| format!("no connection in {within:?}"))?.context("connect")?;
        let answered = timeout_at(deadline, async {
            match self {
                Self::Http => http(&mut stream).await,
                Self::Insert => insert(&mut stream).await,
                Self::Set => set(&mut stream).await,
            }
        });
        answered.await.with_context(|| format!("no answer in {within:?}"))?
    }
}

async fn http(stream: &mut TcpStream) -> anyhow::Result<String> {
    let (status, body) = http_whole(stream).await?;
    ensure!(status == "200", "status {status}");
    Ok(body)
}

/// Who answers a request, whatever the answer.
///
/// # Errors
/// When nobody does.
pub async fn who(to: SocketAddr) -> anyhow::Result<String> {
    let mut stream = connect(to).await.context("connect")?;
    Ok(http_whole(&mut stream).await?.1)
}

/// A connection from the next of [`PORTS`].
async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    for _ in 0..PORTS.len() {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let nth = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len();
        let port = PORTS.clone().nth(nth).expect("there are so many");
        match socket.bind((any.ip(), port).into()) {
            // Somebody listens there.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            bound => {
                bound?;
                return socket.connect(to).await;
            }
        }
    }
    Err(std::io::ErrorKind::AddrInUse.into())
}

/// Status and body.
async fn http_whole(stream: &mut TcpStream) -> anyhow::Result<(String, String)> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: e2e\r\nConnection: close\r\n\r\n").await.context("send")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).await.context("receive")?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    Ok((status.to_owned(), body.trim().to_owned()))
}

/// Redis's protocol, as one would type it.
async fn set(stream: &mut TcpStream) -> anyhow::Result<String> {
    stream.write_all(b"SET orders 1\r\nCLIENT INFO\r\nQUIT\r\n").await.context("send")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await.context("receive")?;
    ensure!(answer.starts_with("+OK\r\n"), "{}", answer.lines().next().unwrap_or("nothing"));
    let at = answer.split(' ').find_map(|word| word.strip_prefix("laddr=")).context("no address in the answer")?;
    Ok(at.rsplit_once(':').map_or(at, |(ip, _)| ip).to_owned())
}

/// PostgreSQL's protocol 3.0, as far as a user who is trusted needs it.
async fn insert(stream: &mut TcpStream) -> anyhow::Result<String> {
    let hello = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    stream.write_all(&[&(hello.len() as u32 + 4).to_be_bytes(), &hello[..]].concat()).await.context("send")?;
    answers(stream).await.context("the session")?;
    let query = b"INSERT INTO orders DEFAULT VALUES RETURNING host(inet_server_addr())\0";
    let head = [b"Q", &(query.len() as u32 + 4).to_be_bytes()[..]].concat();
    stream.write_all(&[&head, &query[..]].concat()).await.context("send")?;
    answers(stream).await.context("the query")?.context("no row came back")
}

/// Reads until the server is ready for a query; returns the first column of the first row, if there was one.
async fn answers(stream: &mut TcpStream) -> anyhow::Result<Option<String>> {
    let mut row = None;
    loop {
        let (kind, length) = (stream.read_u8().await?, stream.read_u32().await?);
        let length = length.checked_sub(4).filter(|length| u64::from(*length) <= ANSWER_MAX);
        let mut body = vec![0; length.context("a message of no such length")? as usize];
        stream.read_exact(&mut body).await?;
        match kind {
            b'Z' => return Ok(row),
            b'E' => anyhow::bail!("{}", String::from_utf8_lossy(&body).replace('\0', " ").trim_end()),
            // Two bytes say how many columns, four how long the first is.
            b'D' => row = body.get(6..).map(|column| String::from_utf8_lossy(column).into_owned()),
            _ => {}
        }
    }
}

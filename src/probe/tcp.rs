//! The TCP probe: that somebody listens, and says what is expected.

mod receive;

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::receive::Awaited;
use super::{
    ask::{Answer, Ask, Asked},
    dial::{self, Manner},
    exchange::{Exchange, Stream, answered},
    failure::{self, Failure, Moment},
    progress::{Phase, Progress},
    tls::Protocol,
};
use crate::check::{Handshake, Reason, TcpProbe};

/// The most that is read of what a target sends.
const MAX_READ: usize = 64 * 1024;

impl Ask for Exchange<'_, TcpProbe> {
    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        // Somebody has accepted, and may log how it ended.
        let opened = self.open(address, Manner::Polite, Protocol::Bytes, progress).await?;
        answered(self.converse(opened.stream, progress).await, opened.certificate_expires)
    }
}

impl Exchange<'_, TcpProbe> {
    async fn converse(&self, mut stream: Stream, progress: &Progress) -> Result<(), Failure> {
        if let Some(bytes) = &self.probe.send {
            progress.reach(Phase::Request);
            let sent = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            };
            sent.await.map_err(|error| failure::from_io(&error, Moment::Arrived))?;
        }
        if !self.probe.receive.is_empty() {
            progress.reach(Phase::Receive);
            self.listen(&mut stream, progress).await?;
        }
        // The target has said what it was asked: whether it hears our goodbye is nothing against it.
        let _ = stream.shutdown().await;
        Ok(())
    }

    async fn listen(&self, stream: &mut Stream, progress: &Progress) -> Result<(), Failure> {
        let mut awaited = Awaited::new(&self.probe.receive);
        let mut heard = Vec::with_capacity(1024);
        loop {
            let before = heard.len();
            let room = (MAX_READ - before) as u64;
            let count = stream
                .take(room)
                .read_buf(&mut heard)
                .await
                .map_err(|error| failure::from_io(&error, Moment::Arrived))?;
            if awaited.found_all(&heard) {
                return Ok(());
            }
            progress.heard(heard.len(), awaited.found() + 1, self.probe.receive.len());
            let missing = |end: &str| {
                let (next, all) = (awaited.found() + 1, self.probe.receive.len());
                let message = format!("unexpected answer; {} bytes{end}, without block {next} of {all}", heard.len());
                Failure::new(Reason::ReceiveMismatch, message)
            };
            match count {
                0 if before == MAX_READ => return Err(missing("")),
                0 => return Err(missing(" until it closed")),
                _ => {}
            }
        }
    }
}

/// Connects and lets go. The SYN/ACK is the proof either way; only `Full` is ever accepted by the target.
impl Ask for Handshake {
    async fn ask(&self, address: SocketAddr, progress: &Progress) -> Asked {
        progress.reach(Phase::Connect);
        let manner = match self {
            Self::HalfOpen => Manner::HalfOpen,
            Self::Full => Manner::Polite,
        };
        dial::connect(address, manner).await?;
        Ok(Answer::plain())
    }
}

//! The TCP probe: that somebody listens, and says what is expected.

mod receive;

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::receive::Awaited;
use super::{
    dial::{self, Manner},
    failure::{self, Failure, Moment},
    progress::{Phase, Progress},
    tls::{self, Protocol, TlsClients},
};
use crate::check::{Dial, Handshake, Host, Reason, TcpProbe};

/// The most that is read of what a target sends.
const MAX_READ: usize = 64 * 1024;

/// Everything one address is asked with.
pub(super) struct Exchange<'a> {
    pub probe: &'a TcpProbe,
    pub dial: &'a Dial,
    /// With a TLS handshake, and whom it trusts.
    pub setting: Option<&'a tls::Setting>,
    pub tls: &'a TlsClients,
    pub progress: &'a Progress,
}

impl Exchange<'_> {
    /// Asks `address`. When the certificate expires that it showed, in seconds since the epoch.
    pub async fn talk(&self, address: SocketAddr) -> Result<Option<i64>, Failure> {
        self.progress.reach(Phase::Connect);
        // Somebody has accepted, and may log how it ended.
        let stream = dial::connect(address, Manner::Polite).await?;
        let Some(setting) = self.setting else { return self.exchange(stream).await.map(|()| None) };
        self.progress.reach(Phase::Tls);
        let name = self.server_name(address)?;
        let (stream, expires) = self.tls.handshake(stream, setting, Protocol::Bytes, &name).await?;
        self.exchange(stream)
            .await
            .map(|()| expires)
            .map_err(|failure| Failure { certificate_expires: expires, ..failure })
    }

    /// `tls.serverName`, else the host that is dialed.
    fn server_name(&self, address: SocketAddr) -> Result<ServerName<'static>, Failure> {
        let written = self.probe.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        match (written, &self.dial.host) {
            (Some(name), _) => tls::server_name(name),
            (None, Host::Name(name)) => tls::server_name(name),
            (None, Host::Address(_)) => Ok(ServerName::IpAddress(address.ip().into())),
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> Result<(), Failure> {
        if let Some(bytes) = &self.probe.send {
            self.progress.reach(Phase::Request);
            let sent = async {
                stream.write_all(bytes).await?;
                stream.flush().await
            };
            sent.await.map_err(|error| failure::from_io(&error, Moment::Arrived))?;
        }
        if !self.probe.receive.is_empty() {
            self.progress.reach(Phase::Receive);
            self.listen(&mut stream).await?;
        }
        // The target has said what it was asked: whether it hears our goodbye is nothing against it.
        let _ = stream.shutdown().await;
        Ok(())
    }

    async fn listen<S: AsyncRead + Unpin>(&self, stream: &mut S) -> Result<(), Failure> {
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
pub(super) async fn connect(address: SocketAddr, handshake: Handshake, progress: &Progress) -> Result<(), Failure> {
    progress.reach(Phase::Connect);
    let manner = match handshake {
        Handshake::HalfOpen => Manner::HalfOpen,
        Handshake::Full => Manner::Polite,
    };
    dial::connect(address, manner).await.map(drop)
}

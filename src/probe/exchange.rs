//! An open connection to talk over, with TLS or without.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{
    ask::{Answer, Asked},
    dial::{self, Manner},
    failure::Failure,
    progress::{Phase, Progress},
    tls::{self, Protocol, TlsClients},
};
use crate::check::{Dial, Host};

pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Everything one address is asked with, whatever `probe` asks.
pub(super) struct Exchange<'a, P> {
    pub probe: &'a P,
    pub dial: &'a Dial,
    pub tls: Option<Tls<'a>>,
}

/// That there is a TLS handshake, and whom it trusts.
#[derive(Clone, Copy)]
pub(super) struct Tls<'a> {
    pub clients: &'a TlsClients,
    pub setting: &'a tls::Setting,
    /// The name that the certificate must bear, where it is not the host that is dialed.
    pub server_name: Option<&'a str>,
}

/// What was opened.
pub(super) struct Opened {
    pub stream: Stream,
    /// When the certificate expires that was shown, in seconds since the epoch.
    pub certificate_expires: Option<i64>,
}

impl<P> Exchange<'_, P> {
    /// Opens a connection to `address`.
    pub async fn open(
        &self,
        address: SocketAddr,
        manner: Manner,
        protocol: Protocol,
        progress: &Progress,
    ) -> Result<Opened, Failure> {
        let name = match self.tls {
            Some(tls) => Some((tls, self.server_name(&tls, address)?)),
            None => None,
        };
        open(address, manner, name.as_ref().map(|(tls, name)| (tls, protocol, name)), progress).await
    }

    fn server_name(&self, tls: &Tls<'_>, address: SocketAddr) -> Result<ServerName<'static>, Failure> {
        match (tls.server_name, &self.dial.host) {
            (Some(name), _) => tls::server_name(name),
            (None, Host::Name(name)) => tls::server_name(name),
            (None, Host::Address(_)) => Ok(ServerName::IpAddress(address.ip().into())),
        }
    }
}

/// Opens a connection to `address`, with TLS where `tls` says so.
pub(super) async fn open(
    address: SocketAddr,
    manner: Manner,
    tls: Option<(&Tls<'_>, Protocol, &ServerName<'static>)>,
    progress: &Progress,
) -> Result<Opened, Failure> {
    progress.reach(Phase::Connect);
    let stream = dial::connect(address, manner).await?;
    let Some((tls, protocol, name)) = tls else {
        return Ok(Opened { stream: Either::Left(stream), certificate_expires: None });
    };
    progress.reach(Phase::Tls);
    let (stream, certificate_expires) = tls.clients.handshake(stream, tls.setting, protocol, name).await?;
    Ok(Opened { stream: Either::Right(stream), certificate_expires })
}

/// What `result` means over a connection whose certificate expires then.
pub(super) fn answered(result: Result<(), Failure>, certificate_expires: Option<i64>) -> Asked {
    match result {
        Ok(()) => Ok(Answer { certificate_expires, ..Answer::plain() }),
        Err(failure) => Err(Failure { certificate_expires, ..failure }),
    }
}

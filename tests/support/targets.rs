//! Things to be probed that do as they are told: real sockets whose answers a test switches.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::door::Door;
use super::ports::free_port;
use super::wait::wait_for;

/// A free port on 127.0.0.1.
pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// What an HTTP target does; shared with its connections.
#[derive(Debug)]
struct HttpState {
    status: AtomicU16,
    hangs: AtomicBool,
    hits: AtomicU64,
    last: Mutex<Option<http::request::Parts>>,
}

impl HttpState {
    fn answering(status: u16) -> Arc<Self> {
        Arc::new(Self {
            status: AtomicU16::new(status),
            hangs: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            last: Mutex::new(None),
        })
    }
}

/// An HTTP/1 server that answers every request with one switchable status.
pub struct HttpTarget {
    door: Door,
    state: Arc<HttpState>,
}

impl HttpTarget {
    /// Listens on a free loopback port and answers 200.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(loopback()).await
    }

    /// Listens on an address and answers 200.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_on(address: SocketAddr) -> std::io::Result<Self> {
        let state = HttpState::answering(200);
        let shared = Arc::clone(&state);
        let door = Door::open(address, move |stream| serve_http(stream, Arc::clone(&shared))).await?;
        Ok(Self { door, state })
    }

    /// The same behind TLS, on a free loopback port, with a certificate and its key as PEM files.
    ///
    /// # Errors
    /// When the address cannot be bound, or the files hold no certificate with its key.
    pub async fn start_tls(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = HttpState::answering(200);
        let shared = Arc::clone(&state);
        let door = Door::open(loopback(), move |stream| {
            let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
            async move {
                // Who does not trust the certificate goes away here.
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_http(stream, shared).await;
                }
            }
        })
        .await?;
        Ok(Self { door, state })
    }

    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    pub fn ip(&self) -> IpAddr {
        self.address().ip()
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// Answers this status from now on.
    pub fn set_status(&self, status: u16) {
        self.state.status.store(status, Ordering::Relaxed);
    }

    /// From now on reads requests (and counts them) but never answers; or answers again. A
    /// request that hangs already stays so.
    pub fn set_hangs(&self, hangs: bool) {
        self.state.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Requests seen so far.
    pub fn hits(&self) -> u64 {
        self.state.hits.load(Ordering::Relaxed)
    }

    /// The last request's head.
    pub fn last_request(&self) -> Option<http::request::Parts> {
        self.state.last.lock().expect("no holder of this lock panics").clone()
    }

    /// Waits until it was asked `more` times from now on: "life goes on".
    ///
    /// # Errors
    /// After `bound`.
    pub async fn wait_hits(&self, more: u64, bound: Duration) -> anyhow::Result<u64> {
        let enough = self.hits() + more;
        wait_for("hits at the target", bound, || self.hits(), |hits| *hits >= enough).await
    }

    /// Stops listening: connections are refused.
    pub async fn close(&self) {
        self.door.shut().await;
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When somebody else took it.
    pub async fn reopen(&self) -> std::io::Result<()> {
        self.door.reopen().await
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<HttpState>) {
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let status = state.status.load(Ordering::Relaxed);
            let hangs = state.hangs.load(Ordering::Relaxed);
            *state.last.lock().expect("no holder of this lock panics") = Some(request.into_parts().0);
            state.hits.fetch_add(1, Ordering::Relaxed);
            if hangs {
                std::future::pending::<()>().await;
            }
            http::Response::builder().status(status).body(Full::new(Bytes::from_static(b"target\n")))
        }
    });
    // A client that goes away in the middle is no concern of the target's.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A TCP listener that accepts, says nothing and keeps the connection until the peer closes it.
pub struct TcpTarget {
    door: Door,
}

impl TcpTarget {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_on(loopback()).await
    }

    /// Listens on an address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start_on(address: SocketAddr) -> std::io::Result<Self> {
        let door = Door::open(address, |mut stream: TcpStream| async move {
            let mut buffer = [0; 1024];
            while matches!(stream.read(&mut buffer).await, Ok(count) if count > 0) {}
        })
        .await?;
        Ok(Self { door })
    }

    pub fn address(&self) -> SocketAddr {
        self.door.address()
    }

    pub fn ip(&self) -> IpAddr {
        self.address().ip()
    }

    pub fn port(&self) -> u16 {
        self.address().port()
    }

    /// Connections accepted so far. A half-open probe, which never completes the handshake, is
    /// not among them: count those with an HTTP target or a `Full` handshake.
    pub fn connections(&self) -> u64 {
        self.door.accepted()
    }

    /// Waits until `more` connections came in from now on.
    ///
    /// # Errors
    /// After `bound`.
    pub async fn wait_connections(&self, more: u64, bound: Duration) -> anyhow::Result<u64> {
        let enough = self.connections() + more;
        wait_for("connections at the target", bound, || self.connections(), |seen| *seen >= enough).await
    }

    /// Stops listening: connections are refused.
    pub async fn close(&self) {
        self.door.shut().await;
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When somebody else took it.
    pub async fn reopen(&self) -> std::io::Result<()> {
        self.door.reopen().await
    }
}

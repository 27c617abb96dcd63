//! A TLS server of the test's own, and the authorities that sign for it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use healthcheck_operator::{
    check::{Reason, Reference, ReferenceKind, Tls, TlsMode},
    probe::{Prober, ReferenceResult, References, Settings},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    DEFAULT_VERSIONS, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{LOOPBACK, read_head};

/// An authority made for one test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        Self { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for `names` that holds in these years.
    pub fn leaf(&self, names: &[&str], years: (i32, i32)) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = leaf_params(names, years).signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

pub fn leaf_params(names: &[&str], (from, to): (i32, i32)) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    params
}

/// [`Authority::leaf`] and its key, both in PEM.
pub fn leaf_pem(authority: &Authority, names: &[&str], years: (i32, i32)) -> (String, String) {
    let (certificate, key) = authority.leaf(names, years);
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    (pem("CERTIFICATE", &certificate), pem("PRIVATE KEY", key.secret_der()))
}

pub const VALID: (i32, i32) = (2000, 2100);

pub type Leaf = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// What one handshake came to.
#[derive(Clone, Debug)]
pub struct Session {
    pub kind: HandshakeKind,
    pub server_name: Option<String>,
    pub protocol: Option<String>,
    /// The client has shown a certificate.
    pub client: bool,
}

/// A TLS server.
pub struct Secured {
    pub address: SocketAddr,
    sessions: Arc<Mutex<Vec<Session>>>,
}

/// How it makes its handshakes.
pub struct Handshakes<'a> {
    pub versions: &'a [&'static SupportedProtocolVersion],
    pub offers: &'a [&'a str],
    /// Whose certificate a client must show.
    pub clients: Option<&'a Authority>,
}

impl Default for Handshakes<'_> {
    fn default() -> Self {
        Self { versions: DEFAULT_VERSIONS, offers: &["http/1.1"], clients: None }
    }
}

impl Secured {
    /// Answers 200 to every request, over the protocol that was agreed on, for as long as the client likes.
    pub async fn start(leaf: Leaf, handshakes: Handshakes<'_>) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(config(leaf, handshakes)));
        let sessions = Arc::new(Mutex::new(vec![]));
        let keep = Arc::clone(&sessions);
        let listener = TcpListener::bind((LOOPBACK, 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let (_, session) = stream.get_ref();
                let protocol = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
                let two = protocol.as_deref() == Some("h2");
                keep.lock().expect("no panic").push(Session {
                    kind: session.handshake_kind().expect("done"),
                    server_name: session.server_name().map(str::to_owned),
                    protocol,
                    client: session.peer_certificates().is_some(),
                });
                tokio::spawn(async move { if two { serve_two(stream).await } else { serve_one(stream).await } });
            }
        });
        Self { address, sessions }
    }

    /// The handshakes that were finished.
    pub fn sessions(&self) -> Vec<Session> {
        self.sessions.lock().expect("no panic").clone()
    }
}

fn config((certificate, key): Leaf, handshakes: Handshakes<'_>) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(handshakes.versions)
        .expect("versions");
    let builder = match handshakes.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM")).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let mut config = builder.with_single_cert(vec![certificate], key).expect("a certificate");
    config.alpn_protocols = handshakes.offers.iter().map(|offer| offer.as_bytes().to_vec()).collect();
    config
}

async fn serve_one<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    while !read_head(&mut stream).await.is_empty() {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let _ = stream.flush().await;
    }
}

async fn serve_two<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let _ = respond.send_response(http::Response::new(()), true);
    }
}

/// What references lead to, by key.
#[derive(Clone, Default)]
pub struct Values(Arc<Mutex<HashMap<String, String>>>);

impl Values {
    pub fn new(values: &[(&str, &str)]) -> Self {
        let made = Self::default();
        values.iter().for_each(|(key, value)| made.set(key, value));
        made
    }

    pub fn set(&self, key: &str, value: &str) {
        self.0.lock().expect("no panic").insert(key.to_owned(), value.to_owned());
    }

    pub fn remove(&self, key: &str) {
        self.0.lock().expect("no panic").remove(key);
    }
}

impl References for Values {
    fn get<'a>(&'a self, _: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        let value = self.0.lock().expect("no panic").get(&*reference.key).cloned();
        let missing = || (Reason::SecretMissing, format!("key '{}' is not there", reference.key));
        Box::pin(std::future::ready(value.map(Bytes::from).ok_or_else(missing)))
    }
}

/// A prober whose references lead to `values`.
pub fn prober(values: &Values) -> Prober {
    Prober::new(Settings { references: Arc::new(values.clone()), ..Settings::standalone() })
}

pub fn reference(kind: ReferenceKind, name: &str, key: &str) -> Reference {
    Reference { kind, name: name.into(), key: key.into() }
}

/// Trusts `ca.crt` of the ConfigMap `ca`.
pub fn verify(server_name: Option<&str>) -> Tls {
    let ca = reference(ReferenceKind::ConfigMap, "ca", "ca.crt");
    Tls { mode: TlsMode::Verify, server_name: server_name.map(Into::into), ca: Some(ca), client: None }
}

pub fn skip() -> Tls {
    Tls { mode: TlsMode::SkipVerify, ..Tls::default() }
}

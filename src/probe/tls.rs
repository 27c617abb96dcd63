//! TLS for probes: rustls with aws-lc-rs, handed over explicitly so that no process-wide default matters.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{net::TcpStream, sync::OnceCell, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    failure::{self, Failure, Moment},
    references::References,
};
use crate::check::{ObjectKey, Reason, Reference, Text, Tls, TlsMode};

/// Whom a probe trusts, and who it is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Setting {
    pub trust: Trust,
    pub client: Option<Identity>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// The authorities of this machine.
    System,
    /// These, in PEM; `name` says where they come from.
    Authorities { pem: Bytes, name: String },
    /// Anybody.
    SkipVerify,
}

/// A client certificate with its key, both in PEM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    certificate: Bytes,
    key: Bytes,
    /// The Secret they come from.
    secret: Text,
}

/// What is said over the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// HTTP/2 or HTTP/1.1, as the target likes.
    Http,
    Http1,
    Http2,
    /// Nothing that has a name for ALPN.
    Bytes,
}

impl Protocol {
    fn alpn(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
            Self::Http2 => vec![b"h2".to_vec()],
            Self::Bytes => vec![],
        }
    }
}

/// What `tls` asks for, with the values of its references.
pub(super) async fn setting(tls: &Tls, check: &ObjectKey, references: &dyn References) -> Result<Setting, Failure> {
    let get = async |reference: &Reference| {
        let value = references.get(&check.namespace, reference).await;
        value.map_err(|(reason, message)| Failure::new(reason, message))
    };
    let trust = match &tls.ca {
        _ if tls.mode == TlsMode::SkipVerify => Trust::SkipVerify,
        None => Trust::System,
        Some(reference) => {
            let name = format!("key '{}' of {} '{}'", reference.key, reference.kind.as_str(), reference.name);
            Trust::Authorities { pem: get(reference).await?, name }
        }
    };
    let client = match &tls.client {
        None => None,
        Some(client) => {
            let (certificate, key) = (get(&client.certificate).await?, get(&client.key).await?);
            Some(Identity { certificate, key, secret: client.key.name.clone() })
        }
    };
    Ok(Setting { trust, client })
}

/// `text` as the name that a certificate must bear: a DNS name, or an address, in brackets or without.
pub(super) fn server_name(text: &str) -> Result<ServerName<'static>, Failure> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        let message = format!("'{text}' is no name a certificate can bear; set tls.serverName");
        Failure::new(Reason::CannotStart, message)
    })
}

/// How many differing settings are kept; the one used least recently makes room.
const MAX_CONFIGS: usize = 64;
/// A resumed session shows no new certificate, so each setting starts afresh at least this often.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Sessions kept for resumption, per setting: those of 1,024 names, as rustls counts eight tickets for each.
const SESSIONS: usize = 8 * 1024;

/// Shared client configurations, so that sessions are resumed from one attempt to the next.
pub(super) struct TlsClients {
    provider: Arc<CryptoProvider>,
    roots: OnceCell<Arc<RootCertStore>>,
    configs: Mutex<HashMap<Key, Entry>>,
}

/// Of one client configuration.
type Key = (Protocol, Setting);

struct Entry {
    config: Arc<ClientConfig>,
    made: Instant,
    used: Instant,
}

impl TlsClients {
    pub fn new() -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            roots: OnceCell::new(),
            configs: Mutex::new(HashMap::new()),
        }
    }

    /// Makes the handshake on `stream`. With it comes when the leaf certificate expires, in seconds since the epoch.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        setting: &Setting,
        protocol: Protocol,
        name: &ServerName<'static>,
    ) -> Result<(TlsStream<TcpStream>, Option<i64>), Failure> {
        let config = self.config(setting, protocol).await?;
        let stream =
            TlsConnector::from(config).connect(name.clone(), stream).await.map_err(|error| explain_io(&error))?;
        let (_, session) = stream.get_ref();
        let expires = session.peer_certificates().and_then(|chain| chain.first()).and_then(not_after);
        // A resumed session was verified when it began; whether its certificate still holds is asked each time.
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        if let Some(expires) = expires
            && resumed
            && setting.trust != Trust::SkipVerify
            && expires < now()
        {
            return Err(expired(Some(expires)));
        }
        Ok((stream, expires))
    }

    async fn config(&self, setting: &Setting, protocol: Protocol) -> Result<Arc<ClientConfig>, Failure> {
        let key = (protocol, setting.clone());
        if let Some(config) = self.known(&key) {
            return Ok(config);
        }
        let config = Arc::new(self.make(setting, protocol).await?);
        self.keep(key, &config);
        Ok(config)
    }

    fn known(&self, key: &Key) -> Option<Arc<ClientConfig>> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = configs.get_mut(key).filter(|entry| entry.made.elapsed() < MAX_AGE)?;
        entry.used = Instant::now();
        Some(Arc::clone(&entry.config))
    }

    fn keep(&self, key: Key, config: &Arc<ClientConfig>) {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if configs.len() >= MAX_CONFIGS && !configs.contains_key(&key) {
            let oldest = configs.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                configs.remove(&oldest);
            }
        }
        let now = Instant::now();
        configs.insert(key, Entry { config: Arc::clone(config), made: now, used: now });
    }

    async fn make(&self, setting: &Setting, protocol: Protocol) -> Result<ClientConfig, Failure> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(Reason::CannotStart, format!("TLS cannot be set up: {error}")))?;
        let builder = match &setting.trust {
            Trust::System => builder.with_root_certificates(self.system_roots().await?),
            Trust::Authorities { pem, name } => builder.with_root_certificates(authorities(pem, name)?),
            Trust::SkipVerify => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(Arc::clone(&self.provider))))
            }
        };
        let mut config = match &setting.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let (chain, key) = client.parse()?;
                builder.with_client_auth_cert(chain, key).map_err(|_| {
                    client.wrong("its tls.key is not the key of its tls.crt, or is of a kind that TLS does not know")
                })?
            }
        };
        config.alpn_protocols = protocol.alpn();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }

    async fn system_roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        let load = || async {
            let store = tokio::task::spawn_blocking(load_roots)
                .await
                .map_err(|error| Failure::new(Reason::CannotStart, format!("certificate authorities: {error}")))?;
            if store.is_empty() {
                let message = "this machine has no certificate authorities to trust; set tls.caRef or SSL_CERT_FILE";
                return Err(Failure::new(Reason::CannotStart, message));
            }
            Ok(Arc::new(store))
        };
        self.roots.get_or_try_init(load).await.cloned()
    }
}

fn load_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!(%error, "a certificate authority of this machine could not be read");
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    store
}

impl Identity {
    fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| self.wrong("its tls.crt holds no certificate in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key);
        Ok((chain, key.map_err(|_| self.wrong("its tls.key holds no private key in PEM"))?))
    }

    fn wrong(&self, why: &str) -> Failure {
        Failure::new(
            Reason::SecretMissing,
            format!("Secret '{}' cannot be used as a client certificate: {why}", self.secret),
        )
    }
}

fn authorities(pem: &[u8], name: &str) -> Result<RootCertStore, Failure> {
    let wrong = |why: &str| Failure::new(Reason::SecretMissing, format!("{name} {why}"));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| wrong("is not PEM"))?;
        store.add(certificate).map_err(|_| wrong("holds a certificate that cannot be read"))?;
    }
    if store.is_empty() { Err(wrong("holds no certificate in PEM")) } else { Ok(store) }
}

fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn explain_io(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => explain(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Failure::new(Reason::ConnectionClosed, "connection closed in the TLS handshake")
        }
        None => failure::from_io(error, Moment::Arrived).within("TLS handshake"),
    }
}

/// What rustls' refusal says about the target.
pub(super) fn explain(error: &Error) -> Failure {
    match error {
        Error::InvalidCertificate(CertificateError::Expired) => expired(None),
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            expired(i64::try_from(not_after.as_secs()).ok())
        }
        // What a self-signed certificate made by `openssl req -x509` is.
        Error::InvalidCertificate(CertificateError::Other(other)) if other.0.to_string() == "CaUsedAsEndEntity" => {
            let why = "it is an authority's, not a server's (self-signed?)";
            Failure::new(Reason::CertificateInvalid, format!("certificate refused: {why}"))
        }
        Error::InvalidCertificate(error) => {
            Failure::new(Reason::CertificateInvalid, format!("certificate refused: {error}"))
        }
        Error::NoCertificatesPresented => Failure::new(Reason::CertificateInvalid, "no certificate was shown"),
        Error::InvalidMessage(_) => {
            Failure::new(Reason::TlsHandshakeFailed, "TLS handshake failed: the target does not speak TLS on this port")
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            let why = "the target asks for a client certificate; set tls.clientCertRef";
            Failure::new(Reason::TlsHandshakeFailed, format!("TLS handshake failed: {why}"))
        }
        error => Failure::new(Reason::TlsHandshakeFailed, format!("TLS handshake failed: {error}")),
    }
}

fn expired(at: Option<i64>) -> Failure {
    let when = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    let message = match when {
        Some(when) => format!("certificate expired at {when}"),
        None => "certificate expired".to_owned(),
    };
    Failure { certificate_expires: at, ..Failure::new(Reason::CertificateExpired, message) }
}

/// Takes any certificate (`tls.mode: SkipVerify`), but still sees that the peer holds its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "../../tests/support/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        mutate::{mutated, seeds},
        *,
    };

    #[test]
    fn a_certificate_says_when_it_ends() {
        for seed in seeds("certificate") {
            assert!(not_after(&CertificateDer::from(seed)).is_some());
        }
    }

    proptest! {
        #[test]
        fn no_certificate_makes_it_panic(der in mutated("certificate")) {
            let expires = not_after(&CertificateDer::from(der));
            // Whatever it says can be told.
            let _ = expired(expires);
        }
    }
}

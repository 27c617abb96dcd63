//! The way to a runner from other pods: mutual TLS in front of its socket.
//!
//! A process and a container of its own, so that scripts cannot read its key: they run beside the runner, as its user.

use std::{io, net::TcpListener as StdListener, path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    MAX_CLIENTS, TALK_LIMIT,
    pem::{Kept, Pem, PemError, PemFiles},
};

/// Lets in whoever shows a certificate of the right authority, and of the right name where one is asked for.
#[derive(Debug)]
pub struct Door {
    config: Kept<ServerConfig>,
    socket: PathBuf,
}

impl Door {
    /// A door to the runner at `socket`. `client` is the DNS name that a client's certificate must bear; without one
    /// every client of the authorities is let in.
    ///
    /// # Errors
    /// The files cannot be read, or do not hold what they should.
    pub fn new(files: PemFiles, client: Option<ServerName<'static>>, socket: PathBuf) -> Result<Self, PemError> {
        let config = Kept::load(files, move |pem| server_config(pem, client.clone()))?;
        Ok(Self { config, socket })
    }

    /// Serves on `listener`, which does not block, until `stop` is done.
    ///
    /// # Errors
    /// The system does not take the listener.
    pub async fn serve(self, listener: StdListener, stop: impl Future<Output = ()>) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let (door, clients, cancel) = (Arc::new(self), TaskTracker::new(), CancellationToken::new());
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = async {
                    // Never closed, so there is always a permit to come.
                    (Arc::clone(&room).acquire_owned().await, listener.accept().await)
                } => accepted,
            };
            let (Ok(permit), accepted) = accepted else { continue };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    // Out of descriptors, say: the next try must not come at once.
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (door, cancel) = (Arc::clone(&door), cancel.clone());
            clients.spawn(async move {
                if let Some(Err(error)) = cancel.run_until_cancelled(door.client(stream)).await {
                    tracing::warn!(%peer, %error, "a client was not let in");
                }
                drop(permit);
            });
        }
        cancel.cancel();
        clients.close();
        clients.wait().await;
        Ok(())
    }

    /// An error only says that the client did not come as far as the runner.
    async fn client(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // Who connects and says nothing, as a kubelet does to see whether somebody listens, is worth no word.
        if timeout(TALK_LIMIT, stream.peek(&mut [0])).await?? == 0 {
            return Ok(());
        }
        let acceptor = TlsAcceptor::from(self.config.current());
        let mut stream = timeout(TALK_LIMIT, acceptor.accept(stream)).await??;
        let mut runner = UnixStream::connect(&self.socket).await.map_err(|error| {
            io::Error::new(error.kind(), format!("the runner at {}: {error}", self.socket.display()))
        })?;
        if let Err(error) = copy_bidirectional(&mut stream, &mut runner).await {
            tracing::debug!(%error, "a connection broke");
        }
        Ok(())
    }
}

fn server_config(pem: Pem, client: Option<ServerName<'static>>) -> Result<ServerConfig, PemError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner = WebPkiClientVerifier::builder_with_provider(pem.authorities, Arc::clone(&provider))
        .build()
        .map_err(PemError::new)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(PemError::new)?
        .with_client_cert_verifier(Arc::new(Clients { inner, name: client }))
        .with_single_cert(pem.chain, pem.key)
        .map_err(|error| PemError::new(format!("certificate and key do not work together: {error}")))?;
    // A resumed session shows no certificate: one that has expired or been replaced would go on being good.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Clients of an authority, and of one name.
#[derive(Debug)]
struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    name: Option<ServerName<'static>>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        if let Some(name) = &self.name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

//! The certificate of the listeners, read again when it changes.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::config::TlsFiles;

/// Why the listeners cannot speak TLS. Each text holds its cause, which therefore is no `source` to be printed again.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {flag} {path:?}: {cause}")]
    Read { flag: &'static str, path: std::path::PathBuf, cause: std::io::Error },
    #[error("{flag} {path:?} is not PEM with a {wanted} in it: {cause}")]
    Pem { flag: &'static str, path: std::path::PathBuf, wanted: &'static str, cause: pem::Error },
    #[error("--tls-cert {path:?} holds no certificate")]
    Empty { path: std::path::PathBuf },
    #[error("--tls-cert and --tls-key do not work together: {0}")]
    Pair(String),
}

/// The files as last read, and what was made of the last pair that was good.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: ArcSwap<CertifiedKey>,
}

/// What stands in the two files.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads the pair for the first time.
    fn load(files: &TlsFiles) -> Result<(Arc<Self>, Contents), TlsError> {
        let contents = Contents::read(files)?;
        let current = ArcSwap::from_pointee(contents.parse(files)?);
        Ok((Arc::new(Self { files: files.clone(), current }), contents))
    }

    /// Looks at the files again and again. A pair that is broken, or of which only one half has changed yet, leaves the
    /// last good one in place and is told once.
    async fn watch(self: Arc<Self>, mut seen: Contents, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(self.files.poll)).await.is_some() {
            let this = self.clone();
            // Files may lie on a slow disk.
            let read = tokio::task::spawn_blocking(move || Contents::read(&this.files)).await;
            let Ok(read) = read else { continue };
            let contents = match read {
                Ok(contents) if contents == seen => continue,
                Ok(contents) => contents,
                Err(error) => {
                    tracing::warn!(%error, "cannot look at the TLS certificate again; the last good one stays");
                    continue;
                }
            };
            match contents.parse(&self.files) {
                Ok(key) => {
                    self.current.store(Arc::new(key));
                    tracing::info!(path = %self.files.certificate.display(), "the TLS certificate changed");
                }
                Err(error) => tracing::error!(%error, "the new TLS certificate is broken; the last good one stays"),
            }
            seen = contents;
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read =
            |flag, path: &Path| std::fs::read(path).map_err(|cause| TlsError::Read { flag, path: path.into(), cause });
        Ok(Self { certificate: read("--tls-cert", &files.certificate)?, key: read("--tls-key", &files.key)? })
    }

    fn parse(&self, files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
        let broken = |flag, path: &Path, wanted| {
            let path = path.to_owned();
            move |cause| TlsError::Pem { flag, path, wanted, cause }
        };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(broken("--tls-cert", &files.certificate, "certificate"))?;
        if chain.is_empty() {
            return Err(TlsError::Empty { path: files.certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(broken("--tls-key", &files.key, "private key"))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|error| TlsError::Pair(error.to_string()))
    }
}

/// The same for a listener that speaks gRPC.
#[must_use]
pub fn for_grpc(config: &ServerConfig) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A TLS configuration, and the work that keeps its certificate up to date until `stop`.
///
/// # Errors
/// When the files cannot be read or hold no pair that works together.
pub fn prepare(
    files: &TlsFiles,
    stop: CancellationToken,
) -> Result<(Arc<ServerConfig>, impl Future<Output = ()> + Send + 'static), TlsError> {
    let (certificate, contents) = Certificate::load(files)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Pair(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(certificate.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((Arc::new(config), certificate.watch(contents, stop)))
}

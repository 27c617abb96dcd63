//! Certificates in files, read again when they change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// How often files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// Where one side of a mutual TLS connection has its own certificate from, and whom it trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PemFiles {
    /// Authorities of the other side.
    pub authorities: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Files that cannot be used. The text names the file and what it lacks.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PemError(String);

impl PemError {
    pub(super) fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }

    fn of(path: &Path, why: impl fmt::Display) -> Self {
        Self(format!("{}: {why}", path.display()))
    }
}

/// What stands in the files.
#[derive(PartialEq, Eq)]
struct Contents([Vec<u8>; 3]);

impl Contents {
    fn read(files: &PemFiles) -> Result<Self, PemError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| PemError::of(path, error));
        Ok(Self([read(&files.authorities)?, read(&files.certificate)?, read(&files.key)?]))
    }
}

/// What was read out of the files.
pub(super) struct Pem {
    pub authorities: Arc<RootCertStore>,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Pem {
    fn parse(files: &PemFiles, Contents([authorities, certificate, key]): &Contents) -> Result<Self, PemError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authorities, authorities)? {
            roots.add(authority).map_err(|error| PemError::of(&files.authorities, error))?;
        }
        Ok(Self {
            authorities: Arc::new(roots),
            chain: certificates(&files.certificate, certificate)?,
            key: PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| PemError::of(&files.key, format!("no private key in PEM: {error}")))?,
        })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| PemError::of(path, error))?;
    if found.is_empty() { Err(PemError::of(path, "no certificate in PEM")) } else { Ok(found) }
}

/// Something made of the files, and made again when they change. What is broken, or changed by halves only, leaves the
/// last good one in place.
pub(super) struct Kept<T> {
    files: PemFiles,
    make: Box<dyn Fn(Pem) -> Result<T, PemError> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    seen: Contents,
    looked: Instant,
    current: Arc<T>,
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("files", &self.files).finish_non_exhaustive()
    }
}

impl<T> Kept<T> {
    /// Reads the files for the first time.
    pub fn load(
        files: PemFiles,
        make: impl Fn(Pem) -> Result<T, PemError> + Send + Sync + 'static,
    ) -> Result<Self, PemError> {
        let seen = Contents::read(&files)?;
        let current = Arc::new(make(Pem::parse(&files, &seen)?)?);
        let state = Mutex::new(State { seen, looked: Instant::now(), current });
        Ok(Self { files, make: Box::new(make), state })
    }

    /// What the files say now. They lie in memory where the kubelet puts them; reading them takes microseconds.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            match Contents::read(&self.files) {
                Ok(contents) if contents == state.seen => {}
                Ok(contents) => {
                    match Pem::parse(&self.files, &contents).and_then(&self.make) {
                        Ok(made) => {
                            state.current = Arc::new(made);
                            tracing::info!(path = %self.files.certificate.display(), "the certificates changed");
                        }
                        Err(error) => {
                            tracing::error!(%error, "the new certificates are broken; the last good ones stay")
                        }
                    }
                    // Told once: it is looked at again when it changes again.
                    state.seen = contents;
                }
                Err(error) => tracing::warn!(%error, "cannot look at the certificates again; the last good ones stay"),
            }
        }
        Arc::clone(&state.current)
    }
}

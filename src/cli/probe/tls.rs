//! Flags about TLS, for every kind of probe that can make a handshake.

use std::{collections::HashMap, path::PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use clap::Args;
use futures::future::BoxFuture;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    check::{ClientCertificate, Reason, Reference, ReferenceKind, Text, Tls, TlsMode},
    probe::{ReferenceResult, References},
};

#[derive(Args, Debug)]
pub struct TlsArgs {
    /// Take any certificate
    #[arg(long, conflicts_with = "ca_file")]
    insecure: bool,
    /// Certificates in PEM to trust instead of this machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A certificate in PEM, and those between it and its authority, to show to a server that asks for one
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// The private key of --cert-file, in PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

impl TlsArgs {
    /// The flags that mean nothing without a handshake, where one was given.
    pub fn given(&self) -> Option<&'static str> {
        let flags = [(&self.ca_file, "--ca-file"), (&self.cert_file, "--cert-file")];
        let file = flags.into_iter().find_map(|(file, flag)| file.as_ref().map(|_| flag));
        file.or(self.insecure.then_some("--insecure"))
    }

    /// What a probe is to be told; the contents of the files go to `files`.
    ///
    /// # Errors
    /// A file cannot be read, or holds no PEM of its kind.
    pub fn read(&self, files: &mut Files) -> anyhow::Result<Tls> {
        let certificate = |pem: &[u8]| CertificateDer::pem_slice_iter(pem).next().is_some_and(|first| first.is_ok());
        let key = |pem: &[u8]| PrivateKeyDer::from_pem_slice(pem).is_ok();
        let ca = files.read("--ca-file", self.ca_file.as_ref(), "certificate", certificate)?;
        let client = (
            files.read("--cert-file", self.cert_file.as_ref(), "certificate", certificate)?,
            files.read("--key-file", self.key_file.as_ref(), "private key", key)?,
        );
        Ok(Tls {
            mode: if self.insecure { TlsMode::SkipVerify } else { TlsMode::Verify },
            server_name: None,
            ca,
            client: match client {
                (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
                _ => None,
            },
        })
    }
}

/// The files that flags name, where a check would refer to a Secret or ConfigMap: by flag.
#[derive(Debug, Default)]
pub struct Files(HashMap<Text, Bytes>);

impl Files {
    fn read(
        &mut self,
        flag: &str,
        path: Option<&PathBuf>,
        what: &str,
        holds: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<Option<Reference>> {
        let Some(path) = path else { return Ok(None) };
        let pem = std::fs::read(path).with_context(|| format!("{flag} {}", path.display()))?;
        ensure!(holds(&pem), "{flag} {}: holds no {what} in PEM", path.display());
        self.0.insert(flag.into(), pem.into());
        Ok(Some(Reference {
            kind: ReferenceKind::ConfigMap,
            name: flag.into(),
            key: path.display().to_string().into(),
        }))
    }
}

impl References for Files {
    fn get<'a>(&'a self, _namespace: &'a str, reference: &'a Reference) -> BoxFuture<'a, ReferenceResult> {
        let unread = || (Reason::SecretMissing, format!("{} was not read", reference.name));
        Box::pin(std::future::ready(self.0.get(&reference.name).cloned().ok_or_else(unread)))
    }
}

//! An authority, and what it says of `localhost`: P-256, in the run's own directory.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::run_dir::sub_dir;

/// Makes all of them anew.
pub fn make() -> anyhow::Result<()> {
    let mut authority = CertificateParams::new(vec![])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Whoever goes by names takes a certificate for its own issuer where both are called the same.
    authority.distinguished_name.push(DnType::CommonName, "authority of the benchmarks");
    let key = KeyPair::generate()?;
    std::fs::write(self::authority(), authority.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    std::fs::write(certificate(), leaf.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(self::key(), key.serialize_pem())?;
    Ok(())
}

/// The authority's certificate.
pub fn authority() -> PathBuf {
    sub_dir("tls").join("ca.crt")
}

/// The server's.
pub fn certificate() -> PathBuf {
    sub_dir("tls").join("server.crt")
}

/// The server's key.
pub fn key() -> PathBuf {
    sub_dir("tls").join("server.key")
}

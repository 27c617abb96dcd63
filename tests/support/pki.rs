//! The certificates and keys of one control plane.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate authority of our own and what it signed, as files of one directory.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as the files' paths.
#[derive(Clone, Debug)]
pub struct Signed {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Pki {
    /// Makes the authority and writes `ca.crt`.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(directory: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "healthcheck-operator tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let ca_pem = params.self_signed(&key)?.pem();
        std::fs::write(directory.join("ca.crt"), &ca_pem)?;
        Ok(Self { directory: directory.to_owned(), ca_pem, issuer: Issuer::new(params, key) })
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority's certificate, as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The API server's own certificate.
    pub fn server(&self) -> anyhow::Result<Signed> {
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(String::from);
        self.sign("kube-apiserver", None, &names, ExtendedKeyUsagePurpose::ServerAuth, None)
    }

    /// A server's certificate for loopback that expires at the beginning of a day, in UTC.
    pub fn server_until(&self, name: &str, year: i32, month: u8, day: u8) -> anyhow::Result<Signed> {
        let names = ["127.0.0.1", "localhost"].map(String::from);
        self.sign(name, None, &names, ExtendedKeyUsagePurpose::ServerAuth, Some((year, month, day)))
    }

    /// A client's certificate: Kubernetes reads the common name as the user and the organisation
    /// as the group.
    pub fn client(&self, user: &str, group: Option<&str>) -> anyhow::Result<Signed> {
        self.sign(user, group, &[], ExtendedKeyUsagePurpose::ClientAuth, None)
    }

    /// A bare key pair, for signing ServiceAccount tokens: the private half, then the public one.
    pub fn key_pair(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let private = self.directory.join(format!("{name}.key"));
        let public = self.directory.join(format!("{name}.pub"));
        std::fs::write(&private, key.serialize_pem())?;
        std::fs::write(&public, key.public_key_pem())?;
        Ok((private, public))
    }

    fn sign(
        &self,
        user: &str,
        group: Option<&str>,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        until: Option<(i32, u8, u8)>,
    ) -> anyhow::Result<Signed> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        if let Some((year, month, day)) = until {
            params.not_after = rcgen::date_time_ymd(year, month, day);
        }
        let key = KeyPair::generate()?;
        let file = user.replace(':', "-");
        let signed = Signed {
            cert: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        std::fs::write(&signed.cert, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&signed.key, key.serialize_pem())?;
        Ok(signed)
    }
}

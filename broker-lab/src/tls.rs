//! A private certificate authority and a server certificate for 127.0.0.1.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::error::{Error, Result};

/// PEM files of one broker: its certificate for `localhost` and 127.0.0.1, and the authority that signed it.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority, for clients to trust.
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes fresh certificates in the folder `dir`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn generate(dir: &Path) -> Result<Self> {
        let failed = |error: rcgen::Error| Error::new(format!("certificate: {error}"));
        let mut params = CertificateParams::default();
        // A name of its own, or OpenSSL takes the server's certificate for one that signed itself.
        let name = "broker-lab authority";
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().map_err(failed)?;
        let ca = CertifiedIssuer::self_signed(params, ca_key).map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let cert = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&key, &ca))
            .map_err(failed)?;
        let write = |name: &str, pem: String| {
            let path = dir.join(name);
            fs::write(&path, pem)
                .map_err(|error| Error::io(path.display(), &error))
                .map(|()| path)
        };
        Ok(Self {
            ca: write("ca.pem", ca.pem())?,
            cert: write("cert.pem", cert.pem())?,
            key: write("key.pem", key.serialize_pem())?,
        })
    }
}

//! TLS by rustls with the ring provider.

use std::{fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use socketioxide_adapter_core::{ErrorKind, Result, backend::RootCa};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    config::{OPERATION, invalid},
    connection::Stream,
};

/// How to speak TLS with one server.
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    pub(crate) fn new(host: &str, ca: &RootCa) -> Result<Self> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| invalid("the host is no name that a certificate can be for"))?;
        // The provider is named here and not taken from the process: with two of them compiled in, rustls panics when
        // it has to choose.
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| invalid("no TLS version in common with rustls"))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    pub(crate) async fn wrap(&self, tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
        let stream = self.connector.connect(self.name.clone(), tcp).await?;
        Ok(Box::new(stream))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

fn roots(ca: &RootCa) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca.pem(OPERATION)? {
        Some(pem) => add_pem(&mut roots, &pem)?,
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid(
            "no certificate authority to trust: name a PEM file with the option \"ca\"",
        ));
    }
    Ok(roots)
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<()> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate
            .ok()
            .and_then(|certificate| roots.add(certificate).ok())
            .ok_or_else(|| invalid("the PEM of \"ca\" holds something that is no certificate"))?;
    }
    Ok(())
}

/// What an error of the TLS handshake means; `None` if it is none.
pub(crate) fn explain(error: &io::Error) -> Option<(ErrorKind, String)> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) => (
            ErrorKind::Config,
            format!("{error}, name the authority to trust with the option \"ca\""),
        ),
        rustls::Error::InvalidMessage(_) => (
            ErrorKind::Protocol,
            "what answers does not speak TLS, is it a plain amqp:// port?".to_owned(),
        ),
        _ => (ErrorKind::Unavailable, format!("TLS: {error}")),
    })
}

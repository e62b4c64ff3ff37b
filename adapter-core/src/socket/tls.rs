//! TLS by rustls with the ring provider.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Stream;
use crate::{
    backend::RootCa,
    error::{Error, ErrorKind, Result},
};

/// How to speak TLS with servers.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// Trusts `ca`. Blocks while it reads files. `operation` is what an error begins with, as `redis: config`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `ca` cannot be read or is none, or without the cargo feature `tls`.
    pub fn new(ca: &RootCa, operation: &'static str) -> Result<Self> {
        let config = client_config(ca, operation)?;
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    pub(super) async fn wrap(&self, host: &str, tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(self.0.connect(name, tcp).await?))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// A configuration of rustls that trusts `ca`. The provider is named in it and not taken from the process: with none or two
/// of them compiled in, rustls panics when it has to choose.
///
/// Blocks while it reads files. `operation` is what an error begins with, as `nats: config`.
///
/// # Errors
/// [`ErrorKind::Config`] if `ca` cannot be read or is none.
pub fn client_config(ca: &RootCa, operation: &'static str) -> Result<ClientConfig> {
    let invalid = |what| Error::new(ErrorKind::Config, operation, what);
    let mut roots = RootCertStore::empty();
    match ca.pem(operation)? {
        Some(pem) => add_pem(&mut roots, &pem).map_err(invalid)?,
        None => {
            // A system that has none is told at the handshake, if there is one.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| invalid("no TLS version in common with rustls"))?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), &'static str> {
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate
            .ok()
            .and_then(|certificate| roots.add(certificate).ok())
            .ok_or("the PEM of \"ca\" holds something that is no certificate")?;
    }
    if roots.is_empty() {
        return Err("no certificate authority to trust: name a PEM file with the option \"ca\"");
    }
    Ok(())
}

/// What an error of TLS while connecting means; `None` if it is none. `other` is what may be there instead, as `a plain
/// redis:// port`.
pub(super) fn explain(
    error: &(dyn StdError + 'static),
    other: &'static str,
) -> Option<(ErrorKind, String)> {
    let error = error.downcast_ref::<io::Error>()?.get_ref()?;
    if error.is::<InvalidDnsNameError>() {
        let what = "the host is no name that a certificate can be for";
        return Some((ErrorKind::Config, what.to_owned()));
    }
    let error = error.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) => (
            ErrorKind::Config,
            format!("{error}, name the authority to trust with the option \"ca\""),
        ),
        rustls::Error::InvalidMessage(_) => (
            ErrorKind::Protocol,
            format!("what answers does not speak TLS, is it {other}?"),
        ),
        _ => (ErrorKind::Unavailable, format!("TLS: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_can_be_trusted() {
        let config = |pem: &[u8]| client_config(&RootCa::Pem(pem.to_vec()), "test: config");
        let refusal = |pem: &[u8]| config(pem).unwrap_err().to_string();
        assert_eq!(
            refusal(b"nothing"),
            "test: config: no certificate authority to trust: name a PEM file with the option \"ca\""
        );
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(
            refusal(broken),
            "test: config: the PEM of \"ca\" holds something that is no certificate"
        );
        assert!(client_config(&RootCa::System, "test: config").is_ok());
    }

    #[tokio::test]
    async fn a_host_without_a_name_and_one_without_tls_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Tls::new(&RootCa::System, "test: config").unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let (_silent, _) = listener.accept().await.unwrap();
        let error = tls.wrap("no name", tcp).await.err().unwrap();
        let (kind, _) = explain(&error, "a plain port").unwrap();
        assert_eq!(kind, ErrorKind::Config);
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let speaks = async {
            use tokio::io::AsyncWriteExt as _;
            server.write_all(b"-ERR what is this?\r\n").await.unwrap();
            server.flush().await.unwrap();
        };
        let (error, ()) = tokio::join!(tls.wrap("localhost", tcp), speaks);
        let explained = explain(&error.err().unwrap(), "a plain port");
        let text = "what answers does not speak TLS, is it a plain port?".to_owned();
        assert_eq!(explained, Some((ErrorKind::Protocol, text)));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(explain(&refused, "a plain port"), None);
    }
}

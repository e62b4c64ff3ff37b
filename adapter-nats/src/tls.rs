//! TLS by rustls with the ring provider.

use std::{error::Error as StdError, io, sync::Arc};

use async_nats::rustls::{
    self, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use socketioxide_adapter_core::{ErrorKind, Result, backend::RootCa};

use crate::config::{OPERATION, invalid};

/// How to speak TLS. The provider is named here and not taken from the process: with none or two of them compiled in,
/// rustls panics when it has to choose.
pub(crate) fn config(ca: &RootCa) -> Result<ClientConfig> {
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| invalid("no TLS version in common with rustls"))?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth(),
    )
}

fn roots(ca: &RootCa) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(pem) = ca.pem(OPERATION)? else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    add_pem(&mut roots, &pem)?;
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
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> Option<(ErrorKind, String)> {
    let error = error.downcast_ref::<io::Error>()?;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(_) => (
            ErrorKind::Config,
            format!("{error}, name the authority to trust with the option \"ca\""),
        ),
        rustls::Error::InvalidMessage(_) => (
            ErrorKind::Protocol,
            "what answers does not speak TLS, is it a plain nats:// server?".to_owned(),
        ),
        _ => (ErrorKind::Unavailable, format!("TLS: {error}")),
    })
}

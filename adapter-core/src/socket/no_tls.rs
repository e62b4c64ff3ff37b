//! Without the cargo feature `tls`: no TLS, and an error that names the feature.

use std::{convert::Infallible, error::Error as StdError, io};

use tokio::net::TcpStream;

use super::Stream;
use crate::{
    backend::RootCa,
    error::{Error, ErrorKind, Result},
};

/// How to speak TLS with servers. Without the cargo feature `tls` it cannot be made.
#[derive(Debug, Clone)]
pub struct Tls(Infallible);

impl Tls {
    /// Cannot be made.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the feature.
    pub fn new(_ca: &RootCa, operation: &'static str) -> Result<Self> {
        let message = "TLS needs the cargo feature \"tls\" of socketioxide-adapter, or of the backend's crate";
        Err(Error::new(ErrorKind::Config, operation, message))
    }

    #[expect(clippy::unused_async, reason = "the same signature as with TLS")]
    pub(super) async fn wrap(&self, _host: &str, _tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
        match self.0 {}
    }
}

/// `None`: no error can come from TLS.
pub(super) fn explain(
    _error: &(dyn StdError + 'static),
    _other: &'static str,
) -> Option<(ErrorKind, String)> {
    None
}

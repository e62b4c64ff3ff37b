//! Without the cargo feature `tls`: no TLS, and an error that names the feature.

use std::{convert::Infallible, io};

use socketioxide_adapter_core::{ErrorKind, Result, backend::RootCa};
use tokio::net::TcpStream;

use crate::{config::invalid, connection::Stream};

/// Cannot be made.
#[derive(Debug)]
pub(crate) struct Tls(Infallible);

impl Tls {
    pub(crate) fn new(_host: &str, _ca: &RootCa) -> Result<Self> {
        Err(invalid(
            "amqps:// needs the cargo feature \"tls\" of socketioxide-adapter-amqp",
        ))
    }

    #[expect(clippy::unused_async, reason = "the same signature as with TLS")]
    pub(crate) async fn wrap(&self, _tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
        match self.0 {}
    }
}

/// No error can come from TLS.
pub(crate) fn explain(_error: &io::Error) -> Option<(ErrorKind, String)> {
    None
}

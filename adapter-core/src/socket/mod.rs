//! The byte stream to a broker: TCP, and TLS by rustls with the ring provider.
//!
//! For backends whose client takes any stream, or a configuration of rustls. TLS needs the cargo feature `tls`.

#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

use std::{fmt, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

#[cfg(feature = "tls")]
pub use self::tls::client_config;
pub use self::tls::{Tls, explain};

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// Name or IP address; with TLS, the server's certificate must be for it.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Address {
    /// A server by its name or IP address and its port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

/// Shows `host:port`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a name or IP address, and speaks TLS if that is wanted; the certificate must then be for that name.
///
/// Has no deadline of its own: the reconnect loop has. Sets no keepalive: a session that asks for a sign of life twice a
/// second finds more, and sooner.
///
/// # Errors
/// Of the socket, or of the TLS handshake: [`explain`] tells these apart.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn connect(host: &str, port: u16, tls: Option<&Tls>) -> io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    match tls {
        Some(tls) => tls.wrap(host, tcp).await,
        None => Ok(Box::new(tcp)),
    }
}

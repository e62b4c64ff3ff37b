//! The byte stream to a broker: TCP, and TLS by rustls with the ring provider.
//!
//! For backends whose client takes any stream, or a configuration of rustls. TLS needs the cargo feature `tls`.

mod address;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod wire;

use std::{error::Error as StdError, io};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

#[cfg(feature = "tls")]
pub use self::tls::client_config;
pub use self::{
    address::Address,
    tls::Tls,
    wire::{Received, Wire},
};
use crate::error::ErrorKind;

/// A byte stream in both directions.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects, and speaks TLS if that is wanted; the certificate must then be for the host of the address.
///
/// Has no deadline of its own: the reconnect loop has. Sets no keepalive: a session that asks for a sign of life twice a
/// second finds more, and sooner.
///
/// # Errors
/// Of the socket, or of the TLS handshake: [`explain`] tells these apart.
///
/// # Cancel safety
/// Dropping the future closes the connection.
pub async fn connect(address: &Address, tls: Option<&Tls>) -> io::Result<Wire> {
    let stream: Box<dyn Stream> = match address {
        Address::Tcp { host, port } => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            match tls {
                Some(tls) => tls.wrap(host, tcp).await?,
                None => Box::new(tcp),
            }
        }
        #[cfg(unix)]
        Address::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        #[cfg(not(unix))]
        Address::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(Wire::new(stream))
}

/// What an error while connecting means, and what to do. `server` is what should be there, as `Redis`; `plain` what may be
/// there instead of TLS, as `a plain redis:// port`. An error that is not of the socket or of TLS is shown as it is.
pub fn explain(
    error: &(dyn StdError + 'static),
    server: &str,
    plain: &'static str,
) -> (ErrorKind, String) {
    if let Some(explained) = tls::explain(error, plain) {
        return explained;
    }
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let what = match kind {
        // A unix socket that is not there is not found.
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            format!("connection refused, is {server} running there?")
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "not permitted: by the socket file, if it is one, or by a firewall".to_owned()
        }
        _ => error.to_string(),
    };
    (ErrorKind::Unavailable, what)
}

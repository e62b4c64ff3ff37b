//! Where a server is.

use std::{fmt, path::PathBuf};

/// Where a server is. `Debug` and `Display` show `host:port` or the path.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// Reached by TCP.
    Tcp {
        /// Name or IP address; with TLS, the server's certificate must be for it.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Address {
    /// A server by its name or IP address and its port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp {
            host: host.into(),
            port,
        }
    }

    /// Several of them, as an error names them.
    pub fn list<'a>(addresses: impl IntoIterator<Item = &'a Self>) -> String {
        let addresses = addresses.into_iter().map(Self::to_string);
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The name or IP address; empty for a unix socket.
    pub fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "",
        }
    }

    /// The port; 0 for a unix socket.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp { port, .. } => *port,
            Self::Unix(_) => 0,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

//! How to reach a Redis server, and the limits of the transport.

use std::{fmt, path::PathBuf, time::Duration};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::BackendUrl,
    transport::{Backoff, BufferLimits},
};

/// The prefix of all channels if none is given.
const PREFIX: &str = "socketioxide";
const PORT: u16 = 6379;
/// Redis itself takes at most 512 MiB in one argument (`proto-max-bulk-len`).
const PAYLOAD_CEILING: usize = 512 << 20;
const MIB: usize = 1 << 20;
/// Most publishes that may be set to wait.
pub(crate) const PUBLISHES: usize = 16_384;

/// Where the server is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A TCP connection in plain text.
    Tcp {
        /// Name or IP address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A TLS connection; needs the cargo feature `tls`.
    Tls {
        /// Name or IP address, which the server's certificate must be for.
        host: String,
        /// Port.
        port: u16,
        /// The certificate authorities to trust.
        ca: RootCa,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Which certificate authorities to trust.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RootCa {
    /// Those of the operating system.
    #[default]
    System,
    /// Those in a PEM file, which is read once, when connecting.
    File(PathBuf),
    /// Those in this PEM text.
    Pem(Vec<u8>),
}

/// Shows `host:port` or the path.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } | Self::Tls { host, port, .. } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self {
            Self::Tcp { .. } => "redis",
            Self::Tls { .. } => "rediss",
            Self::Unix(_) => "redis+unix",
        };
        write!(f, "{scheme}://{self}")
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pem(pem) => write!(f, "{} bytes of PEM", pem.len()),
        }
    }
}

/// Everything [`RedisTransport::connect`](crate::RedisTransport::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` does not show the password.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_redis::{Address, RedisConfig};
///
/// let config = RedisConfig::new(Address::Unix("/run/redis/redis.sock".into()))
///     .with_credentials("chat", "secret")
///     .with_prefix("chat:blue")
///     .with_timeout(Duration::from_secs(1));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server is.
    pub address: Address,
    /// ACL user; `None` is the server's `default` user. Needs a password.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database. Default 0. Redis has one space of channels for all databases; so that clusters on
    /// different databases stay apart all the same, a database other than 0 becomes part of the channel names:
    /// `<prefix>:<database>:<topic>`.
    pub database: u32,
    /// First part of every channel name: 1 to 64 letters, digits, `.`, `_`, `-` and `:`. Default `socketioxide`.
    pub prefix: String,
    /// How long `connect` may take, and each later attempt to reconnect. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a publish or a subscribe may take. Default 2 s.
    pub timeout: Duration,
    /// Largest payload in bytes. Default 8 MiB, at most 512 MiB. Four times as much at once makes Redis cut a subscriber
    /// at its default limits, and what takes longer than 2 s to send looks like a dead link.
    pub max_payload: usize,
    /// What one subscription holds for a slow reader; beyond it payloads are dropped, counted and reported as
    /// [`Lagged`](socketioxide_adapter_core::transport::Event::Lagged). Default 65,536 payloads and 16 MiB.
    pub subscription_buffer: BufferLimits,
    /// Publishes that wait for the server's answer, all topics together, also those that were given up meanwhile; beyond
    /// it a publish fails at once with [`Full`](ErrorKind::Full). Default 16,384 payloads, which is also the most, and 64 MiB.
    pub publish_buffer: BufferLimits,
    /// Waits between attempts to reconnect. Default 50 ms to 5 s.
    pub backoff: Backoff,
}

impl RedisConfig {
    /// The defaults for a server at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            username: None,
            password: None,
            database: 0,
            prefix: PREFIX.to_owned(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            max_payload: 8 * MIB,
            subscription_buffer: BufferLimits::default(),
            publish_buffer: BufferLimits::new(PUBLISHES, 64 * MIB),
            backoff: Backoff::default(),
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let (username, password) = (url.username(), url.password());
        let path = url.path();
        let ca = |url: &mut BackendUrl| url.take("ca").map(|path| RootCa::File(path.into()));
        let mut config = match url.scheme() {
            "redis" | "valkey" => Self::new(Address::Tcp {
                host: host(&url)?,
                port: url.url().port().unwrap_or(PORT),
            }),
            "rediss" | "valkeys" => Self::new(Address::Tls {
                host: host(&url)?,
                port: url.url().port().unwrap_or(PORT),
                ca: ca(&mut url).unwrap_or_default(),
            }),
            _ if path.len() > 1 && url.host().is_none() => {
                let mut config = Self::new(Address::Unix(path.clone().into()));
                config.username = url.take("user");
                config.password = url.take("password");
                config.database = url
                    .take_parsed("db", "a database number such as 0")?
                    .unwrap_or(0);
                config
            }
            _ => return Err(invalid("expected redis+unix:///path/to/socket")),
        };
        if !matches!(config.address, Address::Unix(_)) {
            (config.username, config.password) = (username, password);
            config.database = match path.trim_start_matches('/') {
                "" => 0,
                number => number.parse().map_err(|_| {
                    invalid("after the host there can only be a database number such as /0")
                })?,
            };
        }
        if let Some(prefix) = url.take("prefix") {
            config.prefix = prefix;
        }
        if let Some(timeout) = url.take_duration("connect_timeout")? {
            config.connect_timeout = timeout;
        }
        if let Some(timeout) = url.take_duration("timeout")? {
            config.timeout = timeout;
        }
        url.finish()?;
        Ok(config)
    }

    /// Sets the ACL user and the password.
    pub fn with_credentials(
        mut self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.username = Some(username.into());
        self.password = Some(password.into());
        self
    }

    /// Sets the password of the `default` user.
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets the number of the database.
    pub fn with_database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Sets the first part of every channel name.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how long connecting may take.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a publish or subscribe may take.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the largest payload in bytes.
    pub fn with_max_payload(mut self, max_payload: usize) -> Self {
        self.max_payload = max_payload;
        self
    }

    /// Sets what one subscription holds for a slow reader.
    pub fn with_subscription_buffer(mut self, limits: BufferLimits) -> Self {
        self.subscription_buffer = limits;
        self
    }

    /// Sets how many publishes may wait for the server's answer.
    pub fn with_publish_buffer(mut self, limits: BufferLimits) -> Self {
        self.publish_buffer = limits;
        self
    }

    /// Sets the waits between attempts to reconnect.
    pub fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        // No slash: "a:ns/b" would make channels of the prefix "a" and its namespace "/b:…".
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.chars().all(legal) {
            return Err(invalid(
                "prefix must be 1 to 64 letters, digits, '.', '_', '-' or ':'",
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(invalid("a user name needs a password"));
        }
        if self.connect_timeout.is_zero() || self.timeout.is_zero() {
            return Err(invalid("connect_timeout and timeout must be more than 0"));
        }
        if self.max_payload == 0 || self.max_payload > PAYLOAD_CEILING {
            return Err(invalid("max_payload must be 1 byte to 512 MiB"));
        }
        if !(1..=PUBLISHES).contains(&self.publish_buffer.messages) {
            return Err(invalid("publish_buffer must be 1 to 16,384 payloads"));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.address)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .field("max_payload", &self.max_payload)
            .field("subscription_buffer", &self.subscription_buffer)
            .field("publish_buffer", &self.publish_buffer)
            .field("backoff", &self.backoff)
            .finish()
    }
}

fn host(url: &BackendUrl) -> Result<String> {
    url.host()
        .ok_or_else(|| invalid("no host, expected something like redis://127.0.0.1:6379"))
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, "redis: config", message)
}

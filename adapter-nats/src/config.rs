//! How to reach NATS servers, and the limits of the transport.

use std::{fmt, path::PathBuf, time::Duration};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, RootCa},
    transport::{Backoff, BufferLimits},
};

/// The prefix of all subjects if none is given.
const PREFIX: &str = "socketioxide";
/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "nats: config";
const PORT: u16 = 4222;
const MIB: usize = 1 << 20;
/// NATS itself takes at most 64 MiB in one message.
const PAYLOAD_CEILING: usize = 64 * MIB;
/// Most publishes that may be set to wait.
pub(crate) const PUBLISHES: usize = 16_384;

/// One server of a NATS cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or IP address; with TLS, the server's certificate must be for it.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Shows `host:port`.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How to log in. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// With a user name and a password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: String,
    },
    /// With a token.
    Token(String),
    /// With the nkey seed in a file, which is read at each attempt to connect.
    NkeyFile(PathBuf),
    /// With the JWT and the nkey seed in a `.creds` file, which is read at each attempt to connect.
    CredsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Password { user, .. } => write!(f, "password of {user}"),
            Self::Token(_) => f.write_str("token"),
            Self::NkeyFile(path) => write!(f, "nkey in {}", path.display()),
            Self::CredsFile(path) => write!(f, "credentials in {}", path.display()),
        }
    }
}

/// The JetStream stream that keeps the frames of all namespaces, named after the prefix.
///
/// It is made with these settings if it does not exist. One that exists is used as it is; where it differs, a warning
/// says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// How long a frame is kept: the longest absence after which a node loses nothing. Default 5 min, at least 1 s.
    pub max_age: Duration,
    /// How many bytes are kept; the oldest frames go first. Default 256 MiB, at least 1 MiB.
    pub max_bytes: u64,
    /// On how many servers each frame is stored before it counts as accepted: 1 to 5. Default 1.
    pub replicas: u8,
    /// Whether the stream is kept in memory instead of in files. Default `false`.
    pub in_memory: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(300),
            max_bytes: 256 * MIB as u64,
            replicas: 1,
            in_memory: false,
        }
    }
}

/// Everything [`NatsTransport::connect`](crate::NatsTransport::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` shows no secret.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_nats::{Auth, NatsConfig};
///
/// let config = NatsConfig::new("127.0.0.1", 4222)
///     .with_server("127.0.0.2", 4222)
///     .with_auth(Auth::Token("secret".into()))
///     .with_prefix("chat.blue")
///     .with_timeout(Duration::from_secs(1));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct NatsConfig {
    /// The servers of one NATS cluster. They are tried in random order; those that the cluster tells of are added.
    pub servers: Vec<Server>,
    /// Speak TLS, trusting these authorities. `None`: only if the server demands it, trusting those of the system.
    pub tls: Option<RootCa>,
    /// How to log in.
    pub auth: Auth,
    /// First part of every subject: 1 to 64 letters, digits, `_` and `-` in parts separated by `.`, none of which begins
    /// with `_`. Default `socketioxide`.
    pub prefix: String,
    /// How long `connect` may take, and each later attempt to reconnect. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a publish or a subscribe may take. Default 2 s.
    pub timeout: Duration,
    /// Largest payload in bytes. Default 8 MiB, at most 64 MiB; what the server allows is the limit if it is lower, and it
    /// usually is: NATS comes with 1 MiB.
    pub max_payload: usize,
    /// What one subscription holds for a slow reader; beyond it payloads are dropped, counted and reported as
    /// [`Lagged`](socketioxide_adapter_core::transport::Event::Lagged). Default 65,536 payloads and 16 MiB.
    pub subscription_buffer: BufferLimits,
    /// Publishes that wait for the server's answer, all topics together, also those that were given up meanwhile; beyond
    /// it a publish fails at once with [`Full`](ErrorKind::Full). Default 16,384 payloads, which is also the most, and 64 MiB.
    pub publish_buffer: BufferLimits,
    /// Waits between attempts to reconnect. Default 50 ms to 5 s.
    pub backoff: Backoff,
    /// Keep the frames of namespaces in JetStream, so that a node gets back what it missed; needs the cargo feature
    /// `jetstream`. Default `None`.
    pub log: Option<LogConfig>,
}

impl NatsConfig {
    /// The defaults for a server.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self {
            servers: vec![Server { host, port }],
            tls: None,
            auth: Auth::None,
            prefix: PREFIX.to_owned(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            max_payload: 8 * MIB,
            subscription_buffer: BufferLimits::default(),
            publish_buffer: BufferLimits::new(PUBLISHES, 64 * MIB),
            backoff: Backoff::default(),
            log: None,
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let mut hosts = url.take_hosts().into_iter();
        let (host, port) = hosts
            .next()
            .ok_or_else(|| invalid("no host, expected something like nats://127.0.0.1:4222"))?;
        if !matches!(url.path().as_str(), "" | "/") {
            return Err(invalid("after the host there can only be options"));
        }
        let mut config = Self::new(host, port.unwrap_or(PORT));
        for (host, port) in hosts {
            config = config.with_server(host, port.unwrap_or(PORT));
        }
        if url.scheme().ends_with("+tls") {
            config.tls = Some(RootCa::take_from(&mut url));
        }
        config.auth = auth(&mut url)?;
        if let Some(prefix) = url.take("prefix") {
            config.prefix = prefix;
        }
        url.read_duration("connect_timeout", &mut config.connect_timeout)?;
        url.read_duration("timeout", &mut config.timeout)?;
        if url.scheme().contains("+jetstream") {
            config.log = Some(log(&mut url)?);
        }
        url.finish()?;
        Ok(config)
    }

    /// Adds a server of the same NATS cluster.
    pub fn with_server(mut self, host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        self.servers.push(Server { host, port });
        self
    }

    /// Speaks TLS, trusting these authorities.
    pub fn with_tls(mut self, ca: RootCa) -> Self {
        self.tls = Some(ca);
        self
    }

    /// Sets how to log in.
    pub fn with_auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Sets the first part of every subject.
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

    /// Keeps the frames of namespaces in JetStream.
    pub fn with_log(mut self, log: LogConfig) -> Self {
        self.log = Some(log);
        self
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        // No part begins with '_': "a._ns.b" would be a prefix inside the subjects of the prefix "a".
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('_') && part.chars().all(legal);
        if self.prefix.len() > 64 || !self.prefix.split('.').all(part) {
            return Err(invalid(
                "prefix must be 1 to 64 letters, digits, '_' or '-' in parts separated by '.', which do not begin with '_'",
            ));
        }
        if self.servers.is_empty() {
            return Err(invalid("no server"));
        }
        if self.connect_timeout.is_zero() || self.timeout.is_zero() {
            return Err(invalid("connect_timeout and timeout must be more than 0"));
        }
        if self.max_payload == 0 || self.max_payload > PAYLOAD_CEILING {
            return Err(invalid("max_payload must be 1 byte to 64 MiB"));
        }
        if !(1..=PUBLISHES).contains(&self.publish_buffer.messages) {
            return Err(invalid("publish_buffer must be 1 to 16,384 payloads"));
        }
        if let Some(log) = &self.log {
            if log.max_age < Duration::from_secs(1) {
                return Err(invalid("max_age must be at least 1s"));
            }
            if log.max_bytes < MIB as u64 || i64::try_from(log.max_bytes).is_err() {
                return Err(invalid("max_bytes must be at least 1 MiB"));
            }
            if !(1..=5).contains(&log.replicas) {
                return Err(invalid("replicas must be 1 to 5"));
            }
        }
        Ok(())
    }
}

fn auth(url: &mut BackendUrl) -> Result<Auth> {
    let in_url = match (url.username(), url.password()) {
        (Some(user), Some(password)) => Some(Auth::Password { user, password }),
        (Some(token), None) => Some(Auth::Token(token)),
        (None, Some(_)) => return Err(invalid("a password needs a user name")),
        (None, None) => None,
    };
    let nkey = url.take("nkey").map(|path| Auth::NkeyFile(path.into()));
    let creds = url.take("creds").map(|path| Auth::CredsFile(path.into()));
    let mut given = [in_url, nkey, creds].into_iter().flatten();
    let auth = given.next().unwrap_or_default();
    match given.next() {
        None => Ok(auth),
        Some(_) => Err(invalid(
            "more than one of user, token, \"nkey\" and \"creds\" is given",
        )),
    }
}

fn log(url: &mut BackendUrl) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    url.read_duration("max_age", &mut log.max_age)?;
    if let Some(bytes) = url.take_parsed("max_bytes", "a number of bytes such as 268435456")? {
        log.max_bytes = bytes;
    }
    if let Some(replicas) = url.take_parsed("replicas", "a number from 1 to 5")? {
        log.replicas = replicas;
    }
    match url.take("storage").as_deref() {
        None | Some("file") => {}
        Some("memory") => log.in_memory = true,
        Some(_) => return Err(invalid("option \"storage\" must be file or memory")),
    }
    Ok(log)
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}

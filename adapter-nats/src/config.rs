//! How to reach NATS servers, and the limits of the transport.

use std::{fmt, path::PathBuf, time::Duration};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, RootCa},
    socket::Address,
    transport::Limits,
};

/// The prefix of all subjects if none is given.
const PREFIX: &str = "socketioxide";
/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "nats: config";
const PORT: u16 = 4222;
/// NATS itself takes at most 64 MiB in one message.
const PAYLOAD_CEILING: usize = 64 << 20;

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
            max_bytes: 256 << 20,
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
/// use socketioxide_adapter_nats::{Auth, Limits, NatsConfig};
///
/// let config = NatsConfig::new("127.0.0.1", 4222)
///     .with_server("127.0.0.2", 4222)
///     .with_auth(Auth::Token("secret".into()))
///     .with_prefix("chat.blue")
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct NatsConfig {
    /// The servers of one NATS cluster. They are tried in random order; those that the cluster tells of are added.
    pub servers: Vec<Address>,
    /// Speak TLS, trusting these authorities. `None`: only if the server demands it, trusting those of the system.
    pub tls: Option<RootCa>,
    /// How to log in.
    pub auth: Auth,
    /// First part of every subject: 1 to 64 letters, digits, `_` and `-` in parts separated by `.`, none of which begins
    /// with `_`. Default `socketioxide`.
    pub prefix: String,
    /// Deadlines and buffers. A payload can have at most 64 MiB; what the server allows is the limit if it is lower, and it
    /// usually is: NATS comes with 1 MiB.
    pub limits: Limits,
    /// Keep the frames of namespaces in JetStream, so that a node gets back what it missed; needs the cargo feature
    /// `jetstream`. Default `None`.
    pub log: Option<LogConfig>,
}

impl NatsConfig {
    /// The defaults for a server.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            servers: vec![Address::new(host, port)],
            tls: None,
            auth: Auth::None,
            prefix: PREFIX.to_owned(),
            limits: Limits::default(),
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
        config.limits = Limits::take_from(&mut url)?;
        if url.scheme().contains("+jetstream") {
            config.log = Some(log(&mut url)?);
        }
        url.finish()?;
        Ok(config)
    }

    /// Adds a server of the same NATS cluster.
    pub fn with_server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.servers.push(Address::new(host, port));
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

    /// Sets all deadlines and buffers, also those that a URL gave.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps the frames of namespaces in JetStream.
    pub fn with_log(mut self, log: LogConfig) -> Self {
        self.log = Some(log);
        self
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        self.limits.validate(OPERATION, PAYLOAD_CEILING)?;
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
        if let Some(log) = &self.log {
            if log.max_age < Duration::from_secs(1) {
                return Err(invalid("max_age must be at least 1s"));
            }
            if log.max_bytes < 1 << 20 || i64::try_from(log.max_bytes).is_err() {
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

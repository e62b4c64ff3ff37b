//! How to reach the servers, and the limits of the transport.

use std::{fmt, path::PathBuf};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, RootCa},
    transport::Limits,
};

/// The prefix of all channels if none is given.
const PREFIX: &str = "socketioxide";
/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "redis: config";
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// Redis itself takes at most 512 MiB in one argument (`proto-max-bulk-len`).
const PAYLOAD_CEILING: usize = 512 << 20;

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

/// What the addresses are.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Topology {
    /// One server.
    #[default]
    Standalone,
    /// Sentinels, which know where the primary is.
    Sentinel {
        /// The name of the primary.
        primary: String,
        /// ACL user of the sentinels; `None` is their `default` user.
        username: Option<String>,
        /// Password of the sentinels, if they have one.
        password: Option<String>,
    },
    /// Servers of a Redis Cluster of version 7 or newer, which know the others. It is used by sharded Pub/Sub.
    Cluster,
}

impl Address {
    /// An address of the same kind: with TLS if this one has it.
    pub(crate) fn beside(&self, host: String, port: u16) -> Self {
        match self {
            Self::Tls { ca, .. } => Self::Tls {
                host,
                port,
                ca: ca.clone(),
            },
            Self::Tcp { .. } | Self::Unix(_) => Self::Tcp { host, port },
        }
    }

    pub(crate) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } | Self::Tls { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }
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

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standalone => f.write_str("standalone"),
            Self::Sentinel { primary, .. } => write!(f, "sentinels of {primary:?}"),
            Self::Cluster => f.write_str("cluster"),
        }
    }
}

/// Everything [`RedisTransport::connect`](crate::RedisTransport::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` does not show the password.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_redis::{Address, Limits, RedisConfig};
///
/// let config = RedisConfig::new(Address::Unix("/run/redis/redis.sock".into()))
///     .with_credentials("chat", "secret")
///     .with_prefix("chat:blue")
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server is, or some of them, all with or all without TLS. Each attempt to connect begins with another one.
    pub addresses: Vec<Address>,
    /// What the addresses are. Default [`Topology::Standalone`], which has one.
    pub topology: Topology,
    /// ACL user; `None` is the server's `default` user. Needs a password.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database. Default 0, the only one of a cluster. Redis has one space of channels for all databases; so that clusters on
    /// different databases stay apart all the same, a database other than 0 becomes part of the channel names:
    /// `<prefix>:<database>:<topic>`.
    pub database: u32,
    /// First part of every channel name: 1 to 64 letters, digits, `.`, `_`, `-` and `:`. Default `socketioxide`.
    pub prefix: String,
    /// Deadlines and buffers. A payload can have at most 512 MiB; four times as much at once as `max_payload` allows makes
    /// Redis cut a subscriber at its default limits.
    pub limits: Limits,
}

impl RedisConfig {
    /// The defaults for a server at `address`.
    pub fn new(address: Address) -> Self {
        Self::several(vec![address], Topology::Standalone)
    }

    /// The defaults for the primary of this name, which the sentinels know.
    pub fn sentinel(primary: impl Into<String>, sentinels: Vec<Address>) -> Self {
        let topology = Topology::Sentinel {
            primary: primary.into(),
            username: None,
            password: None,
        };
        Self::several(sentinels, topology)
    }

    /// The defaults for a Redis Cluster, some servers of which are given.
    pub fn cluster(servers: Vec<Address>) -> Self {
        Self::several(servers, Topology::Cluster)
    }

    fn several(addresses: Vec<Address>, topology: Topology) -> Self {
        Self {
            addresses,
            topology,
            username: None,
            password: None,
            database: 0,
            prefix: PREFIX.to_owned(),
            limits: Limits::default(),
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let scheme = url.scheme().replacen("valkey", "redis", 1);
        let (transport, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
        let (username, password, path) = (url.username(), url.password(), url.path());
        let (topology, port) = match kind {
            "sentinel" => {
                let primary = username.clone().ok_or_else(|| {
                    invalid("no name of the primary, expected something like redis+sentinel://primary@host1,host2")
                })?;
                if password.is_some() || path.len() > 1 {
                    return Err(invalid(
                        "password and database of the servers are the options \"password\" and \"db\"",
                    ));
                }
                let topology = Topology::Sentinel {
                    primary,
                    username: url.take("sentinel_user"),
                    password: url.take("sentinel_password"),
                };
                (topology, SENTINEL_PORT)
            }
            "cluster" => (Topology::Cluster, PORT),
            _ => (Topology::Standalone, PORT),
        };
        let addresses = if kind == "unix" {
            if path.len() < 2 || url.host().is_some() {
                return Err(invalid("expected redis+unix:///path/to/socket"));
            }
            vec![Address::Unix(path.clone().into())]
        } else {
            let like = match transport {
                "rediss" => Address::Tls {
                    host: String::new(),
                    port,
                    ca: RootCa::take_from(&mut url),
                },
                _ => Address::Tcp {
                    host: String::new(),
                    port,
                },
            };
            // Several hosts where there can be one are refused at the end.
            let hosts = match (&topology, url.host()) {
                (_, None) => Vec::new(),
                (Topology::Standalone, Some(host)) => vec![(host, url.url().port())],
                (_, Some(_)) => url.take_hosts(),
            };
            let address =
                |(host, own): (String, Option<u16>)| like.beside(host, own.unwrap_or(port));
            hosts.into_iter().map(address).collect()
        };
        let mut config = Self::several(addresses, topology);
        if matches!(kind, "unix" | "sentinel") {
            config.username = url.take("user");
            config.password = url.take("password");
            let database = url.take_parsed("db", "a database number such as 0")?;
            config.database = database.unwrap_or(0);
        } else {
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
        config.limits = Limits::take_from(&mut url)?;
        url.finish()?;
        if config.addresses.is_empty() {
            return Err(invalid(
                "no host, expected something like redis://127.0.0.1:6379",
            ));
        }
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

    /// Sets all deadlines and buffers, also those that a URL gave.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// All addresses, as an error names them.
    pub fn at(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(Address::to_string).collect();
        addresses.join(",")
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        self.limits.validate(OPERATION, PAYLOAD_CEILING)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        // No slash: "a:ns/b" would make channels of the prefix "a" and its namespace "/b:…".
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.chars().all(legal) {
            return Err(invalid(
                "prefix must be 1 to 64 letters, digits, '.', '_', '-' or ':'",
            ));
        }
        let tls = |address: &Address| matches!(address, Address::Tls { .. });
        if cfg!(not(feature = "tls")) && self.addresses.iter().any(tls) {
            return Err(invalid(
                "rediss:// needs the cargo feature \"tls\" of socketioxide-adapter-redis",
            ));
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(invalid("a user name needs a password"));
        }
        if self.addresses.is_empty()
            || self.topology == Topology::Standalone && self.addresses.len() > 1
        {
            return Err(invalid(
                "one address is needed, or several of sentinels or of a cluster",
            ));
        }
        if self.topology == Topology::Cluster && self.database != 0 {
            return Err(invalid("a Redis Cluster has no database but 0"));
        }
        Ok(())
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("addresses", &self.addresses)
            .field("topology", &self.topology)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .field("limits", &self.limits)
            .finish()
    }
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}

//! How to reach a broker, and the limits of the transport.

use std::{fmt, time::Duration};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, RootCa},
    socket::Address,
    transport::Limits,
};

/// The prefix of all names if none is given.
const PREFIX: &str = "socketioxide";
/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "amqp: config";
const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
/// RabbitMQ itself takes at most 128 MiB in one message (`max_message_size`).
const PAYLOAD_CEILING: usize = 128 << 20;
/// AMQP's short strings, such as the name of a virtual host.
const SHORT_STRING: usize = 255;

/// Where a node reads from. All nodes publish to the same exchange, so that nodes of different kinds hear each other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A queue of its own that ends with its connection: what is published while the node is cut off is lost for it.
    Exclusive {
        /// What the broker holds for a node that reads slowly; beyond it the oldest goes. Default 64 MiB.
        max_bytes: u64,
    },
    /// A queue of its own that the broker keeps while the node is cut off.
    Durable {
        /// What the broker holds for a node that is away or reads slowly; beyond it the oldest goes. Default 64 MiB.
        max_bytes: u64,
        /// How long the broker keeps the queue of a node that is away. Default 1 minute.
        expires: Duration,
    },
    /// A RabbitMQ stream that all nodes share.
    Stream {
        /// How much the broker keeps. Default 1 GiB.
        max_bytes: u64,
        /// How long the broker keeps it. Default 1 hour.
        max_age: Duration,
        /// Size of the files that the stream is cut into; only whole ones are deleted. Default 16 MiB.
        segment_bytes: u64,
    },
}

impl Source {
    /// [`Source::Exclusive`] with its defaults.
    pub const EXCLUSIVE: Self = Self::Exclusive {
        max_bytes: 64 << 20,
    };
    /// [`Source::Durable`] with its defaults.
    pub const DURABLE: Self = Self::Durable {
        max_bytes: 64 << 20,
        expires: Duration::from_secs(60),
    };
    /// [`Source::Stream`] with its defaults.
    pub const STREAM: Self = Self::Stream {
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(3600),
        segment_bytes: 16 << 20,
    };

    /// Whether the broker keeps what a node misses.
    pub(crate) const fn replays(&self) -> bool {
        !matches!(self, Self::Exclusive { .. })
    }

    /// Name of the transport that reads from it.
    pub(crate) const fn transport(&self) -> &'static str {
        match self {
            Self::Exclusive { .. } | Self::Durable { .. } => "amqp",
            Self::Stream { .. } => "rabbitmq-streams",
        }
    }
}

/// Everything [`AmqpTransport::connect`](crate::AmqpTransport::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` does not show the password.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_amqp::{Address, AmqpConfig, Limits, Source};
///
/// let config = AmqpConfig::new(Address::new("rabbit-1", 5672))
///     .with_server(Address::new("rabbit-2", 5672))
///     .with_credentials("chat", "secret")
///     .with_vhost("production")
///     .with_source(Source::DURABLE)
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct AmqpConfig {
    /// The servers of one cluster, to be tried in turn.
    pub servers: Vec<Address>,
    /// TLS, and whom to trust; needs the cargo feature `tls`. Default `None`: plain text.
    pub tls: Option<RootCa>,
    /// User. Default `guest`, which RabbitMQ lets in from its own machine only.
    pub username: String,
    /// Password. Default `guest`.
    pub password: String,
    /// Virtual host. Default `/`.
    pub vhost: String,
    /// First part of the names of the exchange, the queues and the stream: 1 to 64 letters, digits, `.`, `_`, `-` and
    /// `:`, not beginning with `amq.`. Default `socketioxide`.
    pub prefix: String,
    /// Where this node reads from. Default [`Source::EXCLUSIVE`].
    pub source: Source,
    /// After twice this time without a sign of life the *broker* gives this node up. Whole seconds. Default 5 s. This
    /// node gives the broker up sooner: after 2 to 2.5 s.
    pub heartbeat: Duration,
    /// Deadlines and buffers. A payload can have at most 128 MiB.
    pub limits: Limits,
}

impl AmqpConfig {
    /// The defaults for a server at `address`.
    pub fn new(address: Address) -> Self {
        Self {
            servers: vec![address],
            tls: None,
            username: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            prefix: PREFIX.to_owned(),
            source: Source::EXCLUSIVE,
            heartbeat: Duration::from_secs(5),
            limits: Limits::default(),
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let tls = url.scheme().starts_with("amqps");
        let standard = if tls { TLS_PORT } else { PORT };
        let hosts = url.take_hosts();
        let server =
            |(host, port): (String, Option<u16>)| Address::new(host, port.unwrap_or(standard));
        let mut config = Self {
            servers: hosts.into_iter().map(server).collect(),
            ..Self::new(Address::new("", 0))
        };
        if tls {
            config.tls = Some(RootCa::take_from(&mut url));
        }
        if let Some(username) = url.username() {
            config.username = username;
            config.password = url.password().unwrap_or_default();
        }
        let path = url.path();
        if let Some(vhost) = path.strip_prefix('/').filter(|vhost| !vhost.is_empty()) {
            config.vhost = vhost.to_owned();
        }
        config.source = if url.scheme().ends_with("+streams") {
            stream(&mut url)?
        } else {
            queue(&mut url)?
        };
        if let Some(prefix) = url.take("prefix") {
            config.prefix = prefix;
        }
        url.read_duration("heartbeat", &mut config.heartbeat)?;
        config.limits = Limits::take_from(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    /// Adds a server of the same cluster.
    pub fn with_server(mut self, address: Address) -> Self {
        self.servers.push(address);
        self
    }

    /// Speaks TLS and trusts `ca`.
    pub fn with_tls(mut self, ca: RootCa) -> Self {
        self.tls = Some(ca);
        self
    }

    /// Sets the user and the password.
    pub fn with_credentials(
        mut self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.username = username.into();
        self.password = password.into();
        self
    }

    /// Sets the virtual host.
    pub fn with_vhost(mut self, vhost: impl Into<String>) -> Self {
        self.vhost = vhost.into();
        self
    }

    /// Sets the first part of all names.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets where this node reads from.
    pub fn with_source(mut self, source: Source) -> Self {
        self.source = source;
        self
    }

    /// Sets when the broker gives this node up.
    pub fn with_heartbeat(mut self, heartbeat: Duration) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Sets all deadlines and buffers, also those that a URL gave.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        self.limits.validate(OPERATION, PAYLOAD_CEILING)?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.chars().all(legal) {
            return Err(invalid(
                "prefix must be 1 to 64 letters, digits, '.', '_', '-' or ':'",
            ));
        }
        if self.prefix == "amq" || self.prefix.starts_with("amq.") {
            return Err(invalid("names that begin with \"amq.\" are the broker's"));
        }
        if cfg!(not(feature = "tls")) && self.tls.is_some() {
            return Err(invalid(
                "amqps:// needs the cargo feature \"tls\" of socketioxide-adapter-amqp",
            ));
        }
        if self.servers.is_empty() {
            return Err(invalid(
                "no host, expected something like amqp://127.0.0.1:5672",
            ));
        }
        if self.vhost.len() > SHORT_STRING {
            return Err(invalid("a virtual host has at most 255 bytes"));
        }
        if !(1..=3600).contains(&self.heartbeat.as_secs()) {
            return Err(invalid("heartbeat must be 1 second to 1 hour"));
        }
        let at_least_one = match self.source {
            Source::Exclusive { max_bytes } => max_bytes > 0,
            Source::Durable { max_bytes, expires } => max_bytes > 0 && expires.as_secs() > 0,
            Source::Stream {
                max_bytes,
                max_age,
                segment_bytes,
            } => max_bytes > 0 && max_age.as_secs() > 0 && segment_bytes > 0,
        };
        if !at_least_one {
            return Err(invalid(
                "sizes must be at least 1 byte, expires and max_age at least 1 second",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for AmqpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpConfig")
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .field("password", &"***")
            .field("vhost", &self.vhost)
            .field("prefix", &self.prefix)
            .field("source", &self.source)
            .field("heartbeat", &self.heartbeat)
            .field("limits", &self.limits)
            .finish()
    }
}

fn bytes(url: &mut BackendUrl, option: &'static str, default: u64) -> Result<u64> {
    let given = url.take_parsed(option, "a number of bytes")?;
    Ok(given.unwrap_or(default))
}

fn queue(url: &mut BackendUrl) -> Result<Source> {
    let max_bytes = bytes(url, "max_bytes", 64 << 20)?;
    match url.take("queue").as_deref() {
        None | Some("exclusive") => Ok(Source::Exclusive { max_bytes }),
        Some("durable") => Ok(Source::Durable {
            max_bytes,
            expires: url
                .take_duration("expires")?
                .unwrap_or(Duration::from_secs(60)),
        }),
        Some(_) => Err(invalid("option \"queue\" must be exclusive or durable")),
    }
}

fn stream(url: &mut BackendUrl) -> Result<Source> {
    Ok(Source::Stream {
        max_bytes: bytes(url, "max_bytes", 1 << 30)?,
        max_age: url
            .take_duration("max_age")?
            .unwrap_or(Duration::from_secs(3600)),
        segment_bytes: bytes(url, "segment_bytes", 16 << 20)?,
    })
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}

//! How to reach the servers, and what is Redis' own.

use std::sync::Arc;

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, Endpoint},
    socket::Address,
    transport::Connected,
};

use crate::{
    companion::Companion,
    topology::{Sentinel, Standalone, Topology},
    transport::{Redis, RedisTransport},
};

/// What an error of the configuration begins with.
const OPERATION: &str = "redis: config";
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// Redis itself takes at most 512 MiB in one argument (`proto-max-bulk-len`).
const PAYLOAD_CEILING: usize = 512 << 20;

/// Everything that connecting needs to know. Nothing is checked before [`connect`](Self::connect). `Debug` does not show
/// the passwords.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_redis::{Address, Endpoint, Limits, RedisConfig};
///
/// let endpoint = Endpoint::new(Address::Unix("/run/redis/redis.sock".into()))
///     .with_credentials("chat", "secret")
///     .with_prefix("chat:blue")
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// let mut config = RedisConfig::new(endpoint);
/// config.database = 2;
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server is, or what `topology` wants to know instead; each attempt to connect begins with another one. The
    /// user is one of the ACL, by default `default`. A payload can have at most 512 MiB; four times as much at once as
    /// `max_payload` allows makes Redis cut a subscriber at its default limits.
    pub endpoint: Endpoint,
    /// What the servers are. Default [`Standalone`], which is one.
    pub topology: Arc<dyn Topology>,
    /// Number of the database. Default 0. Redis has one space of channels for all databases; so that clusters on different
    /// databases stay apart all the same, a database other than 0 becomes part of the channel names:
    /// `<prefix>:<database>:<topic>`.
    pub database: u32,
}

impl RedisConfig {
    /// The defaults for one server.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            topology: Arc::new(Standalone),
            database: 0,
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let scheme = url.scheme().replacen("valkey", "redis", 1);
        let (transport, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
        let (port, path) = match kind {
            "sentinel" => (SENTINEL_PORT, url.path()),
            _ => (PORT, url.path()),
        };
        let mut endpoint = Endpoint::take_from(&mut url, port, transport == "rediss")?;
        let mut topology: Arc<dyn Topology> = Arc::new(Standalone);
        match kind {
            "unix" if path.len() > 1 && endpoint.servers.is_empty() => {
                endpoint.servers.push(Address::Unix(path.clone().into()));
            }
            "unix" => return Err(invalid("expected redis+unix:///path/to/socket")),
            "sentinel" => {
                let primary = endpoint.username.take().ok_or_else(|| {
                    invalid("no name of the primary, expected something like redis+sentinel://primary@host1,host2")
                })?;
                if endpoint.password.is_some() || path.len() > 1 {
                    return Err(invalid(
                        "password and database of the servers are the options \"password\" and \"db\"",
                    ));
                }
                let mut sentinel = Sentinel::new(primary);
                sentinel.username = url.take("sentinel_user");
                sentinel.password = url.take("sentinel_password");
                topology = Arc::new(sentinel);
            }
            _ if endpoint.servers.len() == 1 => {}
            _ => return Err(invalid("expected one host, as in redis://127.0.0.1:6379")),
        }
        let database = if matches!(kind, "unix" | "sentinel") {
            endpoint.username = url.take("user");
            endpoint.password = url.take("password");
            url.take_parsed("db", "a database number such as 0")?
        } else {
            match path.trim_start_matches('/') {
                "" => None,
                number => Some(number.parse().map_err(|_| {
                    invalid("after the host there can only be a database number such as /0")
                })?),
            }
        };
        url.finish()?;
        Ok(Self {
            endpoint,
            topology,
            database: database.unwrap_or(0),
        })
    }

    /// Sets what the servers are.
    pub fn with_topology(mut self, topology: impl Topology) -> Self {
        self.topology = Arc::new(topology);
        self
    }

    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// `Config` and `Unauthorized` at once, what else prevents a session after `connect_timeout`. Nothing is left running
    /// then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(self) -> Result<RedisTransport> {
        self.start(None).await
    }

    /// Like [`connect`](Self::connect), with a companion in every session.
    ///
    /// # Errors
    /// As `connect`, and what the companion says.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect_with(self, companion: Arc<dyn Companion>) -> Result<RedisTransport> {
        self.start(Some(companion)).await
    }

    async fn start(self, companion: Option<Arc<dyn Companion>>) -> Result<RedisTransport> {
        self.endpoint.validate(OPERATION, PAYLOAD_CEILING)?;
        let tls = self.endpoint.tls(OPERATION)?;
        Connected::start(Redis::new(self, tls, companion)).await
    }
}

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}

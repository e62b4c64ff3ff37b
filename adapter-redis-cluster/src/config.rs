//! How to reach the cluster.

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, Endpoint},
};
use socketioxide_adapter_redis::{RedisConfig, RedisTransport};

use crate::topology::Cluster;

const PORT: u16 = 6379;

/// Everything that connecting needs to know. Nothing is checked before [`connect`](Self::connect). `Debug` does not show
/// the password.
///
/// ```
/// use socketioxide_adapter_redis_cluster::{Address, Endpoint, RedisClusterConfig};
///
/// let servers = Endpoint::new(Address::new("10.0.0.1", 6379)).with_server(Address::new("10.0.0.2", 6379));
/// let config = RedisClusterConfig::new(servers.with_prefix("chat:blue"));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct RedisClusterConfig {
    /// Some servers of the cluster, which know the others, and what [`RedisConfig::endpoint`] says.
    pub endpoint: Endpoint,
}

impl RedisClusterConfig {
    /// The defaults for a cluster, some servers of which are given.
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let tls = matches!(url.scheme(), "rediss+cluster" | "valkeys+cluster");
        let endpoint = Endpoint::take_from(&mut url, PORT, tls)?;
        let path = url.path();
        url.finish()?;
        let wrong = if endpoint.servers.is_empty() {
            "no host, expected something like redis+cluster://127.0.0.1:6379"
        } else if matches!(path.trim_start_matches('/'), "" | "0") {
            return Ok(Self { endpoint });
        } else {
            "a Redis Cluster has no database but 0"
        };
        Err(Error::new(ErrorKind::Config, "redis: config", wrong))
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
        let config = RedisConfig::new(self.endpoint);
        config.with_topology(Cluster::default()).connect().await
    }
}

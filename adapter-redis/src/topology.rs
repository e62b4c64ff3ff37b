//! What the servers of a configuration are, and which of them a session is with.
//!
//! The types are those of redis-rs and change with its version.

use std::{fmt, future::pending, slice, time::Duration};

use async_trait::async_trait;
use redis::{RedisError, from_redis_value};
use socketioxide_adapter_core::{Error, ErrorKind, Result, socket::Address, transport::Step};
use tokio::time::sleep;

pub use crate::connection::Client;
use crate::{
    config::invalid,
    connection::{is_replica, login},
    error,
};

/// How often a sentinel is asked whether the primary is still the same.
const FOLLOW: Duration = Duration::from_secs(1);

/// How the servers of a session are found, and what each of them is for. What it knows of the servers is about the present
/// session of one transport.
#[async_trait]
pub trait Topology: fmt::Debug + Send + Sync + 'static {
    /// Finds the servers of a new session, at least one. `given` are those of the configuration. Needs no deadline.
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Vec<Address>>;

    /// The commands to publish, to subscribe and to end that.
    fn verbs(&self) -> [&'static str; 3] {
        ["PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"]
    }

    /// Whether replicas of a Redis Cluster are of no use, because they do not pass on what is published.
    fn is_sharded(&self) -> bool {
        false
    }

    /// Which of the servers has a channel, by its index.
    fn server_of(&self, _channel: &[u8]) -> usize {
        0
    }

    /// Whether an answer of one of the servers says that a channel is at another one. Then [`server_of`](Self::server_of)
    /// says so too from now on.
    fn has_moved(&self, _from: &Address, _answer: &RedisError) -> bool {
        false
    }

    /// Returns once this session should end because there are other servers now. `first` is its first one.
    async fn replaced(&self, _client: &Client, _given: &[Address], _first: &Address) -> Error {
        pending().await
    }
}

/// One server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standalone;

#[async_trait]
impl Topology for Standalone {
    async fn find(&self, _client: &Client, given: &[Address]) -> Result<Vec<Address>> {
        match given {
            [server] => Ok(vec![server.clone()]),
            _ => Err(invalid(
                "one server is needed; several can be sentinels, or servers of a cluster",
            )),
        }
    }
}

/// Sentinels, which know where the primary is. `Debug` does not show the password.
#[derive(Clone)]
#[non_exhaustive]
pub struct Sentinel {
    /// The name of the primary.
    pub primary: String,
    /// ACL user of the sentinels; `None` is their `default` user.
    pub username: Option<String>,
    /// Password of the sentinels, if they have one.
    pub password: Option<String>,
}

impl Sentinel {
    /// Sentinels without a password that know the primary of this name.
    pub fn new(primary: impl Into<String>) -> Self {
        Self {
            primary: primary.into(),
            username: None,
            password: None,
        }
    }

    async fn primary(&self, client: &Client, sentinels: &[Address]) -> Result<Address> {
        let client = Client {
            login: login(self.username.as_deref(), self.password.as_deref(), 0),
            ..client.clone()
        };
        let mut command = redis::cmd("SENTINEL");
        let command = command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let (sentinel, answer) = client.ask(sentinels, command).await?;
        match from_redis_value::<Option<(String, u16)>>(answer) {
            Ok(Some((host, port))) => Ok(Address::new(host, port)),
            Ok(None) => {
                let what = format!("the sentinel knows no primary {:?}", self.primary);
                Err(error::connect(ErrorKind::Config, sentinel, &what))
            }
            Err(_) => {
                let what = "the sentinel names no address";
                Err(error::connect(ErrorKind::Unavailable, sentinel, what))
            }
        }
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sentinels of {:?}", self.primary)
    }
}

#[async_trait]
impl Topology for Sentinel {
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Vec<Address>> {
        Ok(vec![self.primary(client, given).await?])
    }

    /// A primary that is cut off from the sentinels does not notice that they have another one.
    async fn replaced(&self, client: &Client, given: &[Address], first: &Address) -> Error {
        loop {
            sleep(FOLLOW).await;
            // A sentinel that cannot be asked says nothing about the primary, and one that was cut off itself may name
            // an old one.
            if let Ok(other) = self.primary(client, given).await
                && other != *first
                && let Ok((_, role)) = client
                    .ask(slice::from_ref(&other), &redis::cmd("HELLO"))
                    .await
                && !is_replica(role, false)
            {
                let message = format!("{first}: the sentinels have another primary, {other}");
                return Step::Link.error("redis", ErrorKind::Unavailable, message);
            }
        }
    }
}

//! What the servers of a configuration are, and which of them a session is with.
//!
//! The types are those of redis-rs and change with its version.

use std::{fmt, future::pending, time::Duration};

use async_trait::async_trait;
use redis::{Value, from_redis_value};
use socketioxide_adapter_core::{Error, ErrorKind, Result, socket::Address, transport::Step};
use tokio::time::sleep;

pub use crate::connection::Client;
use crate::{config::invalid, error};

/// How often a sentinel is asked whether the primary is still the same.
const FOLLOW: Duration = Duration::from_secs(1);

/// How the servers of a session are found. One value may serve several transports.
#[async_trait]
pub trait Topology: fmt::Debug + Send + Sync + 'static {
    /// Finds the servers to connect to now. `given` are those of the configuration. Needs no deadline.
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Found>;

    /// Whether each server has channels of its own, which are used by sharded Pub/Sub: `SPUBLISH`, `SSUBSCRIBE` and
    /// `SUNSUBSCRIBE`.
    fn is_sharded(&self) -> bool {
        false
    }

    /// The slot of a channel: which of [`Found::slots`] says where it is.
    fn slot(&self, _channel: &[u8]) -> usize {
        0
    }

    /// Returns once there is another server in the place of this one, which is the first of the session.
    async fn replaced(&self, _client: &Client, _given: &[Address], _present: &Address) -> Error {
        pending().await
    }
}

/// The servers of one session.
#[derive(Debug)]
#[non_exhaustive]
pub struct Found {
    /// All masters.
    pub servers: Vec<Address>,
    /// For each slot, the index of the server that has its channels; the session follows what moves to another one.
    pub slots: Vec<u16>,
}

impl Found {
    /// Servers, and for each slot the index of the one that has it.
    pub const fn new(servers: Vec<Address>, slots: Vec<u16>) -> Self {
        Self { servers, slots }
    }
}

/// One server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standalone;

#[async_trait]
impl Topology for Standalone {
    async fn find(&self, _client: &Client, given: &[Address]) -> Result<Found> {
        match given {
            [server] => Ok(Found::new(vec![server.clone()], vec![0])),
            _ => Err(invalid("one server is needed, or several sentinels")),
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
        let client = client.with_login(self.username.as_deref(), self.password.as_deref(), 0);
        let mut command = redis::cmd("SENTINEL");
        let command = command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let (sentinel, answer) = client.ask(sentinels, command).await?;
        let address = match answer {
            Value::Array(parts) => <[Value; 2]>::try_from(parts).ok(),
            Value::Nil => {
                let what = format!("the sentinel knows no primary {:?}", self.primary);
                return Err(error::connect(ErrorKind::Config, sentinel, &what));
            }
            _ => None,
        };
        let address = address.and_then(|[host, port]| {
            let host: String = from_redis_value(host).ok()?;
            Some(Address::new(host, from_redis_value(port).ok()?))
        });
        let what = "the sentinel names no address";
        address.ok_or_else(|| error::connect(ErrorKind::Unavailable, sentinel, what))
    }
}

impl fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sentinels of {:?}", self.primary)
    }
}

#[async_trait]
impl Topology for Sentinel {
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Found> {
        let primary = self.primary(client, given).await?;
        Ok(Found::new(vec![primary], vec![0]))
    }

    /// A primary that is cut off from the sentinels does not notice that they have another one.
    async fn replaced(&self, client: &Client, given: &[Address], present: &Address) -> Error {
        loop {
            sleep(FOLLOW).await;
            // A sentinel that cannot be asked says nothing about the primary, and one that was cut off itself may name
            // an old one.
            if let Ok(other) = self.primary(client, given).await
                && other != *present
                && client.is_primary(&other).await
            {
                let message = format!("{present}: the sentinels have another primary, {other}");
                return Step::Link.error("redis", ErrorKind::Unavailable, message);
            }
        }
    }
}

//! Which servers a session is with: the given one, the primary that the sentinels know, or the masters of a cluster.

use std::{
    future::pending,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, Value};
use socketioxide_adapter_core::{Error, ErrorKind, Result, socket::Tls};
use tokio::time::{sleep, timeout};

use crate::{
    config::{Address, OPERATION, RedisConfig, Topology},
    connection::{Client, Connection, require_primary},
    error::{self, Step},
    slots::Slots,
};

/// How long a sentinel, or a server of the cluster, may take to tell what it knows.
const ANSWER: Duration = Duration::from_secs(1);
/// How often a sentinel is asked whether the primary is still the same.
const FOLLOW: Duration = Duration::from_secs(1);

/// How to find and reach the servers.
#[derive(Debug)]
pub(crate) struct Servers {
    addresses: Vec<Address>,
    topology: Topology,
    pub(crate) client: Client,
    sentinels: Client,
    /// Masters of the cluster that a session was with last: they may outlive the given addresses.
    known: Mutex<Vec<Address>>,
    /// Who is asked next: one that answers, but wrongly, is not asked for ever.
    turn: AtomicUsize,
}

/// The servers of one session.
#[derive(Debug)]
pub(crate) struct Found {
    /// Each of them serves some of the channels.
    pub(crate) addresses: Vec<Address>,
    /// Which one serves which, in a cluster.
    pub(crate) slots: Option<Slots>,
}

impl Servers {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let ca = config.addresses.iter().find_map(|address| match address {
            Address::Tls { ca, .. } => Some(ca),
            Address::Tcp { .. } | Address::Unix(_) => None,
        });
        let tls = ca.map(|ca| Tls::new(ca, OPERATION)).transpose()?;
        let login = (config.username.as_deref(), config.password.as_deref());
        let sentinel_login = match &config.topology {
            Topology::Sentinel {
                username, password, ..
            } => (username.as_deref(), password.as_deref()),
            Topology::Standalone | Topology::Cluster => (None, None),
        };
        Ok(Self {
            addresses: config.addresses.clone(),
            topology: config.topology.clone(),
            client: Client::new(tls.clone(), login.0, login.1, config.database),
            sentinels: Client::new(tls, sentinel_login.0, sentinel_login.1, 0),
            known: Mutex::default(),
            turn: AtomicUsize::new(0),
        })
    }

    /// Finds the servers to connect to now.
    pub(crate) async fn find(&self) -> Result<Found> {
        let one = |address| Found {
            addresses: vec![address],
            slots: None,
        };
        match (&self.topology, self.addresses.as_slice()) {
            (Topology::Sentinel { primary, .. }, _) => Ok(one(self.primary(primary).await?)),
            (Topology::Standalone, [address, ..]) => Ok(one(address.clone())),
            (Topology::Standalone, []) => Err(crate::config::invalid("no address")),
            (Topology::Cluster, _) => self.masters().await,
        }
    }

    /// Asks a server of the cluster, one that was given or one of the last session, for the masters.
    async fn masters(&self) -> Result<Found> {
        let candidates = [self.addresses.as_slice(), &self.known()].concat();
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let (answered, ranges) = self.ask(&self.client, &candidates, &command).await?;
        let read = Slots::read(&answered, &ranges);
        let incomplete = "some slots of the Redis Cluster have no master";
        let (slots, addresses) = read.ok_or_else(|| unavailable(&answered, incomplete))?;
        self.known().clone_from(&addresses);
        Ok(Found {
            addresses,
            slots: Some(slots),
        })
    }

    fn known(&self) -> MutexGuard<'_, Vec<Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the sentinels have another primary, which one that is cut off from them does not notice.
    pub(crate) async fn replaced(&self, present: &Address) -> Error {
        let Topology::Sentinel { primary: name, .. } = &self.topology else {
            return pending().await;
        };
        loop {
            sleep(FOLLOW).await;
            // A sentinel that cannot be asked says nothing about the primary, and one that was cut off itself may name
            // an old one.
            if let Ok(other) = self.primary(name).await
                && other != *present
                && self.is_primary(&other).await
            {
                let message = format!("{present}: the sentinels have another primary, {other}");
                return Step::Link.error(ErrorKind::Unavailable, message);
            }
        }
    }

    async fn primary(&self, name: &str) -> Result<Address> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let (sentinel, answer) = self.ask(&self.sentinels, &self.addresses, &command).await?;
        let address = match answer {
            Value::Array(parts) => <[Value; 2]>::try_from(parts).ok(),
            Value::Nil => {
                let message = format!("{sentinel}: the sentinel knows no primary {name:?}");
                return Err(Step::Connect.error(ErrorKind::Config, message));
            }
            _ => None,
        };
        let address = address.and_then(|[host, port]| {
            let host = redis::from_redis_value(host).ok()?;
            Some(sentinel.beside(host, redis::from_redis_value(port).ok()?))
        });
        address.ok_or_else(|| unavailable(&sentinel, "the sentinel names no address"))
    }

    async fn is_primary(&self, address: &Address) -> bool {
        let ask = async {
            let connection = self.client.connect(address, None).await?;
            let Connection {
                mut commands,
                driver,
                ..
            } = connection;
            tokio::select! {
                primary = require_primary(Step::Link, address, &mut commands, false) => primary,
                () = driver => Err(error::interrupted(Step::Link, address)),
            }
        };
        matches!(timeout(ANSWER, ask).await, Ok(Ok(())))
    }

    /// The first answer to be had, and whose it is.
    async fn ask(
        &self,
        client: &Client,
        candidates: &[Address],
        command: &Cmd,
    ) -> Result<(Address, Value)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % candidates.len().max(1);
        let (later, first) = candidates.split_at(turn);
        let mut last = unavailable(&"redis", "no address");
        for address in first.iter().chain(later) {
            let answer = async {
                let Connection {
                    mut commands,
                    driver,
                    ..
                } = client.connect(address, None).await?;
                tokio::select! {
                    answer = command.query_async(&mut commands) => {
                        answer.map_err(|error| error::from_redis(Step::Connect, address, &error))
                    }
                    () = driver => Err(error::interrupted(Step::Connect, address)),
                }
            };
            match timeout(ANSWER, answer).await {
                Ok(Ok(answer)) => return Ok((address.clone(), answer)),
                Ok(Err(error)) => last = error,
                Err(_) => last = error::late(Step::Connect, address, ANSWER),
            }
        }
        Err(last)
    }
}

fn unavailable(at: &impl std::fmt::Display, what: &str) -> Error {
    Step::Connect.error(ErrorKind::Unavailable, format!("{at}: {what}"))
}

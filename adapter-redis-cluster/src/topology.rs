//! Which servers a session is with: the masters of the cluster.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use socketioxide_adapter_core::{ErrorKind, Result, transport::Step};
use socketioxide_adapter_redis::{
    Address,
    topology::{Client, Found, Topology},
};

use crate::slots;

/// The masters of a Redis Cluster, each of which has some of the slots.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// Masters that a session was with last: they may outlive the given servers.
    known: Mutex<Vec<Address>>,
}

impl Cluster {
    fn known(&self) -> MutexGuard<'_, Vec<Address>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Topology for Cluster {
    /// Asks a server of the cluster, one that was given or one of the last session, for the masters.
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Found> {
        let candidates = [given, &self.known()].concat();
        let mut command = redis::cmd("CLUSTER");
        let (answered, ranges) = client.ask(&candidates, command.arg("SLOTS")).await?;
        let found = slots::read(&answered, &ranges).ok_or_else(|| {
            let message = format!("{answered}: some slots of the Redis Cluster have no master");
            Step::Connect.error("redis", ErrorKind::Unavailable, message)
        })?;
        self.known().clone_from(&found.servers);
        Ok(found)
    }

    fn is_sharded(&self) -> bool {
        true
    }

    fn slot(&self, channel: &[u8]) -> usize {
        slots::of(channel)
    }
}

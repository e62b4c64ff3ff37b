//! Which masters of the cluster a session is with, and which of them has which channel.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use redis::RedisError;
use socketioxide_adapter_core::{Error, ErrorKind, Result, transport::Step};
use socketioxide_adapter_redis::{
    Address,
    topology::{Client, Topology},
};
use tokio::sync::Notify;

use crate::slots::{self, Slots};

/// The masters of a Redis Cluster, each of which has the channels of some slots.
#[derive(Debug, Default)]
pub(crate) struct Cluster(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those that the session is with. They may outlive the servers of the configuration.
    masters: Vec<Address>,
    slots: Slots,
    /// A slot has moved to a server that the session does not know.
    unknown_owner: Arc<Notify>,
}

impl Cluster {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Topology for Cluster {
    /// Asks a server of the cluster, one that was given or one of the last session, for the masters.
    async fn find(&self, client: &Client, given: &[Address]) -> Result<Vec<Address>> {
        let candidates = [given, &self.state().masters].concat();
        let mut command = redis::cmd("CLUSTER");
        let (answered, ranges) = client.ask(&candidates, command.arg("SLOTS")).await?;
        let (masters, slots) = slots::read(&answered, &ranges).ok_or_else(|| {
            let message = format!("{answered}: some slots of the Redis Cluster have no master");
            Step::Connect.error("redis", ErrorKind::Unavailable, message)
        })?;
        let state = State {
            masters: masters.clone(),
            slots,
            unknown_owner: Arc::default(),
        };
        *self.state() = state;
        Ok(masters)
    }

    fn verbs(&self) -> [&'static str; 3] {
        ["SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"]
    }

    fn is_sharded(&self) -> bool {
        true
    }

    fn server_of(&self, channel: &[u8]) -> usize {
        let slot = slots::of(channel);
        self.state().slots.get(slot)
    }

    /// `MOVED` names the slot and its new master.
    fn has_moved(&self, from: &Address, answer: &RedisError) -> bool {
        let Some((owner, slot)) = answer.redirect_node() else {
            return false;
        };
        let owner = owner.rsplit_once(':').and_then(|(host, port)| {
            // Without a host: the same one.
            let host = if host.is_empty() { from.host() } else { host };
            Some(Address::new(host, port.parse().ok()?))
        });
        let mut state = self.state();
        let known = state
            .masters
            .iter()
            .position(|it| Some(it) == owner.as_ref());
        match known {
            Some(master) => state.slots.set(slot.into(), master),
            None => state.unknown_owner.notify_one(),
        }
        true
    }

    async fn replaced(&self, _client: &Client, _given: &[Address], first: &Address) -> Error {
        let unknown_owner = self.state().unknown_owner.clone();
        unknown_owner.notified().await;
        let message = format!("{first}: a slot has moved to a server that is new");
        Step::Link.error("redis", ErrorKind::Interrupted, message)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use redis::parse_redis_value;

    use super::*;

    #[test]
    fn a_slot_is_followed_to_a_known_master_and_an_unknown_one_is_told() {
        let masters = vec![Address::new("a", 1), Address::new("a", 2)];
        let ranges = "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n:1\r\n";
        let ranges = parse_redis_value(ranges.as_bytes()).unwrap();
        let cluster = Cluster::default();
        *cluster.state() = State {
            slots: slots::read(&masters[0], &ranges).unwrap().1,
            masters,
            ..State::default()
        };
        let moved = |answer: &str| {
            let answer = parse_redis_value(answer.as_bytes()).unwrap();
            let answer = answer.extract_error().unwrap_err();
            cluster.has_moved(&Address::new("a", 1), &answer)
        };
        let unknown = || cluster.state().unknown_owner.notified().now_or_never();
        assert_eq!(cluster.server_of(b"user1000"), 0);
        assert!(!moved("-ERR no\r\n"));
        // Without a host it is the same one.
        for (answer, server) in [("a:2", 1), ("a:1", 0), (":2", 1)] {
            assert!(moved(&format!("-MOVED 3443 {answer}\r\n")));
            assert_eq!(cluster.server_of(b"user1000"), server);
        }
        assert!(unknown().is_none());
        assert!(moved("-MOVED 3443 b:1\r\n"));
        assert!(unknown().is_some());
        assert_eq!(cluster.server_of(b"user1000"), 1);
    }
}

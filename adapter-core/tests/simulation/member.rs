//! One node of the simulated cluster, and what it writes down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use socketioxide_adapter_core::{
    ClusterEvent, ClusterEvents, Error, NodeId, Outcome, memory::MemoryTransport,
};
use socketioxide_core::{
    Sid,
    adapter::{CoreAdapter, errors::BroadcastError},
};
use tokio::{task::AbortHandle, time::sleep};

use crate::{
    judge::Sent,
    support::{Adapter, Node, Sockets, event, everyone},
};

pub(crate) struct Member {
    pub(crate) name: usize,
    pub(crate) node: Node,
    pub(crate) transport: Arc<MemoryTransport>,
    pub(crate) adapter: Arc<Adapter>,
    /// Where it asks: questions are numbered as messages are, and would spoil the count of those.
    pub(crate) asking: Option<Arc<Adapter>>,
    pub(crate) sockets: Arc<Sockets>,
    pub(crate) sid: Sid,
    pub(crate) sent: Arc<Mutex<Sent>>,
    pub(crate) told: Arc<Mutex<Told>>,
    /// Held by who emits: two callers at once would be ordered by the adapter, not by the ledger.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    pub(crate) bursts: Vec<AbortHandle>,
    /// Messages of the others when it began to join, and when it had joined, by name.
    pub(crate) before_join: Vec<u64>,
    pub(crate) after_join: Vec<u64>,
    pub(crate) cut: bool,
}

/// What a node was told, until the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Lost messages by sender.
    pub(crate) gaps: BTreeMap<NodeId, u64>,
    pub(crate) unsent: u64,
    /// Events that the ledger missed.
    pub(crate) lagged: u64,
}

impl Told {
    /// Writes down the events until the cluster is gone.
    pub(crate) fn follow(mut events: ClusterEvents) -> Arc<Mutex<Self>> {
        let told = Arc::new(Mutex::new(Self::default()));
        let ledger = told.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let mut told = ledger.lock().unwrap();
                match event {
                    ClusterEvent::Gap {
                        origin,
                        namespace,
                        count,
                        ..
                    } if namespace == "/" => {
                        *told.gaps.entry(origin).or_default() += count;
                    }
                    ClusterEvent::Unsent { count, .. } => told.unsent += count,
                    ClusterEvent::Lagged { count } => told.lagged += count,
                    _ => {}
                }
            }
        });
        told
    }
}

impl Member {
    /// The numbers that its socket received, in order, by the name of their sender.
    pub(crate) fn by_sender(&self, names: usize) -> Vec<Vec<u64>> {
        let mut received = vec![Vec::new(); names];
        for text in self.sockets.received(self.sid) {
            let text = text.strip_prefix("2[\"msg\",\"").unwrap();
            let (name, id) = text.strip_suffix("\"]").unwrap().split_once(':').unwrap();
            received[name.parse::<usize>().unwrap()].push(id.parse().unwrap());
        }
        received
    }
}

/// Emits `count` messages, one after the other, with a pause after each, and notes what became of them.
pub(crate) fn emits(
    member: &Member,
    count: u64,
    pause: Duration,
) -> impl Future<Output = ()> + use<> {
    let (name, turn) = (member.name, member.turn.clone());
    let (adapter, sent) = (member.adapter.clone(), member.sent.clone());
    async move {
        let _turn = turn.lock().await;
        for _ in 0..count {
            let id = {
                let mut sent = sent.lock().unwrap();
                sent.tried += 1;
                sent.tried
            };
            let message = event("/", &format!("{name}:{id}"));
            let result = adapter.broadcast(message, everyone()).await;
            {
                let mut sent = sent.lock().unwrap();
                match result.map_err(|error| outcome(&error)) {
                    Ok(()) => sent.accepted.push(id),
                    Err(Outcome::NotSent | Outcome::Rejected) => sent.refused.push(id),
                    Err(Outcome::Unknown) => {}
                }
            }
            if pause > Duration::ZERO {
                sleep(pause).await;
            }
        }
    }
}

fn outcome(error: &BroadcastError) -> Outcome {
    let BroadcastError::Adapter(error) = error else {
        panic!("{error}");
    };
    error.0.downcast_ref::<Error>().unwrap().outcome()
}

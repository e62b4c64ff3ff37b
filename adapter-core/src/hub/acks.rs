//! The bookkeeping of one broadcast with acknowledgements.
//!
//! Each expected node first tells how many of its sockets were addressed, and then sends one acknowledgement per socket.
//! The two may arrive in any order.

use std::collections::{BTreeMap, BTreeSet};

use socketioxide_core::Sid;

use crate::NodeId;

/// Most acknowledgements that one node may send in one broadcast; a larger announced count is cut to it.
pub(crate) const MAX_ACKS_PER_NODE: u32 = 1_000_000;

#[derive(Debug, Default)]
struct Node {
    announced: Option<u32>,
    acked: BTreeSet<Sid>,
    gone: bool,
}

impl Node {
    fn received(&self) -> u32 {
        u32::try_from(self.acked.len()).unwrap_or(u32::MAX)
    }

    fn is_complete(&self) -> bool {
        self.announced.is_some_and(|count| self.received() >= count)
    }
}

/// Which acknowledgements of one broadcast are still to come.
#[derive(Debug)]
pub(crate) struct AckTracker {
    nodes: BTreeMap<NodeId, Node>,
}

impl AckTracker {
    /// A broadcast that `expected` nodes take part in; nobody else can.
    pub(crate) fn new(expected: Vec<NodeId>) -> Self {
        let nodes = expected.into_iter().map(|node| (node, Node::default()));
        Self {
            nodes: nodes.collect(),
        }
    }

    /// Notes how many sockets a node addressed. Only the first count of a node matters.
    pub(crate) fn on_count(&mut self, node: NodeId, count: u32) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.announced.get_or_insert(count.min(MAX_ACKS_PER_NODE));
        }
    }

    /// Notes the acknowledgement of a socket; returns whether to deliver it.
    ///
    /// It is not delivered if the node is not expected, if the socket has acknowledged before, or if the node has sent as
    /// many as it announced (before that: [`MAX_ACKS_PER_NODE`]). A node that left the cluster may still deliver.
    pub(crate) fn on_ack(&mut self, node: NodeId, sid: Sid) -> bool {
        let Some(node) = self.nodes.get_mut(&node) else {
            return false;
        };
        node.received() < node.announced.unwrap_or(MAX_ACKS_PER_NODE) && node.acked.insert(sid)
    }

    /// Notes that a node left the cluster: it is no longer waited for.
    pub(crate) fn on_node_gone(&mut self, node: NodeId) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.gone = true;
        }
    }

    /// Whether nothing is waited for any more.
    pub(crate) fn is_done(&self) -> bool {
        self.nodes.values().all(|n| n.gone || n.is_complete())
    }

    /// The nodes whose acknowledgements are not complete, whether they left or are still waited for.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        let missing = self.nodes.iter().filter(|(_, n)| !n.is_complete());
        missing.map(|(&node, _)| node).collect()
    }

    /// How many announced acknowledgements are still waited for. Nodes that have not announced a count yet add nothing.
    pub(crate) fn remaining(&self) -> u64 {
        let waiting = self.nodes.values().filter(|n| !n.gone);
        let left = |n: &Node| n.announced.unwrap_or(0).saturating_sub(n.received());
        waiting.map(|n| u64::from(left(n))).sum()
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: u64 = 3;

    fn node(n: u64) -> NodeId {
        NodeId::numbered(n)
    }

    fn sid(n: u64) -> Sid {
        format!("{n:016}").parse().unwrap()
    }

    fn tracker() -> AckTracker {
        AckTracker::new((0..NODES).map(node).collect())
    }

    #[test]
    fn a_broadcast_to_nobody_is_done() {
        assert!(AckTracker::new(Vec::new()).is_done());
    }

    #[test]
    fn acks_that_overtake_their_count_are_delivered_and_counted() {
        let mut acks = AckTracker::new(vec![node(0)]);
        assert!(acks.on_ack(node(0), sid(1)));
        assert!(!acks.is_done());
        acks.on_count(node(0), 2);
        assert_eq!(acks.remaining(), 1);
        assert!(acks.on_ack(node(0), sid(2)));
        assert!(acks.is_done() && acks.missing().is_empty());
    }

    #[test]
    fn strangers_repetitions_and_more_than_announced_are_not_delivered() {
        let mut acks = tracker();
        acks.on_count(node(0), 2);
        assert!(acks.on_ack(node(0), sid(1)));
        assert!(!acks.on_ack(node(0), sid(1)));
        assert!(acks.on_ack(node(0), sid(2)));
        assert!(!acks.on_ack(node(0), sid(3)));
        acks.on_count(node(9), 1);
        assert!(!acks.on_ack(node(9), sid(4)));
    }

    #[test]
    fn a_node_that_left_is_not_waited_for_but_may_still_deliver() {
        let mut acks = tracker();
        acks.on_count(node(0), 0);
        acks.on_count(node(1), 2);
        acks.on_node_gone(node(1));
        acks.on_node_gone(node(2));
        assert!(acks.is_done());
        assert_eq!(
            (acks.missing(), acks.remaining()),
            (vec![node(1), node(2)], 0)
        );
        assert!(acks.on_ack(node(1), sid(1)));
        assert!(acks.on_ack(node(1), sid(2)));
        assert_eq!(acks.missing(), [node(2)]);
    }

    #[test]
    fn huge_counts_are_capped_and_the_first_one_stays() {
        let mut acks = tracker();
        for n in 0..NODES {
            acks.on_count(node(n), u32::MAX);
            acks.on_count(node(n), u32::MAX);
            acks.on_count(node(n), 0);
        }
        let most = NODES * u64::from(MAX_ACKS_PER_NODE);
        assert_eq!((acks.remaining(), acks.is_done()), (most, false));
    }
}

//! Which nodes a request still waits for: a pure state machine.

use std::collections::BTreeMap;

use crate::NodeId;

/// Why a node did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It left the cluster, by goodbye or by silence.
    Dead,
    /// It was still expected when the request ended.
    TimedOut,
}

/// The result of a request: who answered what, and who did not. Both are sorted by node id.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answers<T> {
    pub(crate) items: Vec<(NodeId, T)>,
    pub(crate) missing: Vec<(NodeId, End)>,
}

#[derive(Debug)]
enum Slot<T> {
    Waiting,
    Answered(T),
    Dead,
}

/// The bookkeeping of one request: each expected node ends once, by its first answer or by leaving the cluster.
#[derive(Debug)]
pub(crate) struct RequestTracker<T> {
    slots: BTreeMap<NodeId, Slot<T>>,
    waiting: usize,
}

impl<T> RequestTracker<T> {
    /// A request that `expected` nodes should answer; nobody else can.
    pub(crate) fn new(expected: Vec<NodeId>) -> Self {
        let slots: BTreeMap<_, _> = expected.into_iter().map(|n| (n, Slot::Waiting)).collect();
        let waiting = slots.len();
        Self { slots, waiting }
    }

    /// Takes the answer of a node. Returns `false` and drops it if the node is not expected or has ended before.
    pub(crate) fn on_answer(&mut self, node: NodeId, answer: T) -> bool {
        self.end(node, Slot::Answered(answer))
    }

    /// Notes that a node left the cluster: it is no longer waited for.
    pub(crate) fn on_node_gone(&mut self, node: NodeId) {
        self.end(node, Slot::Dead);
    }

    /// Notes that a node has left the namespace asked about: it has nothing to answer, and is not missing.
    pub(crate) fn on_left_namespace(&mut self, node: NodeId) {
        if self.waits_for(node) {
            self.slots.remove(&node);
            self.waiting -= 1;
        }
    }

    /// Whether the node is expected and has not ended.
    pub(crate) fn waits_for(&self, node: NodeId) -> bool {
        matches!(self.slots.get(&node), Some(Slot::Waiting))
    }

    /// Whether every expected node has ended.
    pub(crate) const fn is_done(&self) -> bool {
        self.waiting == 0
    }

    /// Ends the request; nodes that are still waited for have timed out.
    pub(crate) fn finish(self) -> Answers<T> {
        let mut answers = Answers {
            items: Vec::new(),
            missing: Vec::new(),
        };
        for (node, slot) in self.slots {
            match slot {
                Slot::Answered(answer) => answers.items.push((node, answer)),
                Slot::Dead => answers.missing.push((node, End::Dead)),
                Slot::Waiting => answers.missing.push((node, End::TimedOut)),
            }
        }
        answers
    }

    fn end(&mut self, node: NodeId, end: Slot<T>) -> bool {
        match self.slots.get_mut(&node) {
            Some(slot @ Slot::Waiting) => {
                *slot = end;
                self.waiting -= 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: u64 = 4;

    fn node(n: u64) -> NodeId {
        NodeId::numbered(n)
    }

    fn expected() -> Vec<NodeId> {
        (0..NODES).map(node).collect()
    }

    #[test]
    fn a_request_to_nobody_is_done() {
        let request = RequestTracker::<()>::new(Vec::new());
        assert!(request.is_done());
        assert!(request.finish().missing.is_empty());
    }

    #[test]
    fn each_node_ends_once_and_the_rest_has_timed_out() {
        let mut request = RequestTracker::new([expected(), expected()].concat());
        assert!(request.on_answer(node(2), 'a'));
        assert!(!request.on_answer(node(2), 'b'), "a second answer");
        assert!(!request.on_answer(node(9), 'c'), "not expected");
        request.on_node_gone(node(2));
        request.on_node_gone(node(1));
        request.on_node_gone(node(9));
        request.on_left_namespace(node(2));
        request.on_left_namespace(node(9));
        assert!(!request.on_answer(node(1), 'd'), "it left before");
        assert!(request.on_answer(node(0), 'e'));
        assert!(!request.is_done());
        let answers = request.finish();
        assert_eq!(answers.items, [(node(0), 'e'), (node(2), 'a')]);
        let missing = [(node(1), End::Dead), (node(3), End::TimedOut)];
        assert_eq!(answers.missing, missing);
    }

    #[test]
    fn a_node_that_left_the_namespace_is_neither_waited_for_nor_missing() {
        let mut request = RequestTracker::new(vec![node(0), node(1)]);
        assert!(request.waits_for(node(1)));
        request.on_left_namespace(node(1));
        assert!(!request.waits_for(node(1)) && !request.is_done());
        assert!(!request.on_answer(node(1), 'a'));
        assert!(request.on_answer(node(0), 'b'));
        assert!(request.is_done());
        let answers = request.finish();
        assert_eq!(answers.items, [(node(0), 'b')]);
        assert_eq!(answers.missing, []);
    }
}

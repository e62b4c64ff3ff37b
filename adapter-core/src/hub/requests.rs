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

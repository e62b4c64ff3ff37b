//! Random histories of one broadcast with acknowledgements, judged by a model of sets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

const EXPECTED: u64 = 3;

#[derive(Debug, Clone, Copy)]
enum Op {
    Count(u64, u32),
    Ack(u64, u64),
    Gone(u64),
}

#[derive(Debug, Clone, Default)]
struct Model {
    announced: BTreeMap<u64, u64>,
    delivered: BTreeSet<(u64, u64)>,
    gone: BTreeSet<u64>,
    /// Whether the last acknowledgement was delivered.
    counted: bool,
}

impl Model {
    fn delivered_by(&self, n: u64) -> u64 {
        self.delivered.iter().filter(|(by, _)| *by == n).count() as u64
    }

    /// What the node still owes, if it has told.
    fn owes(&self, n: u64) -> Option<u64> {
        let announced = self.announced.get(&n)?;
        Some(announced.saturating_sub(self.delivered_by(n)))
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        let n = 0..EXPECTED + 1;
        let count = prop_oneof![9 => 0..4u32, 1 => Just(u32::MAX)];
        prop_oneof![
            2 => (n.clone(), count).prop_map(|(n, count)| Op::Count(n, count)),
            6 => (n.clone(), 0..6u64).prop_map(|(n, sid)| Op::Ack(n, sid)),
            1 => n.prop_map(Op::Gone),
        ]
        .boxed()
    }

    fn apply(mut model: Self, op: &Op) -> Self {
        model.counted = false;
        match *op {
            Op::Count(n, count) if n < EXPECTED => {
                let count = count.min(MAX_ACKS_PER_NODE);
                model.announced.entry(n).or_insert(count.into());
            }
            // One that overtakes the count is delivered as well.
            Op::Ack(n, sid) if n < EXPECTED && model.owes(n) != Some(0) => {
                model.counted = model.delivered.insert((n, sid));
            }
            Op::Gone(n) => {
                model.gone.insert(n);
            }
            _ => {}
        }
        model
    }
}

struct Broadcast;

impl StateMachineTest for Broadcast {
    type SystemUnderTest = AckTracker;
    type Reference = Model;

    fn init_test(_: &Model) -> AckTracker {
        AckTracker::new((0..EXPECTED).map(NodeId::numbered).collect())
    }

    fn apply(mut acks: AckTracker, model: &Model, op: Op) -> AckTracker {
        match op {
            Op::Count(n, count) => acks.on_count(NodeId::numbered(n), count),
            Op::Ack(n, sid) => {
                let sid = format!("{sid:016}").parse().unwrap();
                assert_eq!(acks.on_ack(NodeId::numbered(n), sid), model.counted);
            }
            Op::Gone(n) => acks.on_node_gone(NodeId::numbered(n)),
        }
        acks
    }

    fn check_invariants(acks: &AckTracker, model: &Model) {
        let missing: Vec<u64> = (0..EXPECTED)
            .filter(|&n| model.owes(n) != Some(0))
            .collect();
        let waiting = || missing.iter().filter(|n| !model.gone.contains(n));
        assert_eq!(acks.is_done(), waiting().count() == 0);
        let remaining: u64 = waiting().filter_map(|&n| model.owes(n)).sum();
        assert_eq!(acks.remaining(), remaining);
        let missing: Vec<NodeId> = missing.into_iter().map(NodeId::numbered).collect();
        assert_eq!(acks.missing(), missing);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_is_done_when_each_node_left_or_has_sent_what_it_announced(sequential 1..60 => Broadcast);
}

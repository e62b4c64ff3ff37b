//! Random histories of one request, judged by a model: what happens first to a node is all that counts.

use std::collections::BTreeMap;

use proptest::{collection::btree_set, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

/// More nodes than are ever expected.
const NODES: u64 = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Happens {
    Answer(u8),
    Gone,
    LeftNamespace,
}

/// What came first to each expected node; `None` while nothing has.
type First = BTreeMap<u64, Option<Happens>>;

#[derive(Debug, Clone)]
struct Model {
    first: First,
    /// Whether the last event was the first of an expected node.
    counted: bool,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = (u64, Happens);

    fn init_state() -> BoxedStrategy<Self> {
        let expected = btree_set(0..NODES - 1, 0..NODES as usize);
        expected
            .prop_map(|expected| Self {
                first: expected.into_iter().map(|n| (n, None)).collect(),
                counted: false,
            })
            .boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<(u64, Happens)> {
        let happens = prop_oneof![
            3 => any::<u8>().prop_map(Happens::Answer),
            1 => Just(Happens::Gone),
            1 => Just(Happens::LeftNamespace),
        ];
        (0..NODES, happens).boxed()
    }

    fn apply(mut model: Self, (n, happens): &(u64, Happens)) -> Self {
        let first = model.first.get_mut(n).filter(|first| first.is_none());
        model.counted = first.is_some();
        if let Some(first) = first {
            *first = Some(*happens);
        }
        model
    }
}

struct Request;

impl StateMachineTest for Request {
    type SystemUnderTest = RequestTracker<u8>;
    type Reference = Model;

    fn init_test(model: &Model) -> RequestTracker<u8> {
        RequestTracker::new(model.first.keys().map(|&n| NodeId::numbered(n)).collect())
    }

    fn apply(
        mut request: RequestTracker<u8>,
        model: &Model,
        (n, happens): (u64, Happens),
    ) -> RequestTracker<u8> {
        let node = NodeId::numbered(n);
        match happens {
            Happens::Answer(answer) => assert_eq!(request.on_answer(node, answer), model.counted),
            Happens::Gone => request.on_node_gone(node),
            Happens::LeftNamespace => request.on_left_namespace(node),
        }
        request
    }

    fn check_invariants(request: &RequestTracker<u8>, model: &Model) {
        let waits = |n: u64| model.first.get(&n) == Some(&None);
        for n in 0..NODES {
            assert_eq!(request.waits_for(NodeId::numbered(n)), waits(n));
        }
        assert_eq!(request.is_done(), !(0..NODES).any(waits));
    }

    fn teardown(request: RequestTracker<u8>, model: Model) {
        let mut items = Vec::new();
        let mut missing = Vec::new();
        for (n, first) in model.first {
            let node = NodeId::numbered(n);
            match first {
                Some(Happens::Answer(answer)) => items.push((node, answer)),
                Some(Happens::Gone) => missing.push((node, End::Dead)),
                Some(Happens::LeftNamespace) => {}
                None => missing.push((node, End::TimedOut)),
            }
        }
        assert_eq!(request.finish(), Answers { items, missing });
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_first_end_of_each_node_counts(sequential 1..20 => Request);
}

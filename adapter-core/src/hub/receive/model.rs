//! Random histories of three publishers on a lossy, duplicating, first-in-first-out lane, judged by a model that knows of
//! each number what became of it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

const PUBLISHERS: usize = 3;
/// Milliseconds since the beginning.
type Ms = u64;
const HOLD: Ms = 250;

/// What the bus does with one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Arrives,
    Lost,
    /// The broker refuses it: its numbers will be declared void.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Send {
        who: usize,
        count: u32,
        fate: Fate,
    },
    /// The last `frames` frames are sent again in order; the bits of `lost` say which do not arrive.
    Resend {
        who: usize,
        frames: usize,
        lost: u8,
    },
    /// The oldest refused frame that was not yet declared void is.
    Void {
        who: usize,
        arrives: bool,
    },
    Tail {
        who: usize,
    },
    /// The presence of the publisher arrives, which tells when it started.
    Presence {
        who: usize,
    },
    Live,
    Wait(Ms),
}

/// What reaches the filter.
#[derive(Debug, Clone, Copy)]
enum Arrives {
    /// A frame, and how many of its leading numbers were seen before.
    Data {
        seq: u64,
        count: u32,
        seen: u32,
    },
    Void {
        seq: u64,
        count: u32,
    },
    Tail {
        next: u64,
    },
}

/// One publisher, and what became of its numbers at the receiver.
#[derive(Debug, Clone)]
struct Publisher {
    started: Option<Ms>,
    start_known: bool,
    start_judged: bool,
    next: u64,
    frames: Vec<(u64, u32)>,
    refused: Vec<(u64, u32)>,
    /// The first number that anything which arrived told about, and the last.
    first: Option<u64>,
    high: u64,
    high_at_live: u64,
    delivered: BTreeSet<u64>,
    voided: BTreeSet<u64>,
    /// When a number was first known to be missing.
    missed_at: BTreeMap<u64, Ms>,
}

impl Publisher {
    const fn new() -> Self {
        Self {
            started: None,
            start_known: false,
            start_judged: false,
            next: 1,
            frames: Vec::new(),
            refused: Vec::new(),
            first: None,
            high: 0,
            high_at_live: u64::MAX,
            delivered: BTreeSet::new(),
            voided: BTreeSet::new(),
            missed_at: BTreeMap::new(),
        }
    }

    /// Something arrived that shows all numbers up to `last` to be used, `first..=last` being accounted for.
    fn evidence(&mut self, now: Ms, first: u64, last: u64) {
        if self.first.is_none() {
            self.first = Some(first);
            self.high = first - 1;
        }
        if self.start_known && !self.start_judged {
            self.start_judged = true;
            let unseen = 1..self.first.unwrap();
            self.missed_at.extend(unseen.map(|n| (n, now)));
        }
        let jumped = self.high + 1..first;
        self.missed_at.extend(jumped.map(|n| (n, now)));
        self.high = self.high.max(last);
    }

    fn data(&mut self, now: Ms, (seq, count): (u64, u32)) -> Arrives {
        let numbers = seq..seq + u64::from(count);
        let high = self.first.map_or(0, |_| self.high);
        self.evidence(now, seq, numbers.end - 1);
        let fresh: Vec<u64> = numbers.filter(|n| *n > high).collect();
        let seen = count - fresh.len() as u32;
        self.delivered.extend(fresh);
        Arrives::Data { seq, count, seen }
    }

    fn void(&mut self, now: Ms, (seq, count): (u64, u32)) -> Arrives {
        let last = seq + u64::from(count) - 1;
        self.evidence(now, seq, last);
        // As long as the start is unknown, the numbers before the first frame are out of reach.
        let from = match self.start_judged {
            true => seq,
            false => seq.max(self.first.unwrap()),
        };
        self.voided.extend(from..=last);
        Arrives::Void { seq, count }
    }

    fn tail(&mut self, now: Ms) -> Arrives {
        self.started.get_or_insert(now);
        self.evidence(now, self.next, self.next - 1);
        Arrives::Tail { next: self.next }
    }

    /// Whether the receiver owes nothing for the number.
    fn excused(&self, n: u64, live: Option<Ms>) -> bool {
        let young = |live| self.started.unwrap() >= live;
        n <= self.high_at_live || n < self.first.unwrap() && !live.is_some_and(young)
    }
}

#[derive(Debug, Clone)]
struct Model {
    now: Ms,
    live: Option<Ms>,
    publishers: [Publisher; PUBLISHERS],
    /// What reaches the filter in the last step, and from whom.
    arrives: Vec<(usize, Arrives)>,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self {
            now: 0,
            live: None,
            publishers: [const { Publisher::new() }; PUBLISHERS],
            arrives: Vec::new(),
        })
        .boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        let who = 0..PUBLISHERS;
        let fate = prop_oneof![
            6 => Just(Fate::Arrives),
            2 => Just(Fate::Lost),
            1 => Just(Fate::Refused),
        ];
        prop_oneof![
            12 => (who.clone(), 1..4u32, fate)
                .prop_map(|(who, count, fate)| Op::Send { who, count, fate }),
            3 => (who.clone(), 1..6usize, any::<u8>())
                .prop_map(|(who, frames, lost)| Op::Resend { who, frames, lost }),
            2 => (who.clone(), any::<bool>()).prop_map(|(who, arrives)| Op::Void { who, arrives }),
            2 => who.clone().prop_map(|who| Op::Tail { who }),
            1 => who.prop_map(|who| Op::Presence { who }),
            1 => Just(Op::Live),
            3 => (0..400u64).prop_map(Op::Wait),
        ]
        .boxed()
    }

    fn apply(mut model: Self, op: &Op) -> Self {
        let now = model.now;
        let mut arrives = Vec::new();
        match *op {
            Op::Send { who, count, fate } => {
                let publisher = &mut model.publishers[who];
                publisher.started.get_or_insert(now);
                let frame = (publisher.next, count);
                publisher.next += u64::from(count);
                match fate {
                    Fate::Refused => publisher.refused.push(frame),
                    Fate::Arrives | Fate::Lost => publisher.frames.push(frame),
                }
                if fate == Fate::Arrives {
                    arrives.push((who, publisher.data(now, frame)));
                }
            }
            Op::Resend { who, frames, lost } => {
                let publisher = &mut model.publishers[who];
                let sent = &publisher.frames;
                let again = sent[sent.len().saturating_sub(frames)..].to_vec();
                for (i, frame) in again.into_iter().enumerate() {
                    if lost >> i & 1 == 0 {
                        arrives.push((who, publisher.data(now, frame)));
                    }
                }
            }
            Op::Void { who, arrives: come } => {
                let publisher = &mut model.publishers[who];
                if !publisher.refused.is_empty() {
                    let frame = publisher.refused.remove(0);
                    arrives.extend(come.then(|| (who, publisher.void(now, frame))));
                }
            }
            Op::Tail { who } => arrives.push((who, model.publishers[who].tail(now))),
            Op::Presence { who } => model.publishers[who].start_known = true,
            Op::Live if model.live.is_none() => {
                model.live = Some(now);
                for publisher in &mut model.publishers {
                    publisher.high_at_live = publisher.high;
                }
            }
            Op::Live => {}
            Op::Wait(ms) => model.now += ms,
        }
        Self { arrives, ..model }
    }
}

struct Receiver {
    filter: ReceiveFilter,
    began: Instant,
    reported: [BTreeSet<u64>; PUBLISHERS],
}

fn node(who: usize) -> NodeId {
    NodeId::numbered(who as u64)
}

impl StateMachineTest for Receiver {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self {
            filter: ReceiveFilter::new(Duration::from_millis(HOLD), 4_096),
            began: Instant::now(),
            reported: Default::default(),
        }
    }

    fn apply(mut receiver: Self, model: &Model, op: Op) -> Self {
        let Self { filter, began, .. } = &mut receiver;
        let at = |ms| *began + Duration::from_millis(ms);
        let now = at(model.now);
        for &(who, arrives) in &model.arrives {
            let publisher = &model.publishers[who];
            let start = publisher.started.filter(|_| publisher.start_known).map(at);
            match arrives {
                Arrives::Data { seq, count, seen } => {
                    assert_eq!(filter.on_data(now, node(who), seq, count, start), seen);
                }
                Arrives::Void { seq, count } => filter.on_void(now, node(who), seq, count, start),
                Arrives::Tail { next } => filter.on_tail(now, node(who), next, start),
            }
        }
        match op {
            Op::Live => filter.live(now),
            Op::Wait(_) => receiver.poll(model),
            _ => {}
        }
        receiver
    }

    /// In the end everybody tells when it started and where it stands.
    fn teardown(mut receiver: Self, mut model: Model) {
        let tells = |who| [Op::Presence { who }, Op::Tail { who }];
        let ends = (0..PUBLISHERS).flat_map(tells);
        for op in ends.chain([Op::Wait(HOLD)]) {
            model = Model::apply(model, &op);
            receiver = Self::apply(receiver, &model, op);
        }
        for (publisher, reported) in model.publishers.iter().zip(&receiver.reported) {
            for n in 1..publisher.next {
                let accounted = publisher.delivered.contains(&n)
                    || reported.contains(&n)
                    || publisher.voided.contains(&n)
                    || publisher.excused(n, model.live);
                assert!(accounted, "{n} vanished");
            }
        }
    }
}

impl Receiver {
    fn poll(&mut self, model: &Model) {
        let now = self.began + Duration::from_millis(model.now);
        for gap in self.filter.poll(now) {
            let who = (0..PUBLISHERS)
                .find(|who| node(*who) == gap.origin)
                .unwrap();
            let publisher = &model.publishers[who];
            for n in gap.from..=gap.to {
                assert!(self.reported[who].insert(n), "{n} reported twice");
                assert!(!publisher.delivered.contains(&n), "{n} was delivered");
                assert!(!publisher.voided.contains(&n), "{n} was void before");
                let excused = publisher.excused(n, model.live);
                assert!(!excused, "{n} is not our business");
                let missed = publisher.missed_at[&n];
                assert!(model.now >= missed + HOLD, "{n} too early");
            }
        }
        let deadline = self.filter.next_deadline();
        assert!(deadline.is_none_or(|at| at > now), "polled in vain");
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_number_is_delivered_once_or_reported_once_or_excused(sequential 1..80 => Receiver);
}

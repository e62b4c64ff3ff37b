//! Random histories of three publishers on a lossy, duplicating, first-in-first-out lane, judged by a ledger.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

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
    Wait(u64),
}

const PUBLISHERS: usize = 3;

fn op() -> impl Strategy<Value = Op> {
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
}

/// One publisher, and what became of its numbers at the receiver.
struct Publisher {
    node: NodeId,
    started: Option<Instant>,
    start_known: bool,
    next: u64,
    frames: Vec<(u64, u32)>,
    refused: Vec<(u64, u32)>,
    first_evidence: Option<u64>,
    high: u64,
    high_at_live: u64,
    delivered: Vec<u64>,
    reported: BTreeSet<u64>,
    voided: BTreeSet<u64>,
    /// When a number was first known to be missing.
    missed_at: BTreeMap<u64, Instant>,
    start_judged: bool,
}

impl Publisher {
    fn new(n: usize) -> Self {
        Self {
            node: NodeId::numbered(n as u64),
            started: None,
            start_known: false,
            next: 1,
            frames: Vec::new(),
            refused: Vec::new(),
            first_evidence: None,
            high: 0,
            high_at_live: u64::MAX,
            delivered: Vec::new(),
            reported: BTreeSet::new(),
            voided: BTreeSet::new(),
            missed_at: BTreeMap::new(),
            start_judged: false,
        }
    }

    fn start(&self) -> Option<Instant> {
        self.started.filter(|_| self.start_known)
    }

    /// Something arrived that shows all numbers up to `last` to be used, `first..=last` being accounted for.
    fn evidence(&mut self, now: Instant, first: u64, last: u64) {
        if self.first_evidence.is_none() {
            self.first_evidence = Some(first);
            self.high = first - 1;
        }
        if self.start_known && !self.start_judged {
            self.start_judged = true;
            let unseen = 1..self.first_evidence.unwrap();
            self.missed_at.extend(unseen.map(|n| (n, now)));
        }
        let jumped = self.high + 1..first;
        self.missed_at.extend(jumped.map(|n| (n, now)));
        self.high = self.high.max(last);
    }

    /// Whether the receiver owes nothing for the number.
    fn excused(&self, n: u64, live: Option<Instant>) -> bool {
        let young = |live| self.started.unwrap() >= live;
        n <= self.high_at_live || n < self.first_evidence.unwrap() && !live.is_some_and(young)
    }
}

struct World {
    filter: ReceiveFilter,
    now: Instant,
    live: Option<Instant>,
    publishers: [Publisher; PUBLISHERS],
}

impl World {
    fn new() -> Self {
        Self {
            filter: filter(),
            now: Instant::now(),
            live: None,
            publishers: std::array::from_fn(Publisher::new),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Send { who, count, fate } => {
                let publisher = &mut self.publishers[who];
                publisher.started.get_or_insert(self.now);
                let frame = (publisher.next, count);
                publisher.next += u64::from(count);
                if fate == Fate::Refused {
                    publisher.refused.push(frame);
                } else {
                    publisher.frames.push(frame);
                }
                if fate == Fate::Arrives {
                    self.data(who, frame);
                }
            }
            Op::Resend { who, frames, lost } => {
                let sent = &self.publishers[who].frames;
                let again = sent[sent.len().saturating_sub(frames)..].to_vec();
                for (i, frame) in again.into_iter().enumerate() {
                    if lost >> i & 1 == 0 {
                        self.data(who, frame);
                    }
                }
            }
            Op::Void { who, arrives } => {
                let refused = &mut self.publishers[who].refused;
                if !refused.is_empty() {
                    let frame = refused.remove(0);
                    if arrives {
                        self.void(who, frame);
                    }
                }
            }
            Op::Tail { who } => self.tail(who),
            Op::Presence { who } => self.publishers[who].start_known = true,
            Op::Live => self.live(),
            Op::Wait(time) => self.wait(ms(time)),
        }
    }

    fn data(&mut self, who: usize, (seq, count): (u64, u32)) {
        let publisher = &mut self.publishers[who];
        let last = seq + u64::from(count) - 1;
        let seen = publisher.first_evidence.map_or(0, |_| publisher.high);
        publisher.evidence(self.now, seq, last);
        let start = publisher.start();
        let skip = self
            .filter
            .on_data(self.now, publisher.node, seq, count, start);
        let delivered: Vec<u64> = (seq + u64::from(skip)..=last).collect();
        let unseen: Vec<u64> = (seq..=last).filter(|&n| n > seen).collect();
        assert_eq!(delivered, unseen, "all that is new and nothing else");
        publisher.delivered.extend(delivered);
    }

    fn void(&mut self, who: usize, (seq, count): (u64, u32)) {
        let publisher = &mut self.publishers[who];
        let last = seq + u64::from(count) - 1;
        publisher.evidence(self.now, seq, last);
        let start = publisher.start();
        self.filter
            .on_void(self.now, publisher.node, seq, count, start);
        // As long as the start is unknown, the numbers before the first frame are out of reach.
        let from = match publisher.start_judged {
            true => seq,
            false => seq.max(publisher.first_evidence.unwrap()),
        };
        publisher.voided.extend(from..=last);
    }

    fn tail(&mut self, who: usize) {
        let publisher = &mut self.publishers[who];
        publisher.started.get_or_insert(self.now);
        publisher.evidence(self.now, publisher.next, publisher.next - 1);
        let start = publisher.start();
        self.filter
            .on_tail(self.now, publisher.node, publisher.next, start);
    }

    fn live(&mut self) {
        self.filter.live(self.now);
        if self.live.is_none() {
            self.live = Some(self.now);
            for publisher in &mut self.publishers {
                publisher.high_at_live = publisher.high;
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for gap in self.filter.poll(self.now) {
            let publisher = self.publishers.iter_mut().find(|p| p.node == gap.origin);
            let publisher = publisher.unwrap();
            for n in gap.from..=gap.to {
                assert!(publisher.reported.insert(n), "{n} reported twice");
                assert!(!publisher.delivered.contains(&n), "{n} was delivered");
                assert!(!publisher.voided.contains(&n), "{n} was void before");
                assert!(!publisher.excused(n, self.live), "{n} is not our business");
                assert!(self.now >= publisher.missed_at[&n] + HOLD, "{n} too early");
            }
        }
        let deadline = self.filter.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "polled in vain");
    }

    fn judge(&self) {
        for publisher in &self.publishers {
            assert!(publisher.delivered.is_sorted_by(|a, b| a < b), "not rising");
            for n in 1..publisher.next {
                let accounted = publisher.delivered.contains(&n)
                    || publisher.reported.contains(&n)
                    || publisher.voided.contains(&n)
                    || publisher.excused(n, self.live);
                assert!(accounted, "{n} of {} vanished", publisher.node);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_number_is_delivered_once_or_reported_once_or_excused(ops in vec(op(), 0..80)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        for who in 0..PUBLISHERS {
            world.publishers[who].start_known = true;
            world.tail(who);
        }
        world.wait(HOLD);
        world.judge();
    }
}

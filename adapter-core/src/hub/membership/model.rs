//! Random histories of a small cluster, judged by a model: a node is in from its presence until its goodbye, or until it
//! was silent for too long while we heard.

use std::collections::BTreeSet;

use proptest::{collection::btree_set, prelude::*};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;
use crate::wire::Namespaces;

const CONFIG: MembershipConfig = MembershipConfig {
    heartbeat: Duration::from_secs(2),
    dead_after: Duration::from_secs(7),
    tombstone: Duration::from_secs(20),
    max_members: 3,
    versions: Versions { min: 2, max: 3 },
};
const ME: u64 = 0;
/// Reads older versions than the others.
const OLD: u64 = 3;
/// Has no version in common with us.
const STRANGER: u64 = 5;
const LANES: u64 = 3;

/// Milliseconds since the beginning.
type Ms = u64;
const DEAD_AFTER: Ms = CONFIG.dead_after.as_millis() as Ms;
const TOMBSTONE: Ms = CONFIG.tombstone.as_millis() as Ms;
/// After this, every verdict that lacked only the proof that we hear has been passed.
const SETTLED: Ms = PROOF.as_millis() as Ms;

#[derive(Debug, Clone)]
enum Op {
    Presence {
        n: u64,
        lanes: BTreeSet<u64>,
    },
    Frame(u64),
    Bye(u64),
    Link(bool),
    Wait {
        ms: Ms,
        hears: bool,
    },
    /// The process stands still, for longer than any verdict takes.
    Stall,
}
const STALL: Ms = DEAD_AFTER + CONFIG.heartbeat.as_millis() as Ms + 1;

#[derive(Debug, Clone)]
struct Alive {
    seen: Ms,
    lanes: BTreeSet<u64>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    now: Ms,
    link_up: bool,
    alive: BTreeMap<u64, Alive>,
    /// When a node said goodbye last, and when one that is not let in was last heard.
    ended: BTreeMap<u64, Ms>,
    kept_out: BTreeMap<u64, Ms>,
    /// What the last step has to report.
    changes: Vec<Change>,
}

impl Model {
    fn on_presence(&mut self, n: u64, lanes: &BTreeSet<u64>) -> Option<Change> {
        let (now, node) = (self.now, NodeId::numbered(n));
        let ended = self.ended.get(&n).is_some_and(|at| now - at < TOMBSTONE);
        if n == ME || ended {
            return None;
        }
        let is_new = !self.alive.contains_key(&n);
        let refused = is_new && self.alive.len() == CONFIG.max_members;
        if n == STRANGER || refused {
            let last = self.kept_out.insert(n, now);
            let told = last.is_some_and(|at| now - at < DEAD_AFTER);
            return (!told).then_some(match n {
                STRANGER => Change::Incompatible(node, versions(n)),
                _ => Change::Refused(node),
            });
        }
        let lanes = lanes.clone();
        self.alive.insert(n, Alive { seen: now, lanes });
        is_new.then_some(Change::Joined(node))
    }

    fn everybody_speaks(&mut self) {
        let now = self.now;
        self.alive.values_mut().for_each(|alive| alive.seen = now);
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        let lanes = btree_set(0..LANES, 0..LANES as usize);
        let wait = (SETTLED..4_000, prop::bool::weighted(0.8));
        prop_oneof![
            6 => (ME..=STRANGER, lanes).prop_map(|(n, lanes)| Op::Presence { n, lanes }),
            3 => (ME..=STRANGER).prop_map(Op::Frame),
            1 => (ME..=OLD).prop_map(Op::Bye),
            2 => prop::bool::weighted(0.8).prop_map(Op::Link),
            6 => wait.prop_map(|(ms, hears)| Op::Wait { ms, hears }),
            1 => Just(Op::Stall),
        ]
        .boxed()
    }

    fn apply(mut model: Self, op: &Op) -> Self {
        let now = model.now;
        let changes = match op {
            Op::Presence { n, lanes } => Vec::from_iter(model.on_presence(*n, lanes)),
            Op::Frame(n) => {
                model.alive.entry(*n).and_modify(|alive| alive.seen = now);
                Vec::new()
            }
            Op::Bye(ME) => Vec::new(),
            Op::Bye(n) => {
                model.ended.insert(*n, now);
                let left = model.alive.remove(n);
                let change = Change::Left(NodeId::numbered(*n), LeaveReason::Bye);
                Vec::from_iter(left.map(|_| change))
            }
            Op::Link(up) => {
                model.link_up = *up;
                if *up {
                    model.everybody_speaks();
                }
                Vec::new()
            }
            Op::Wait { ms, hears } => {
                model.now += ms;
                let (now, hears) = (model.now, *hears && model.link_up);
                let silent = |alive: &Alive| hears && now - alive.seen >= DEAD_AFTER;
                let dead = model.alive.extract_if(.., |_, alive| silent(alive));
                dead.map(|(n, _)| Change::Left(NodeId::numbered(n), LeaveReason::Dead))
                    .collect()
            }
            Op::Stall => {
                model.now += STALL;
                if model.link_up {
                    model.everybody_speaks();
                }
                Vec::new()
            }
        };
        Self { changes, ..model }
    }
}

const fn versions(n: u64) -> Versions {
    match n {
        OLD => Versions { min: 1, max: 2 },
        STRANGER => Versions { min: 4, max: 5 },
        _ => Versions { min: 2, max: 3 },
    }
}

struct Cluster {
    membership: Membership,
    began: Instant,
    now: Instant,
    /// Until when we have certainly heard everything.
    heard: Instant,
    /// Versions of lists of lanes.
    told: u32,
}

impl Cluster {
    fn at(&self, ms: Ms) -> Instant {
        self.began + Duration::from_millis(ms)
    }

    fn wait(&mut self, until: Instant, hears: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(at) = self.membership.next_deadline().filter(|at| *at <= until) {
            if hears {
                self.heard = at;
            }
            changes.extend(self.membership.tick(at, self.heard));
            let next = self.membership.next_deadline();
            assert!(next.is_none_or(|next| next > at), "it does not get on");
        }
        if hears {
            self.heard = until;
        }
        changes.sort_unstable_by_key(|change| match change {
            Change::Left(node, _) => *node,
            other => panic!("{other:?}"),
        });
        changes
    }
}

impl StateMachineTest for Cluster {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let now = Instant::now();
        Self {
            membership: Membership::new(NodeId::numbered(ME), CONFIG),
            began: now,
            now,
            heard: now,
            told: 0,
        }
    }

    fn apply(mut cluster: Self, model: &Model, op: Op) -> Self {
        let membership = &mut cluster.membership;
        let now = cluster.now;
        cluster.now = cluster.began + Duration::from_millis(model.now);
        let changes = match op {
            Op::Presence { n, lanes } => {
                cluster.told += 1;
                let presence = Presence {
                    age: Duration::ZERO,
                    min_version: versions(n).min,
                    max_version: versions(n).max,
                    hello: false,
                    live: true,
                    namespaces: Namespaces::Full {
                        version: cluster.told,
                        lanes: lanes.into_iter().map(LaneId).collect(),
                    },
                };
                membership.on_presence(now, NodeId::numbered(n), presence)
            }
            Op::Frame(n) => {
                membership.on_frame(now, NodeId::numbered(n));
                Vec::new()
            }
            Op::Bye(n) => membership.on_bye(now, NodeId::numbered(n)),
            Op::Link(up) => {
                membership.set_link(now, up);
                Vec::new()
            }
            Op::Wait { hears, .. } => cluster.wait(cluster.now, hears),
            Op::Stall => {
                cluster.heard = cluster.now;
                membership.tick(cluster.now, cluster.now)
            }
        };
        assert_eq!(changes, model.changes);
        cluster
    }

    fn check_invariants(cluster: &Self, model: &Model) {
        let membership = &cluster.membership;
        let seen = membership.members().map(|(&node, it)| (node, it.last_seen));
        let alive = model.alive.iter();
        let alive = alive.map(|(&n, it)| (NodeId::numbered(n), cluster.at(it.seen)));
        assert_eq!(seen.collect::<Vec<_>>(), alive.collect::<Vec<_>>());
        for lane in 0..LANES {
            let have = model
                .alive
                .iter()
                .filter(|(_, it)| it.lanes.contains(&lane));
            let have: Vec<NodeId> = have.map(|(&n, _)| NodeId::numbered(n)).collect();
            assert_eq!(membership.expected(LaneId(lane)), have);
        }
        let version = if model.alive.contains_key(&OLD) { 2 } else { 3 };
        assert_eq!(membership.emit_version(), version);
        let deadline = membership.next_deadline();
        if !model.link_up {
            assert_eq!(deadline, None, "a verdict while the link is down");
        } else if let Some(silent) = model.alive.values().map(|it| it.seen).min() {
            let due = cluster.at(silent) + CONFIG.dead_after;
            let latest = due.max(cluster.now + PROOF);
            assert!(
                deadline.is_some_and(|at| at <= latest),
                "it sleeps too long"
            );
        }
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn members_are_those_heard_lately(sequential 1..80 => Cluster);
}

//! Single rules of membership; `model` judges them all together on random histories.

use super::*;
use crate::wire::Namespaces;

const CONFIG: MembershipConfig = MembershipConfig {
    heartbeat: Duration::from_secs(2),
    dead_after: Duration::from_secs(7),
    tombstone: Duration::from_secs(600),
    max_members: 8,
    versions: Versions { min: 2, max: 3 },
};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn node(n: u64) -> NodeId {
    NodeId::numbered(n)
}

fn is_member(cluster: &Membership, node: NodeId) -> bool {
    cluster.members().any(|(&member, _)| member == node)
}

fn presence() -> Presence {
    Presence {
        age: secs(5),
        min_version: 2,
        max_version: 3,
        hello: false,
        live: true,
        namespaces: Namespaces::Full {
            version: 1,
            lanes: vec![LaneId(1)],
        },
    }
}

fn telling(namespaces: Namespaces) -> Presence {
    Presence {
        namespaces,
        ..presence()
    }
}

fn speaking(min_version: u8, max_version: u8) -> Presence {
    Presence {
        min_version,
        max_version,
        ..presence()
    }
}

/// A cluster seen by node 0, whose link is up.
fn cluster(now: Instant) -> Membership {
    let mut cluster = Membership::new(node(0), CONFIG);
    cluster.set_link(now, true);
    cluster
}

/// Calls `tick` at every deadline up to `end`.
fn run_until(cluster: &mut Membership, end: Instant) -> Vec<(Instant, Change)> {
    let mut changes = Vec::new();
    while let Some(at) = cluster.next_deadline().filter(|&at| at <= end) {
        changes.extend(cluster.tick(at, at).into_iter().map(|change| (at, change)));
        assert!(cluster.next_deadline().is_none_or(|next| next > at));
    }
    changes
}

fn started(cluster: &Membership, node: NodeId) -> Option<Instant> {
    cluster.members.get(&node).map(|member| member.started)
}

#[test]
fn silence_counts_only_as_far_as_we_heard() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    let frozen = now + secs(3);
    for second in 7..100 {
        let at = now + secs(second);
        while let Some(due) = cluster.next_deadline().filter(|due| *due <= at) {
            assert_eq!(cluster.tick(due, frozen), []);
        }
        assert!(cluster.take_wants_proof());
        assert!(is_member(&cluster, node(1)));
    }
    let due = cluster.next_deadline().unwrap();
    let dead = Change::Left(node(1), LeaveReason::Dead);
    assert_eq!(cluster.tick(due, now + secs(7)), [dead]);
    assert!(!cluster.take_wants_proof());
}

#[test]
fn a_node_joins_by_its_presence_only_and_this_node_is_no_member() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_frame(now, node(1));
    assert_eq!(cluster.on_presence(now, node(0), presence()), []);
    assert_eq!(cluster.on_bye(now, node(0)), []);
    assert_eq!(cluster.members().count(), 0);
    let joined = cluster.on_presence(now, node(1), presence());
    assert_eq!(joined, [Change::Joined(node(1))]);
    assert_eq!(cluster.on_presence(now, node(1), presence()), []);
    assert!(is_member(&cluster, node(1)));
}

#[test]
fn silence_kills_in_time_and_any_frame_is_life() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    cluster.on_presence(now, node(2), presence());
    cluster.on_frame(now + ms(6_999), node(2));
    let died = |n, at| (now + at, Change::Left(node(n), LeaveReason::Dead));
    let changes = run_until(&mut cluster, now + secs(60));
    assert_eq!(changes, [died(1, secs(7)), died(2, ms(13_999))]);
    // A node that was only frozen comes back under its old id.
    let back = cluster.on_presence(now + secs(60), node(1), presence());
    assert_eq!(back, [Change::Joined(node(1))]);
}

#[test]
fn a_goodbye_is_immediate_and_a_late_presence_does_not_undo_it() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    let left = cluster.on_bye(now, node(1));
    assert_eq!(left, [Change::Left(node(1), LeaveReason::Bye)]);
    assert_eq!(cluster.on_bye(now, node(1)), []);
    assert_eq!(cluster.on_bye(now, node(2)), [], "it overtook its presence");
    for n in [1, 2] {
        let late = now + CONFIG.tombstone - ms(1);
        assert_eq!(cluster.on_presence(late, node(n), presence()), []);
    }
    assert!(!is_member(&cluster, node(1)));
    cluster.on_presence(now + CONFIG.tombstone, node(1), presence());
    assert!(is_member(&cluster, node(1)));
}

#[test]
fn nobody_dies_while_our_own_link_is_down() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    cluster.set_link(now + secs(1), false);
    assert_eq!(cluster.next_deadline(), None);
    assert_eq!(cluster.tick(now + secs(8), now + secs(8)), []);
    cluster.set_link(now + secs(100), true);
    assert_eq!(cluster.next_deadline(), Some(now + secs(107)));
    assert_eq!(cluster.tick(now + secs(107), now + secs(107)).len(), 1);
}

#[test]
fn a_process_that_was_stopped_does_not_blame_the_others() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    assert_eq!(cluster.tick(now + ms(9_001), now + ms(9_001)), []);
    assert_eq!(cluster.next_deadline(), Some(now + ms(16_001)));
    assert_eq!(cluster.tick(now + ms(18_001), now + ms(18_001)).len(), 1);
}

#[test]
fn the_earliest_estimate_of_a_start_is_kept() {
    let now = Instant::now() + secs(10);
    let mut cluster = cluster(now);
    let aged = |age| Presence { age, ..presence() };
    cluster.on_presence(now, node(1), aged(secs(3)));
    assert_eq!(started(&cluster, node(1)), Some(now - secs(3)));
    cluster.on_presence(now + secs(2), node(1), aged(ms(5_500)));
    assert_eq!(started(&cluster, node(1)), Some(now - ms(3_500)));
    cluster.on_presence(now + secs(4), node(1), aged(secs(6)));
    assert_eq!(started(&cluster, node(1)), Some(now - ms(3_500)));
    // Older than our clock can say: at least not younger than what we know ourselves.
    cluster.on_presence(now + secs(5), node(2), aged(Duration::MAX));
    assert_eq!(started(&cluster, node(2)), Some(now));
    assert_eq!(started(&cluster, node(3)), None);
}

#[test]
fn an_incompatible_node_is_told_once_and_is_no_member() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    let told = Change::Incompatible(node(1), Versions { min: 4, max: 5 });
    assert_eq!(cluster.on_presence(now, node(1), speaking(4, 5)), [told]);
    for beat in 1..10 {
        let now = now + secs(2) * beat;
        assert_eq!(cluster.on_presence(now, node(1), speaking(4, 5)), []);
    }
    assert_eq!(cluster.members().count(), 0);
    let back = now + secs(18) + CONFIG.dead_after;
    assert_eq!(cluster.on_presence(back, node(1), speaking(4, 5)), [told]);
}

#[test]
fn the_version_written_is_the_newest_that_everybody_reads() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    assert_eq!(cluster.emit_version(), 3);
    cluster.on_presence(now, node(1), speaking(3, 4));
    assert_eq!(cluster.emit_version(), 3);
    cluster.on_presence(now, node(2), speaking(1, 2));
    assert_eq!(cluster.emit_version(), 2);
    cluster.on_presence(now, node(3), speaking(0, 1));
    assert_eq!(cluster.emit_version(), 2, "node 3 reads nothing of ours");
    cluster.on_bye(now, node(2));
    assert_eq!(cluster.emit_version(), 3);
}

#[test]
fn a_member_whose_lanes_are_unknown_is_expected_everywhere_and_asked_at_times() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    let (has, has_not) = (LaneId(1), LaneId(2));
    let unknown = Change::NamespacesUnknown(node(1));
    let version = |n| telling(Namespaces::Version(n));
    cluster.on_presence(now, node(2), presence());
    let changes = cluster.on_presence(now, node(1), version(1));
    assert_eq!(changes, [Change::Joined(node(1)), unknown]);
    assert_eq!(cluster.expected(has_not), [node(1)]);
    assert_eq!(cluster.expected(has), [node(1), node(2)]);
    let later = now + ms(999);
    assert_eq!(cluster.on_presence(later, node(1), version(1)), []);
    let later = now + ms(1_000);
    assert_eq!(cluster.on_presence(later, node(1), version(1)), [unknown]);
    assert_eq!(cluster.on_presence(later, node(1), presence()), []);
    assert_eq!(cluster.expected(has_not), []);
    let lane = has_not;
    let added = telling(Namespaces::Added { version: 2, lane });
    assert_eq!(cluster.on_presence(later, node(1), added), []);
    assert_eq!(cluster.expected(has_not), [node(1)]);
    let later = now + ms(2_000);
    assert_eq!(cluster.on_presence(later, node(1), version(4)), [unknown]);
}

#[test]
fn nodes_and_marks_are_bounded_and_members_stay() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    for n in 1..=20 {
        let change = match n {
            1..=8 => Change::Joined(node(n)),
            _ => Change::Refused(node(n)),
        };
        assert_eq!(cluster.on_presence(now, node(n), presence()), [change]);
        assert_eq!(cluster.on_presence(now, node(n), presence()), []);
        cluster.on_presence(now + ms(n), node(100 + n), speaking(9, 9));
        cluster.on_bye(now + ms(n), node(200 + n));
    }
    let members: Vec<NodeId> = cluster.members().map(|(&node, _)| node).collect();
    assert_eq!(members, (1..=8).map(node).collect::<Vec<_>>());
    assert_eq!(cluster.strangers.marked.len(), 8);
    assert_eq!(cluster.ended.marked.len(), 8);
    let ended: Vec<NodeId> = cluster.ended.marked.keys().copied().collect();
    assert_eq!(
        ended,
        (213..=220).map(node).collect::<Vec<_>>(),
        "the latest"
    );
    cluster.on_bye(now + CONFIG.tombstone + ms(20), node(300));
    assert_eq!(cluster.ended.marked.len(), 1, "expired marks are swept");
}

#[test]
fn a_second_presence_puts_the_verdict_off() {
    let now = Instant::now();
    let mut cluster = cluster(now);
    cluster.on_presence(now, node(1), presence());
    cluster.on_presence(now + ms(1), node(1), presence());
    for wait in [305, 3_810] {
        assert_eq!(run_until(&mut cluster, now + ms(wait)), []);
    }
    let died = (now + ms(7_001), Change::Left(node(1), LeaveReason::Dead));
    assert_eq!(run_until(&mut cluster, now + ms(7_001)), [died]);
}

#[test]
fn the_start_of_a_member_is_bounded_by_when_we_asked_not_by_when_the_answer_came() {
    let now = Instant::now() + secs(10);
    let mut cluster = cluster(now);
    let aged = |age| Presence { age, ..presence() };
    cluster.on_presence(now + secs(30), node(1), aged(secs(2)));
    assert_eq!(cluster.started_after(node(1)), None);
    cluster.on_answer(node(1), secs(2), now);
    assert_eq!(cluster.started_after(node(1)), Some(now - secs(2)));
    cluster.on_answer(node(1), secs(5), now + secs(60));
    assert_eq!(cluster.started_after(node(1)), Some(now - secs(2)));
    cluster.on_answer(node(2), secs(2), now);
    assert_eq!(cluster.started_after(node(2)), None);
}

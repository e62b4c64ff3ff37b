//! The decisions of a node, without tasks and clocks:
//! `cargo run --release -p bench --example state_machines -- --bench`.
//!
//! They are private to the core; their files need nothing of it but its public types, and are compiled into this program.
//! An example and not a bench, since cargo compiles benches with their tests, which need more of the core.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "what criterion's macros make"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "not all of each file is measured"
)]

#[path = "../../adapter-core/src/hub"]
mod hub {
    pub(crate) mod lanes;
    pub(crate) mod membership;
    pub(crate) mod receive;
    pub(crate) mod requests;
}

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hub::{
    membership::{Membership, MembershipConfig, Versions},
    receive::ReceiveFilter,
    requests::RequestTracker,
};
use socketioxide_adapter::{
    LeaveReason, NodeId, wire,
    wire::{LaneId, Namespaces, Presence},
};

const NODES: usize = 1_000;

fn nodes(count: usize) -> Vec<NodeId> {
    (0..count).map(|_| NodeId::random()).collect()
}

fn presence(version: u32) -> Presence {
    Presence {
        age: Duration::from_secs(60),
        min_version: 1,
        max_version: 1,
        hello: false,
        live: true,
        namespaces: Namespaces::Version(version),
    }
}

fn joined(nodes: &[NodeId], now: Instant) -> Membership {
    let config = MembershipConfig {
        heartbeat: Duration::from_secs(2),
        dead_after: Duration::from_secs(7),
        tombstone: Duration::from_secs(600),
        max_members: 4_096,
        versions: Versions { min: 1, max: 1 },
    };
    let mut membership = Membership::new(NodeId::random(), config);
    membership.set_link(now, true);
    for node in nodes {
        let mut hello = presence(1);
        hello.namespaces = Namespaces::Full {
            version: 1,
            lanes: vec![LaneId(1)],
        };
        membership.on_presence(now, *node, hello);
    }
    membership
}

fn receive_filter(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive filter");
    for count in [1, NODES] {
        let origins = nodes(count);
        let now = Instant::now();
        let mut filter = ReceiveFilter::new(Duration::from_millis(250), 4_096);
        filter.live(now);
        let (mut next, mut turn) = (vec![1; count], 0);
        group.bench_function(format!("a frame in order, {count} origins"), |b| {
            b.iter(|| {
                turn = (turn + 1) % count;
                let seq = next[turn];
                next[turn] += 10;
                black_box(filter.on_data(now, origins[turn], seq, 10, None))
            });
        });
    }
    group.finish();
}

fn members(c: &mut Criterion) {
    let now = Instant::now();
    let known = nodes(NODES);
    let mut group = c.benchmark_group("membership of 1,000 nodes");
    let mut membership = joined(&known, now);
    let mut turn = 0;
    group.bench_function("a heartbeat", |b| {
        b.iter(|| {
            turn = (turn + 1) % NODES;
            black_box(membership.on_presence(now, known[turn], presence(1)))
        });
    });
    group.bench_function("a frame", |b| {
        b.iter(|| {
            turn = (turn + 1) % NODES;
            membership.on_frame(now, known[turn]);
        });
    });
    group.bench_function("the next deadline", |b| {
        b.iter(|| black_box(membership.next_deadline()))
    });
    group.bench_function("who must answer", |b| {
        b.iter(|| black_box(membership.expected(LaneId(1))))
    });
    group.bench_function("all join", |b| b.iter(|| joined(&known, now)));
    group.finish();
}

fn request_bookkeeping(c: &mut Criterion) {
    let mut group = c.benchmark_group("a request");
    for count in [7, NODES] {
        let expected = nodes(count);
        group.bench_function(format!("answered by {count} nodes"), |b| {
            b.iter_batched(
                || expected.clone(),
                |expected| {
                    let mut tracker = RequestTracker::new(expected.clone());
                    for node in expected {
                        tracker.on_answer(node, ());
                    }
                    tracker.finish()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, receive_filter, members, request_bookkeeping);
criterion_main!(benches);

//! Whole clusters on the in-memory bus under paused time, everything drawn from a seed: emits, joins and leaves, and every
//! fault the bus knows. After a quiet end each pair of nodes is judged to the message.
//!
//! `SIMULATION_SEEDS=100000 cargo test -p socketioxide-adapter-core --test simulation --release` runs more of them,
//! `SIMULATION_FIRST=4711 SIMULATION_SEEDS=1` one again. The same seed is the same run, to the message.

#![allow(clippy::unwrap_used, clippy::panic)]

mod judge;
mod member;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use world::World;

/// Clusters in a run without a flag, and the time that they must come to in all.
const SEEDS: u64 = 192;
const HOURS: u64 = 1_000;

/// Every seed that ever found a fault: each run begins with them.
const FOUND: &[u64] = &[];

/// What a run was like, to compare it with another of the same seed.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    simulated: Duration,
    history: Vec<String>,
    /// What every socket received, and what every node reported lost.
    record: Vec<String>,
}

fn run(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    // What the adapter draws by itself comes from here.
    fastrand::seed(seed);
    runtime.block_on(async {
        let start = Instant::now();
        let mut world = World::start(seed).await;
        for _ in 0..world.steps() {
            world.step().await;
        }
        world.heal().await;
        if let Err(what) = world.judge().await {
            panic!("seed {seed}: {what}\n{}", world.history.join("\n"));
        }
        let (history, record) = (world.history.clone(), world.record());
        world.end().await;
        sleep(Duration::from_secs(1)).await;
        let left = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(left, 0, "seed {seed}: tasks left");
        Run {
            simulated: start.elapsed(),
            history,
            record,
        }
    })
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn no_loss_goes_unreported_whatever_fails() {
    let (first, count) = (variable("SIMULATION_FIRST"), variable("SIMULATION_SEEDS"));
    let first_seed = first.unwrap_or(0);
    let fresh = first_seed..first_seed + count.unwrap_or(SEEDS);
    let known = FOUND.iter().copied().filter(|_| first.is_none());
    let seeds: Vec<u64> = known.chain(fresh).collect();
    let next = AtomicU64::new(0);
    // A thread takes the next seed when it is done with one: they differ a thousandfold in their work.
    let work = || {
        let mut simulated = Duration::ZERO;
        while let Some(&seed) = seeds.get(next.fetch_add(1, Relaxed) as usize) {
            simulated += run(seed).simulated;
        }
        simulated
    };
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let simulated: Duration = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| worker.join());
        ends.map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    });
    let hours = simulated.as_secs() / 3600;
    println!("{} clusters, {hours} simulated hours", seeds.len());
    assert!(
        count.is_some() || hours >= HOURS,
        "{hours} simulated hours, not {HOURS}"
    );
}

#[test]
fn a_seed_is_the_same_run_again() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

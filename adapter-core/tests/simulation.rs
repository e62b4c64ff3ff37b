//! Whole clusters on the in-memory bus under paused time, everything drawn from a seed: emits, joins and leaves, and every
//! fault the bus knows. After a quiet end each pair of nodes is judged to the message.
//!
//! `SIMULATION_SEEDS=100000 cargo test -p socketioxide-adapter-core --test simulation --release` runs more of them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, NodeId,
    memory::{Faults, MemoryBus, MemoryTransport},
    transport::LinkState,
};
use socketioxide_core::{Sid, adapter::CoreAdapter};
use support::{Ack, Adapter, Node, Sockets, event, everyone};
use tokio::time::{Instant, sleep};

/// What a node was told, until the end.
#[derive(Debug, Default)]
struct Told {
    /// Lost messages by sender.
    gaps: BTreeMap<NodeId, u64>,
    unsent: u64,
}

struct Sim {
    name: usize,
    node: Node,
    transport: Arc<MemoryTransport>,
    adapter: Arc<Adapter>,
    sockets: Arc<Sockets>,
    sid: Sid,
    told: Arc<Mutex<Told>>,
    /// Messages of the others when it began to join, and when it had joined, by name.
    before_join: Vec<u64>,
    after_join: Vec<u64>,
    cut: bool,
}

/// One run.
struct World {
    rng: Rng,
    bus: MemoryBus,
    nodes: Vec<Sim>,
    /// Messages tried so far and those that were accepted, by name of the sender.
    attempts: Vec<u64>,
    accepted: Vec<Vec<u64>>,
    history: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            bus: MemoryBus::new(),
            nodes: Vec::new(),
            attempts: Vec::new(),
            accepted: Vec::new(),
            history: Vec::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    async fn join(&mut self) {
        let name = self.attempts.len();
        self.note(format!("join {name}"));
        self.attempts.push(0);
        self.accepted.push(Vec::new());
        let before_join = self.attempts.clone();
        let transport = Arc::new(self.bus.connect());
        let node = Node::new(transport.clone(), ClusterConfig::default());
        let told = Arc::new(Mutex::new(Told::default()));
        let mut events = node.cluster.events();
        let ledger = told.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let mut told = ledger.lock().unwrap();
                match event {
                    ClusterEvent::Gap { origin, count, .. } => {
                        *told.gaps.entry(origin).or_default() += count;
                    }
                    ClusterEvent::Unsent { count, .. } => told.unsent += count,
                    _ => {}
                }
            }
        });
        let (adapter, sockets) = node.namespace("/").await;
        let sid = sockets.add(Ack::Never);
        self.nodes.push(Sim {
            name,
            node,
            transport,
            adapter,
            sockets,
            sid,
            told,
            before_join,
            after_join: self.attempts.clone(),
            cut: false,
        });
    }

    async fn emit(&mut self, index: usize, count: u64) {
        for _ in 0..count {
            let node = &self.nodes[index];
            self.attempts[node.name] += 1;
            let id = self.attempts[node.name];
            let message = event("/", &format!("{}:{id}", node.name));
            if node.adapter.broadcast(message, everyone()).await.is_ok() {
                self.accepted[node.name].push(id);
            }
        }
    }

    fn any(&mut self) -> usize {
        self.rng.usize(..self.nodes.len())
    }

    async fn step(&mut self) {
        match self.rng.u32(..100) {
            0..60 => {
                let (index, count) = (self.any(), self.rng.u64(1..40));
                self.note(format!("emit {count} from {}", self.nodes[index].name));
                self.emit(index, count).await;
            }
            60..70 => {
                let index = self.any();
                let node = &mut self.nodes[index];
                node.cut = !node.cut;
                if node.cut {
                    node.transport.cut();
                } else {
                    node.transport.heal();
                }
                let note = format!("cut {} {}", node.name, node.cut);
                self.note(note);
            }
            70..74 => {
                let index = self.any();
                self.nodes[index].transport.deafen();
                let note = format!("deafen {}", self.nodes[index].name);
                self.note(note);
            }
            74..80 => {
                self.note("restart the bus");
                self.bus.stop();
                self.pause(3_000).await;
                self.bus.start();
            }
            80..84 => {
                self.note("freeze the bus");
                self.bus.freeze();
                self.pause(12_000).await;
                self.bus.thaw();
            }
            84..91 => {
                let faults = Faults::new(self.rng.u64(..))
                    .with_drop(self.rng.f64() * 0.05)
                    .with_duplicate(self.rng.f64() * 0.2)
                    .with_delay(Duration::ZERO..Duration::from_millis(self.rng.u64(1..300)));
                self.note(format!("{faults:?}"));
                self.bus.set_faults(faults);
            }
            91..94 => {
                self.note("no faults");
                self.bus.set_faults(None);
            }
            94..97 if self.nodes.len() > 2 => {
                let index = self.any();
                let gone = self.nodes.swap_remove(index);
                if self.rng.bool() {
                    self.note(format!("crash {}", gone.name));
                } else {
                    self.note(format!("shutdown {}", gone.name));
                    let _ = gone.node.cluster.shutdown().await;
                }
            }
            97..99 if self.nodes.len() < 12 && self.nodes.iter().all(|n| !n.cut) => {
                // What a node owes a newcomer counts from when it hears of it: not before it hears at all.
                self.bus.set_faults(None);
                sleep(Duration::from_secs(30)).await;
                self.join().await;
            }
            _ => {
                // A quiet hour costs with the square of the nodes.
                let hours = if self.nodes.len() > 4 { 1 } else { 12 };
                let long = self.rng.u64(1..hours * 3_600_000);
                self.note(format!("quiet for {long} ms"));
                sleep(Duration::from_millis(long)).await;
            }
        }
        self.pause(1_500).await;
    }

    async fn pause(&mut self, up_to_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(..up_to_ms))).await;
    }

    /// Ends all faults, waits, and lets everybody speak once more.
    async fn heal(&mut self) {
        self.bus.set_faults(None);
        for node in &mut self.nodes {
            node.transport.heal();
            node.cut = false;
        }
        sleep(Duration::from_secs(60)).await;
        for index in 0..self.nodes.len() {
            self.emit(index, 5).await;
        }
        sleep(Duration::from_secs(10)).await;
    }

    fn judge(&self) -> Result<(), String> {
        for receiver in &self.nodes {
            let link = receiver.node.cluster.link().state();
            if link != LinkState::Up {
                return Err(format!("node {}: link is {link:?}", receiver.name));
            }
            let members: Vec<NodeId> = receiver.node.cluster.nodes().iter().map(|n| n.id).collect();
            if members.len() != self.nodes.len() - 1 {
                return Err(format!("node {}: sees {members:?}", receiver.name));
            }
            for sender in &self.nodes {
                self.judge_pair(receiver, sender)
                    .map_err(|what| format!("{} -> {}: {what}", sender.name, receiver.name))?;
            }
        }
        Ok(())
    }

    fn judge_pair(&self, receiver: &Sim, sender: &Sim) -> Result<(), String> {
        let received: Vec<u64> = receiver
            .sockets
            .received(receiver.sid)
            .iter()
            .filter_map(|text| {
                let text = text.strip_prefix("2[\"msg\",\"")?.strip_suffix("\"]")?;
                let (name, id) = text.split_once(':')?;
                (name == sender.name.to_string()).then(|| id.parse().ok())?
            })
            .collect();
        if let Some(pair) = received.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("{} came after {}", pair[1], pair[0]));
        }
        let accepted = &self.accepted[sender.name];
        let finals = &accepted[accepted.len() - 5..];
        if !received.ends_with(finals) {
            return Err(format!(
                "the last ones {finals:?} did not arrive: {received:?}"
            ));
        }
        let own = receiver.name == sender.name;
        let extra = received
            .iter()
            .find(|id| accepted.binary_search(id).is_err());
        if !own && let Some(extra) = extra {
            return Err(format!("{extra} arrived although its emit failed"));
        }
        let missing = |since: &[u64]| {
            let since = since.get(sender.name).copied().unwrap_or(0);
            let owed = accepted.iter().filter(|id| **id > since);
            owed.filter(|id| received.binary_search(id).is_err())
                .count() as u64
        };
        let at_least = missing(&receiver.after_join);
        let at_most = missing(&receiver.before_join);
        let unsent = sender.told.lock().unwrap().unsent;
        let told = receiver.told.lock().unwrap();
        let gaps = told.gaps.get(&sender.node.id()).copied().unwrap_or(0);
        if gaps + unsent < at_least || gaps > at_most {
            return Err(format!(
                "{at_least} to {at_most} are missing, {gaps} were reported lost, {unsent} unsent"
            ));
        }
        Ok(())
    }
}

/// Runs one seed; returns the simulated time.
fn run(seed: u64) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    fastrand::seed(seed);
    runtime.block_on(async {
        let start = Instant::now();
        let mut world = World::new(seed);
        let nodes = if seed.is_multiple_of(50) {
            20
        } else {
            world.rng.u64(2..5)
        };
        for _ in 0..nodes {
            world.join().await;
        }
        for _ in 0..world.rng.u32(5..60) {
            world.step().await;
        }
        world.heal().await;
        if let Err(what) = world.judge() {
            panic!("seed {seed}: {what}\n{}", world.history.join("\n"));
        }
        for node in &world.nodes {
            node.node.cluster.shutdown().await.unwrap();
        }
        drop(world);
        sleep(Duration::from_secs(1)).await;
        let left = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        assert_eq!(left, 0, "seed {seed}: tasks left");
        start.elapsed()
    })
}

#[test]
fn no_loss_goes_unreported_whatever_fails() {
    let seeds = std::env::var("SIMULATION_SEEDS").map_or(160, |n| n.parse().unwrap());
    let first = std::env::var("SIMULATION_FIRST").map_or(0, |n| n.parse().unwrap());
    let simulated: Duration = (first..first + seeds).map(run).sum();
    println!(
        "{seeds} clusters, {} simulated hours",
        simulated.as_secs() / 3600
    );
}

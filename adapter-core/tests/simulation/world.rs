//! The cluster of one seed, and what happens to it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures_util::StreamExt;
use socketioxide_adapter_core::{
    ClusterConfig, OutagePolicy, PublishMode,
    memory::{Faults, MemoryBus},
    transport::LinkState,
};
use socketioxide_core::{Sid, Uid, adapter::CoreAdapter};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    judge::{Heard, Sent, judge_pair},
    member::{Member, Told, emits},
    support::{Ack, Node, event, everyone},
};

/// Messages that each node sends after the end of all faults.
pub(crate) const FINALS: u64 = 5;
/// Longest time in which a request may end, whatever happens: its deadline and some slack.
const REQUEST: Duration = Duration::from_millis(5_100);
/// A cluster does not grow beyond so many nodes by itself.
const GROWN: usize = 12;

pub(crate) struct World {
    rng: Rng,
    config: ClusterConfig,
    asks: bool,
    bus: MemoryBus,
    members: Vec<Member>,
    /// By name, of nodes that are gone too.
    sent: Vec<Arc<Mutex<Sent>>>,
    bursts: JoinSet<()>,
    pub(crate) history: Vec<String>,
}

impl World {
    /// A cluster of 3 to 200 nodes.
    pub(crate) async fn start(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let nodes = match seed % 96 {
            0 => rng.u32(100..=200),
            32 | 64 => rng.u32(13..100),
            _ => rng.u32(3..=5),
        };
        let config = config(&mut rng);
        let asks = rng.u32(..4) == 0;
        let mut world = Self {
            asks,
            rng,
            bus: MemoryBus::new(),
            members: Vec::new(),
            sent: Vec::new(),
            bursts: JoinSet::new(),
            history: vec![format!("{:?}, {:?}", config.publish_mode, config.outage)],
            config,
        };
        for _ in 0..nodes {
            world.join().await;
        }
        world
    }

    /// How much shall happen: each message of a large cluster goes a long way.
    pub(crate) fn steps(&mut self) -> u32 {
        let most = if self.members.len() > GROWN { 12 } else { 60 };
        self.rng.u32(5..most)
    }

    fn note(&mut self, what: impl Into<String>) {
        self.history.push(what.into());
    }

    /// What everybody has sent, by name.
    fn sent_so_far(&self) -> Vec<u64> {
        let sent = self.sent.iter();
        sent.map(|sent| sent.lock().unwrap().tried).collect()
    }

    async fn join(&mut self) {
        let name = self.sent.len();
        self.note(format!("join {name}"));
        let sent = Arc::new(Mutex::new(Sent::default()));
        self.sent.push(sent.clone());
        let before_join = self.sent_so_far();
        let transport = Arc::new(self.bus.connect());
        let uid: Uid = format!("{:016x}", self.rng.u64(..)).parse().unwrap();
        let node = Node::named(uid, transport.clone(), self.config.clone());
        let told = Told::follow(node.cluster.events());
        let (adapter, sockets) = node.namespace("/").await;
        let sid = sockets.add(Ack::Now("ok"));
        let asking = if self.asks {
            let (asking, sockets) = node.namespace("/ask").await;
            sockets.add(Ack::Never);
            Some(asking)
        } else {
            None
        };
        self.members.push(Member {
            name,
            node,
            transport,
            adapter,
            asking,
            sockets,
            sid,
            sent,
            told,
            turn: Arc::default(),
            bursts: Vec::new(),
            before_join,
            after_join: self.sent_so_far(),
            cut: false,
        });
    }

    fn any(&mut self) -> usize {
        self.rng.usize(..self.members.len())
    }

    pub(crate) async fn step(&mut self) {
        match self.rng.u32(..100) {
            0..33 => {
                let (index, count) = (self.any(), self.rng.u64(1..40));
                let member = &self.members[index];
                let emits = emits(member, count, Duration::ZERO);
                let note = format!("{} emits {count}", member.name);
                self.note(note);
                emits.await;
            }
            33..57 => self.burst(),
            57..65 => {
                let index = self.any();
                let member = &mut self.members[index];
                member.cut = !member.cut;
                if member.cut {
                    member.transport.cut();
                } else {
                    member.transport.heal();
                }
                let note = format!("cut {} {}", member.name, member.cut);
                self.note(note);
            }
            65..69 => {
                let index = self.any();
                self.members[index].transport.deafen();
                let note = format!("deafen {}", self.members[index].name);
                self.note(note);
            }
            69..75 => {
                self.note("restart the bus");
                self.bus.stop();
                self.pause(3_000).await;
                self.bus.start();
            }
            75..79 => {
                self.note("freeze the bus");
                self.bus.freeze();
                self.pause(12_000).await;
                self.bus.thaw();
            }
            79..86 => self.faults(),
            86..89 => {
                self.note("no faults");
                self.bus.set_faults(None);
            }
            89..91 => self.ask().await,
            91..94 if self.members.len() > 2 => self.leave().await,
            94..96 if self.members.iter().all(|member| !member.cut) => {
                if self.members.len() >= GROWN || self.rng.bool() {
                    self.leave().await;
                }
                // What a node owes a newcomer counts from when it hears of it: not before it hears at all, and not while
                // earlier messages are still on their way.
                self.bus.set_faults(None);
                self.end_bursts().await;
                sleep(Duration::from_secs(30)).await;
                self.join().await;
            }
            _ => self.rest().await,
        }
        self.pause(1_500).await;
    }

    /// Lets a node send for a while, whatever happens meanwhile.
    fn burst(&mut self) {
        let (index, count) = (self.any(), self.rng.u64(1..200));
        let gap = Duration::from_millis(self.rng.u64(0..50));
        let member = &mut self.members[index];
        let burst = self.bursts.spawn(emits(member, count, gap));
        member.bursts.push(burst);
        let note = format!("{} emits {count}, one each {gap:?}", member.name);
        self.note(note);
    }

    async fn end_bursts(&mut self) {
        while let Some(end) = self.bursts.join_next().await {
            // One that was aborted crashed with its node.
            assert!(!end.is_err_and(|error| error.is_panic()));
        }
    }

    fn faults(&mut self) {
        let rng = &mut self.rng;
        let mut faults = Faults::new(rng.u64(..))
            .with_drop(rng.f64() * 0.05)
            .with_duplicate(rng.f64() * 0.2)
            .with_delay(Duration::ZERO..Duration::from_millis(rng.u64(1..300)));
        if rng.u32(..3) == 0 {
            let numbers = self.members.iter().map(|it| it.transport.number());
            faults = faults.with_partition(numbers.filter(|_| rng.bool()));
        }
        self.note(format!("{faults:?}"));
        self.bus.set_faults(faults);
    }

    /// Asks for all sockets: an answer in time, or an error in time.
    async fn ask(&mut self) {
        let index = self.any();
        let member = &self.members[index];
        let Some(asking) = &member.asking else {
            return;
        };
        let asked = Instant::now();
        let answer = timeout(REQUEST, asking.fetch_sockets(everyone())).await;
        let said = answer.as_ref().map(|answer| match answer {
            Ok(sockets) => format!("{} sockets", sockets.len()),
            Err(error) => format!("{:?}", error.kind()),
        });
        let name = member.name;
        let took = asked.elapsed();
        self.note(format!("{name} asks for the sockets: {said:?} in {took:?}"));
        let history = || self.history.join("\n");
        let Ok(answer) = answer else {
            panic!("a request outlived its deadline\n{}", history());
        };
        let mut sids: Vec<Sid> = answer.iter().flatten().map(|socket| socket.id).collect();
        sids.sort_unstable();
        let twice = sids.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "a socket twice\n{}", history());
    }

    async fn leave(&mut self) {
        let index = self.any();
        let gone = self.members.swap_remove(index);
        if self.rng.bool() {
            self.note(format!("crash {}", gone.name));
            gone.bursts.iter().for_each(AbortHandle::abort);
        } else {
            self.note(format!("shutdown {}", gone.name));
            let _ = gone.node.cluster.shutdown().await;
        }
    }

    /// Lets time pass: an hour costs with the square of the nodes.
    async fn rest(&mut self) {
        let nodes = self.members.len() as u64;
        let most = 6 * 3_600_000 * 9 / (nodes * nodes);
        let time = self.rng.u64(1..most);
        self.note(format!("quiet for {time} ms"));
        sleep(Duration::from_millis(time)).await;
    }

    async fn pause(&mut self, up_to_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(..up_to_ms))).await;
    }

    /// Ends all faults, waits, and lets everybody speak once more.
    pub(crate) async fn heal(&mut self) {
        self.bus.set_faults(None);
        for member in &mut self.members {
            member.transport.heal();
            member.cut = false;
        }
        self.end_bursts().await;
        sleep(Duration::from_secs(60)).await;
        for member in &self.members {
            emits(member, FINALS, Duration::ZERO).await;
        }
        sleep(Duration::from_secs(10)).await;
    }

    pub(crate) async fn judge(&self) -> Result<(), String> {
        let sent: Vec<Sent> = self
            .sent
            .iter()
            .map(|s| s.lock().unwrap().clone())
            .collect();
        for receiver in &self.members {
            let name = receiver.name;
            let link = receiver.node.cluster.link().state();
            if link != LinkState::Up {
                return Err(format!("node {name}: link is {link:?}"));
            }
            let others = receiver.node.cluster.nodes().len();
            if others != self.members.len() - 1 {
                return Err(format!("node {name}: sees {others} others"));
            }
            let told = receiver.told.lock().unwrap().clone();
            if told.lagged > 0 {
                return Err(format!("node {name}: {} events missed", told.lagged));
            }
            let received = receiver.by_sender(sent.len());
            for (sender, received) in received.iter().enumerate() {
                let alive = self.members.iter().find(|member| member.name == sender);
                let since = |join: &[u64]| join.get(sender).copied().unwrap_or(0);
                let gaps = alive.and_then(|it| told.gaps.get(&it.node.id()));
                let heard = Heard {
                    received,
                    own: sender == name,
                    owed_since: since(&receiver.after_join),
                    reported_since: since(&receiver.before_join),
                    gaps: gaps.copied().unwrap_or(0),
                };
                let unsent = alive.map(|it| self.unsent(it));
                judge_pair(&sent[sender], &heard, unsent)
                    .map_err(|what| format!("{sender} -> {name}: {what}"))?;
            }
        }
        self.judge_requests().await
    }

    /// What a node took and could not send, of what it called accepted: confirmed messages are with the bus.
    fn unsent(&self, sender: &Member) -> u64 {
        match self.config.publish_mode {
            PublishMode::Confirmed => 0,
            _ => sender.told.lock().unwrap().unsent,
        }
    }

    /// With everybody well, an answer and an acknowledgement of every socket come.
    async fn judge_requests(&self) -> Result<(), String> {
        let asker = &self.members[0];
        let mut owed: Vec<Sid> = self.members.iter().map(|member| member.sid).collect();
        owed.sort_unstable();
        let found = asker.adapter.fetch_sockets(everyone()).await;
        let mut found: Vec<Sid> = match found {
            Ok(found) => found.into_iter().map(|socket| socket.id).collect(),
            Err(error) => return Err(format!("fetch_sockets: {error}")),
        };
        found.sort_unstable();
        let message = event("/", "acknowledge");
        let acks = asker.adapter.broadcast_with_ack(message, everyone(), None);
        let acks = acks.await.map_err(|error| error.to_string())?;
        let mut acked: Vec<Sid> = acks.map(|(sid, _)| sid).collect().await;
        acked.sort_unstable();
        if (&found, &acked) == (&owed, &owed) {
            return Ok(());
        }
        let (nodes, found, acked) = (owed.len(), found.len(), acked.len());
        Err(format!(
            "{nodes} sockets, {found} found, {acked} acknowledged"
        ))
    }

    /// What every socket received and every node was told.
    pub(crate) fn record(&self) -> Vec<String> {
        let record = self.members.iter().map(|member| {
            let received = member.sockets.received(member.sid).join("");
            format!("{:?} {received}", member.told.lock().unwrap())
        });
        record.collect()
    }

    pub(crate) async fn end(self) {
        for member in &self.members {
            member.node.cluster.shutdown().await.unwrap();
        }
    }
}

fn config(rng: &mut Rng) -> ClusterConfig {
    let second = Duration::from_secs(1);
    let outage = match rng.u32(..3) {
        0 => OutagePolicy::FailFast,
        1 => OutagePolicy::Buffer {
            max_age: second * rng.u32(1..30),
        },
        _ => OutagePolicy::Block { timeout: second },
    };
    let mode = match rng.bool() {
        true => PublishMode::Queued,
        false => PublishMode::Confirmed,
    };
    ClusterConfig::default()
        .with_outage(outage)
        .with_publish_mode(mode)
}

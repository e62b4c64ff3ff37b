//! The control task: membership, answers for this node, heartbeats, and the proven state of the link.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

use super::{
    Hub, MAX_MEMBERS,
    membership::Change,
    reader::{Input, Reader},
    writer::Writer,
};
use crate::{
    events::ClusterEvent,
    id::NodeId,
    transport::{LinkSender, Topic},
    wire::{self, Envelope, Frame, FrameKind, LaneId, Namespaces, Presence},
};

/// Changes announced one by one; more than that are announced as one full list.
const MAX_DELTAS: usize = 64;
/// Longest wait for the members that the broker says there are to answer our hello.
const SETTLE: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Announced {
    version: u32,
    lanes: BTreeSet<LaneId>,
    deltas: Vec<Namespaces>,
}

/// The namespaces of this node, and what of their changes is not announced yet.
#[derive(Debug)]
pub(crate) struct Announcements {
    state: Mutex<Announced>,
    changed: Notify,
    /// Whether the cluster topic delivers; lives here because lanes need it before the control task runs.
    live: watch::Sender<bool>,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            live: watch::Sender::new(false),
        }
    }
}

impl Announcements {
    fn lock(&self) -> MutexGuard<'_, Announced> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    pub(crate) fn added(&self, lane: LaneId) {
        let mut state = self.lock();
        if state.lanes.insert(lane) {
            state.version = state.version.wrapping_add(1);
            let version = state.version;
            state.deltas.push(Namespaces::Added { version, lane });
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(crate) fn removed(&self, lane: LaneId) {
        let mut state = self.lock();
        if state.lanes.remove(&lane) {
            state.version = state.version.wrapping_add(1);
            let version = state.version;
            state.deltas.push(Namespaces::Removed { version, lane });
            drop(state);
            self.changed.notify_one();
        }
    }

    fn version(&self) -> Namespaces {
        Namespaces::Version(self.lock().version)
    }

    fn full(&self) -> Namespaces {
        let state = self.lock();
        Namespaces::Full {
            version: state.version,
            lanes: state.lanes.iter().copied().collect(),
        }
    }

    fn take_deltas(&self) -> Vec<Namespaces> {
        let deltas = std::mem::take(&mut self.lock().deltas);
        if deltas.len() > MAX_DELTAS {
            vec![self.full()]
        } else {
            deltas
        }
    }
}

/// When this node asked others for their presence, for the first time since they last answered.
#[derive(Debug, Default)]
struct Asked {
    /// Our last hello, and who has answered it.
    hello: Option<(Instant, BTreeSet<NodeId>)>,
    /// Those we asked alone.
    nodes: BTreeMap<NodeId, Instant>,
}

impl Asked {
    fn everybody(&mut self) {
        self.hello = Some((Instant::now(), BTreeSet::new()));
    }

    fn node(&mut self, node: NodeId) {
        if self.nodes.len() < MAX_MEMBERS {
            self.nodes.entry(node).or_insert_with(Instant::now);
        }
    }

    /// The earliest question that a presence just received from `node` can be the answer to.
    fn answered(&mut self, node: NodeId) -> Option<Instant> {
        let alone = self.nodes.remove(&node);
        if let Some((at, answered)) = &mut self.hello
            && answered.len() < MAX_MEMBERS
            && answered.insert(node)
        {
            return Some(*at);
        }
        alone
    }
}

struct Control {
    hub: Arc<Hub>,
    link: LinkSender,
    cluster: Reader,
    node: Reader,
    cluster_is_live: bool,
    node_is_live: bool,
    heartbeat_at: Instant,
    /// What we asked others, to know how old an answer can be at most.
    asked: Asked,
    /// While our hello is being answered: until when, and how many members the broker knows of.
    settling: Option<(Instant, Option<u64>)>,
}

/// Starts the control task and the writer of the cluster topic.
pub(crate) fn spawn(hub: &Arc<Hub>, link: LinkSender) {
    let shared = &hub.shared;
    let probing = Some(shared.config.heartbeat);
    let control = Control {
        cluster: Reader::new(shared.clone(), Topic::Cluster, probing),
        node: Reader::new(shared.clone(), Topic::Node(shared.me), None),
        hub: hub.clone(),
        link,
        cluster_is_live: false,
        node_is_live: false,
        heartbeat_at: Instant::now(),
        asked: Asked::default(),
        settling: None,
    };
    let writer = Writer::new(
        shared.clone(),
        hub.cluster_lane.clone(),
        hub.announcements.live(),
        hub.cancel.clone(),
    );
    hub.spawn(writer.run());
    hub.spawn(control.run());
}

impl Control {
    async fn run(mut self) {
        let hub = self.hub.clone();
        loop {
            let now = Instant::now();
            let tick = hub.shared.membership().next_deadline();
            let tick = tick.map_or_else(|| now + Duration::from_secs(3600), Instant::from_std);
            let settle = self.settling.map_or(self.heartbeat_at, |(until, _)| until);
            let wake_at = tick.min(settle).min(self.heartbeat_at);
            tokio::select! {
                biased;
                () = hub.cancel.cancelled() => break,
                input = self.cluster.next() => match input {
                    Some(input) => self.on_cluster(input),
                    None => break,
                },
                input = self.node.next() => match input {
                    Some(input) => self.on_node(input),
                    None => break,
                },
                () = hub.announcements.changed.notified() => self.announce(),
                () = sleep_until(wake_at) => {}
            }
            self.on_time();
        }
        let reason = hub.shared.transport.link().status().reason;
        self.link.closed(reason);
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let heard = self.cluster.heard_until().into_std();
        let (changes, wants_proof) = {
            let mut membership = self.hub.shared.membership();
            let changes = membership.tick(now.into_std(), heard);
            (changes, membership.take_wants_proof())
        };
        if wants_proof {
            self.cluster.probe_now();
        }
        self.apply(changes);
        if now >= self.heartbeat_at {
            let jitter = 0.9 + fastrand::f64() * 0.2;
            self.heartbeat_at = now + self.hub.shared.config.heartbeat.mul_f64(jitter);
            if self.is_live() {
                self.publish_presence(false, self.hub.announcements.version());
            }
        }
        self.settle();
    }

    fn is_live(&self) -> bool {
        self.cluster_is_live && self.node_is_live
    }

    fn on_cluster(&mut self, input: Input) {
        match input {
            Input::Frame(frame) => self.on_frame(&frame, false),
            Input::PeerProbe(_) => {}
            Input::Live { receivers } => {
                self.cluster_is_live = true;
                self.hub.announcements.live.send_replace(true);
                let others = receivers.map(|receivers| receivers.saturating_sub(1));
                self.settling = Some((Instant::now() + SETTLE, others));
                self.link_changed();
            }
            Input::NotLive => {
                self.cluster_is_live = false;
                self.hub.announcements.live.send_replace(false);
                self.link_changed();
            }
        }
    }

    fn on_node(&mut self, input: Input) {
        match input {
            Input::Frame(frame) => self.on_frame(&frame, true),
            Input::PeerProbe(_) => {}
            Input::Live { .. } => {
                self.node_is_live = true;
                self.link_changed();
            }
            Input::NotLive => {
                self.node_is_live = false;
                self.link_changed();
            }
        }
    }

    /// Follows the two topics that stand for the link.
    fn link_changed(&mut self) {
        let shared = self.hub.shared.clone();
        let now = Instant::now().into_std();
        let was_up = self.link.watch().state() == crate::transport::LinkState::Up;
        if self.is_live() && !was_up {
            shared.membership().set_link(now, true);
            shared.counters.link_ups.inc();
            self.link.up();
            info!(node = %shared.me, transport = shared.transport.name(), "cluster link up");
            shared.emit(ClusterEvent::LinkUp);
            // Everybody answers: this is how members that came meanwhile are found.
            self.asked.everybody();
            self.publish_presence(true, self.hub.announcements.full());
        } else if !self.is_live() && was_up {
            let reason = shared.transport.link().status().reason;
            let reason = reason.unwrap_or_else(|| "probes do not come back".into());
            shared.membership().set_link(now, false);
            self.link.down(reason.clone());
            warn!(node = %shared.me, %reason, "cluster link down");
            shared.emit(ClusterEvent::LinkDown { reason });
        }
    }

    /// Ends the wait for answers to our hello.
    fn settle(&mut self) {
        let Some((until, others)) = self.settling else {
            return;
        };
        let known = self.hub.shared.membership().members().count() as u64;
        let all = others.is_some_and(|others| known >= others);
        if self.is_live() && (all || Instant::now() >= until) {
            self.settling = None;
            self.hub.settled.send_replace(true);
        } else if Instant::now() >= until {
            self.settling = Some((Instant::now() + SETTLE, others));
        }
    }

    fn presence(&self, hello: bool, namespaces: Namespaces) -> Envelope {
        Envelope::Presence(Presence {
            age: self.hub.shared.started.elapsed(),
            min_version: wire::MIN_VERSION,
            max_version: wire::VERSION,
            hello,
            live: self.is_live(),
            namespaces,
        })
    }

    fn publish_presence(&self, hello: bool, namespaces: Namespaces) {
        let presence = self.presence(hello, namespaces);
        // A full lane means that the last heartbeats still wait.
        let _ = self.hub.cluster_lane.push(None, &presence, false);
    }

    fn announce(&self) {
        for delta in self.hub.announcements.take_deltas() {
            self.publish_presence(false, delta);
        }
    }

    /// Takes in a frame of the cluster topic, or one that is for this node alone.
    fn on_frame(&mut self, frame: &Frame, for_us: bool) {
        if frame.head.kind != FrameKind::Data {
            return;
        }
        let origin = frame.head.origin;
        for incoming in frame.envelopes() {
            match incoming.and_then(|incoming| incoming.decode()) {
                Ok(envelope) => self.on_envelope(origin, envelope, for_us),
                Err(reject) => self.hub.shared.rejected(Some(origin), &reject),
            }
        }
    }

    fn on_envelope(&mut self, origin: NodeId, envelope: Envelope, for_us: bool) {
        let hub = self.hub.clone();
        match envelope {
            Envelope::Presence(presence) => self.on_presence(origin, presence, for_us),
            Envelope::Bye => {
                let now = Instant::now().into_std();
                let changes = hub.shared.membership().on_bye(now, origin);
                self.apply(changes);
            }
            Envelope::AskPresence => {
                hub.answer(origin, &self.presence(false, hub.announcements.full()));
            }
            Envelope::RoomsAnswer { request, rooms } => {
                hub.pending.on_rooms(origin, request, rooms);
            }
            Envelope::SocketsAnswer { request, sockets } => {
                hub.pending.on_sockets(origin, request, sockets);
            }
            Envelope::AckCount { request, count } => {
                hub.pending.on_ack_count(origin, request, count);
            }
            Envelope::Ack {
                request,
                sid,
                result,
            } => {
                let dropped = hub.pending.on_ack(origin, request, sid, result);
                hub.shared.counters.acks_dropped.add(u64::from(dropped));
            }
            _ => {}
        }
    }

    /// A presence for this node alone is an answer.
    fn on_presence(&mut self, origin: NodeId, presence: Presence, is_answer: bool) {
        let (hello, age) = (presence.hello, presence.age);
        let tells_lanes = !matches!(presence.namespaces, Namespaces::Version(_));
        let now = Instant::now().into_std();
        let asked = if is_answer {
            self.asked.answered(origin)
        } else {
            None
        };
        let changes = {
            let mut membership = self.hub.shared.membership();
            let changes = membership.on_presence(now, origin, presence);
            if let Some(asked) = asked {
                membership.on_answer(origin, age, asked.into_std());
            }
            changes
        };
        self.apply(changes);
        if tells_lanes {
            let shared = &self.hub.shared;
            let left = |lane| shared.membership().may_have(origin, lane) == Some(false);
            self.hub.pending.on_left_namespace(origin, left);
        }
        if hello {
            let answer = self.presence(false, self.hub.announcements.full());
            self.hub.answer(origin, &answer);
        }
    }

    fn ask(&mut self, node: NodeId) {
        self.asked.node(node);
        self.hub.answer(node, &Envelope::AskPresence);
    }

    fn apply(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let hub = self.hub.clone();
        for change in changes {
            match change {
                Change::Joined(node) => {
                    info!(%node, "node joined");
                    hub.shared.emit(ClusterEvent::Joined { node });
                    if hub.shared.membership().started_after(node).is_none() {
                        self.ask(node);
                    }
                }
                Change::Left(node, reason) => {
                    info!(%node, ?reason, "node left");
                    hub.pending.on_node_gone(node);
                    hub.drop_answer_lane(node);
                    hub.shared.emit(ClusterEvent::Left { node, reason });
                }
                Change::Incompatible(node, versions) => {
                    let (min_version, max_version) = (versions.min, versions.max);
                    warn!(%node, min_version, max_version, "node speaks no wire version in common");
                    hub.shared.emit(ClusterEvent::Incompatible {
                        node,
                        min_version,
                        max_version,
                    });
                }
                Change::Refused(node) => warn!(%node, "cluster is full, node ignored"),
                Change::NamespacesUnknown(node) => self.ask(node),
            }
        }
        hub.shared.update_emit_version();
    }
}

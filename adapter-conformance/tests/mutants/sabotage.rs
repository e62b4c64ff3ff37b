//! A layer between a server and its transport that defeats one protection of the cluster logic, and nothing else.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use socketioxide_adapter_core::{
    NodeId, Result,
    transport::{
        BufferLimits, Capabilities, Event, LinkWatch, Receipt, Subscription, SubscriptionSender,
        Topic, Transport,
    },
    wire::{Envelope, Frame, FrameHead, FrameKind, LaneId, NativeWire, Wire},
};

use crate::flaw::Flaw;

/// A transport below which everything is whole, and above which a protection is missing.
pub(crate) struct Sabotage {
    flaw: Flaw,
    inner: Arc<dyn Transport>,
    /// Where to hand the server its own probes, past the broker.
    ears: Mutex<HashMap<Topic, SubscriptionSender>>,
    /// Whether the heartbeats have stopped.
    silenced: AtomicBool,
}

impl Sabotage {
    pub(crate) fn new(flaw: Flaw, inner: Arc<dyn Transport>) -> Self {
        Self {
            flaw,
            inner,
            ears: Mutex::default(),
            silenced: AtomicBool::new(false),
        }
    }

    /// Lets the server hear itself as if the broker had brought it back.
    fn echo(&self, topic: &Topic, payload: &Bytes) {
        if let Some(ear) = self.ears.lock().unwrap().get(topic) {
            ear.push(payload.clone());
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Sabotage {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let kind = NativeWire::new().peek(&payload).map(|head| head.kind);
        let is_probe = kind == Ok(FrameKind::Probe);
        if is_probe && self.flaw == Flaw::NoFence {
            self.echo(topic, &payload);
        }
        if self.silenced.load(Ordering::Relaxed) && *topic == Topic::Cluster {
            if is_probe {
                self.echo(topic, &payload);
            }
            return Ok(Receipt::default());
        }
        if self.flaw == Flaw::NoGoodbye && says_goodbye(topic, &payload) {
            return Ok(Receipt::default());
        }
        let result = self.inner.publish(topic, payload).await;
        if self.flaw == Flaw::HeartbeatsEndWithTheFirstError
            && *topic == Topic::Cluster
            && result.is_err()
        {
            self.silenced.store(true, Ordering::Relaxed);
        }
        result
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let from = self.inner.subscribe(topic).await?;
        let (to, subscription) = Subscription::channel(BufferLimits::default());
        self.ears.lock().unwrap().insert(topic.clone(), to.clone());
        tokio::spawn(forward(Filter::new(self.flaw, topic.clone()), from, to));
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.inner.link()
    }

    async fn close(&self) -> Result<()> {
        self.ears.lock().unwrap().clear();
        self.inner.close().await
    }
}

impl fmt::Debug for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sabotage({:?})", self.flaw)
    }
}

fn says_goodbye(topic: &Topic, payload: &Bytes) -> bool {
    let frame = NativeWire::new().open(LaneId::of(topic), payload.clone());
    frame.is_ok_and(|frame| envelopes(&frame).any(|(_, envelope)| envelope == Envelope::Bye))
}

fn envelopes(frame: &Frame) -> impl Iterator<Item = (Option<NodeId>, Envelope)> {
    let whole = frame.envelopes().filter_map(std::result::Result::ok);
    whole.filter_map(|incoming| Some((incoming.only, incoming.decode().ok()?)))
}

async fn forward(mut filter: Filter, mut from: Subscription, to: SubscriptionSender) {
    while let Some(event) = from.recv().await {
        if to.is_closed() {
            return;
        }
        match event {
            Event::Message(payload) => {
                if let Some(payload) = filter.pass(payload) {
                    to.push(payload);
                }
            }
            Event::Resumed(continuity) => to.resumed(continuity),
            Event::Lagged(count) => to.lagged(count),
            _ => {}
        }
    }
    to.end();
}

/// What is known of one origin on a topic.
#[derive(Default)]
struct Origin {
    /// Numbers seen, as they were written.
    seen: BTreeSet<u64>,
    highest: u64,
    /// How much larger numbers are made.
    shift: u64,
}

/// Changes what arrives on one topic. Signed frames pass as they are: the cases about losses do not sign.
struct Filter {
    flaw: Flaw,
    topic: Topic,
    origins: HashMap<NodeId, Origin>,
}

impl Filter {
    fn new(flaw: Flaw, topic: Topic) -> Self {
        Self {
            flaw,
            topic,
            origins: HashMap::new(),
        }
    }

    fn pass(&mut self, payload: Bytes) -> Option<Bytes> {
        let wire = NativeWire::new();
        let Ok(frame) = wire.open(LaneId::of(&self.topic), payload.clone()) else {
            return Some(payload);
        };
        match (&self.topic, frame.head.kind) {
            (_, FrameKind::Probe) => Some(payload),
            (Topic::Namespace(_), FrameKind::Tail) if self.flaw == Flaw::NoTails => None,
            (Topic::Namespace(_), FrameKind::Void) if self.flaw == Flaw::NoWithdrawals => None,
            (Topic::Namespace(_), _) => self.renumber(frame.head).map(|head| {
                let changed = self.rewrite(&frame, head);
                changed.unwrap_or(payload)
            }),
            (Topic::Node(_), FrameKind::Data) => {
                Some(self.rewrite(&frame, frame.head).unwrap_or(payload))
            }
            _ => Some(payload),
        }
    }

    /// The head as the receive filter is to see it.
    fn renumber(&mut self, mut head: FrameHead) -> Option<FrameHead> {
        let origin = self.origins.entry(head.origin).or_default();
        let (seq, last) = (
            head.seq,
            (head.seq + u64::from(head.count)).saturating_sub(1),
        );
        let is_known = origin.seen.contains(&seq);
        let is_old = seq <= origin.highest;
        match (self.flaw, head.kind) {
            (Flaw::NoReceiveFilter, FrameKind::Data) => {
                head.seq = origin.highest + 1;
                origin.highest += u64::from(head.count);
                return Some(head);
            }
            (Flaw::NoReceiveFilter, _) => return None,
            (Flaw::DeliversTwice, FrameKind::Data) if is_old && is_known => {
                head.seq = origin.highest + origin.shift + 1;
                origin.shift += u64::from(head.count);
                return Some(head);
            }
            (Flaw::DeliversLate, FrameKind::Data) if is_old && !is_known => {
                head.seq = origin.highest + origin.shift + 1;
                origin.shift += u64::from(head.count);
            }
            (Flaw::CountsOneTooMany, _) if seq > origin.highest + 1 && origin.highest > 0 => {
                origin.shift += 1;
                head.seq += origin.shift;
            }
            _ => head.seq += origin.shift,
        }
        if head.kind == FrameKind::Data {
            origin.seen.extend(seq..=last);
        }
        origin.highest = origin.highest.max(last);
        Some(head)
    }

    /// The frame with another head, and with envelopes as the flaw wants them.
    fn rewrite(&self, frame: &Frame, head: FrameHead) -> Option<Bytes> {
        let wire = NativeWire::new();
        let mut buf = wire.begin();
        for (only, mut envelope) in envelopes(frame) {
            self.spoil(&mut envelope);
            wire.append(&mut buf, only, &envelope).ok()?;
        }
        // One of another version or kind: it passes as it is.
        (head.kind != FrameKind::Data || buf.count() == head.count).then(|| wire.seal(buf, head))
    }

    fn spoil(&self, envelope: &mut Envelope) {
        match (self.flaw, envelope) {
            (Flaw::ForgetsExceptions, Envelope::Broadcast { opts, .. }) => opts.except.clear(),
            (Flaw::ForgetsRooms, Envelope::Broadcast { opts, .. }) => opts.rooms.clear(),
            (Flaw::MiscountsAcks, Envelope::AckCount { count, .. }) => *count += 1,
            (Flaw::LosesASocket, Envelope::SocketsAnswer { sockets, .. }) => {
                sockets.pop();
            }
            (Flaw::MakesRoomsUp, Envelope::RoomsAnswer { rooms, .. }) => {
                rooms.push("made up".into())
            }
            _ => {}
        }
    }
}

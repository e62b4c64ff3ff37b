//! A tap in the way of one node: frames are watched, lost, doubled, held back, refused or changed on purpose.
//!
//! It makes every transport misbehave in ways that no lab could cause at a wish, so that what the cluster makes of it can be
//! judged on each of them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{
        BufferLimits, Capabilities, Event, LinkWatch, Receipt, Subscription, SubscriptionSender,
        Topic, Transport,
    },
    wire::{FrameHead, FrameKind, NativeWire, Wire as _},
};

/// What becomes of a payload that the node publishes.
#[derive(Debug)]
pub(crate) enum Fate {
    Pass,
    /// Lost, although the node is told that the broker has it.
    Lose,
    /// Published, and once more.
    Double,
    /// Kept until [`Tap::release`], although the node is told that the broker has it.
    Hold,
    /// This is published instead.
    Change(Bytes),
    /// Not published, and the node is told so.
    Refuse(ErrorKind),
    /// Published, but the node is told that nobody knows.
    Doubt,
    /// Lost, and the node is told that nobody knows.
    LoseInDoubt,
}

/// A payload on its way from the node to the broker.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a Topic,
    pub(crate) payload: &'a Bytes,
    head: FrameHead,
}

impl<'a> Outgoing<'a> {
    /// `None` if it is no frame.
    fn read(topic: &'a Topic, payload: &'a Bytes) -> Option<Self> {
        let head = NativeWire::new().peek(payload).ok()?;
        Some(Self {
            topic,
            payload,
            head,
        })
    }

    /// Whether it carries what was emitted in a namespace.
    pub(crate) fn is_data(&self) -> bool {
        self.is(FrameKind::Data)
    }

    pub(crate) fn is_withdrawal(&self) -> bool {
        self.is(FrameKind::Void)
    }

    fn is(&self, kind: FrameKind) -> bool {
        matches!(self.topic, Topic::Namespace(_)) && self.head.kind == kind
    }
}

type Rule = Box<dyn FnMut(&Outgoing<'_>) -> Fate + Send>;

struct State {
    rule: Rule,
    held: Vec<(Topic, Bytes)>,
    published: Vec<(Topic, Bytes)>,
}

/// A transport with a tap in front.
pub(crate) struct Tap {
    inner: Arc<dyn Transport>,
    state: Mutex<State>,
    deaf: Arc<AtomicBool>,
}

impl Tap {
    /// A tap that lets everything pass.
    pub(crate) fn new(inner: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            state: Mutex::new(State {
                rule: Box::new(|_| Fate::Pass),
                held: Vec::new(),
                published: Vec::new(),
            }),
            deaf: Arc::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides from now on what becomes of payloads.
    pub(crate) fn rule(&self, rule: impl FnMut(&Outgoing<'_>) -> Fate + Send + 'static) {
        self.state().rule = Box::new(rule);
    }

    /// Decides about the next `count` payloads that carry what was emitted; all others pass.
    pub(crate) fn next_data(&self, count: usize, fate: impl Fn() -> Fate + Send + 'static) {
        let mut left = count;
        self.rule(move |out| {
            if out.is_data() && left > 0 {
                left -= 1;
                return fate();
            }
            Fate::Pass
        });
    }

    /// Lets everything pass from now on.
    pub(crate) fn pass(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// Publishes what was held, in order.
    pub(crate) async fn release(&self) -> Result<()> {
        let held = std::mem::take(&mut self.state().held);
        for (topic, payload) in held {
            self.inner.publish(&topic, payload).await?;
        }
        Ok(())
    }

    /// How many payloads are held.
    pub(crate) fn held(&self) -> usize {
        self.state().held.len()
    }

    /// What the node has published so far, whatever became of it.
    pub(crate) fn published(&self) -> Vec<(Topic, Bytes)> {
        self.state().published.clone()
    }

    /// How many frames with what was emitted the node has published so far.
    pub(crate) fn data_frames(&self) -> usize {
        self.count(FrameKind::Data)
    }

    /// How many times the node has withdrawn numbers so far.
    pub(crate) fn withdrawals(&self) -> usize {
        self.count(FrameKind::Void)
    }

    /// Whether the node has published the number of its next message.
    pub(crate) fn has_told_where_it_stands(&self) -> bool {
        self.count(FrameKind::Tail) > 0
    }

    /// Frames of a kind on the topics of namespaces.
    fn count(&self, kind: FrameKind) -> usize {
        let state = self.state();
        let frames = state.published.iter();
        let frames = frames.filter_map(|(topic, payload)| Outgoing::read(topic, payload));
        frames.filter(|out| out.is(kind)).count()
    }

    /// Forgets what the node has published so far.
    pub(crate) fn forget(&self) {
        self.state().published.clear();
    }

    /// Whether the node receives nothing, on links that look healthy.
    pub(crate) fn deafen(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Relaxed);
    }

    fn decide(&self, topic: &Topic, payload: &Bytes) -> Fate {
        let mut state = self.state();
        state.published.push((topic.clone(), payload.clone()));
        let Some(outgoing) = Outgoing::read(topic, payload) else {
            return Fate::Pass;
        };
        let fate = (state.rule)(&outgoing);
        if matches!(fate, Fate::Hold) {
            state.held.push((topic.clone(), payload.clone()));
        }
        fate
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Tap {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let refusal = |kind| Err(Error::new(kind, "tap: publish", "as the case wants it"));
        match self.decide(topic, &payload) {
            Fate::Pass => self.inner.publish(topic, payload).await,
            Fate::Lose | Fate::Hold => Ok(Receipt::default()),
            Fate::Double => {
                self.inner.publish(topic, payload.clone()).await?;
                self.inner.publish(topic, payload).await
            }
            Fate::Change(payload) => self.inner.publish(topic, payload).await,
            Fate::Refuse(kind) => refusal(kind),
            Fate::Doubt => {
                self.inner.publish(topic, payload).await?;
                refusal(ErrorKind::Interrupted)
            }
            Fate::LoseInDoubt => refusal(ErrorKind::Interrupted),
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let from = self.inner.subscribe(topic).await?;
        let (to, subscription) = Subscription::channel(BufferLimits::default());
        // Ends with either of its ends.
        tokio::spawn(forward(from, to, self.deaf.clone()));
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.inner.link()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

async fn forward(mut from: Subscription, to: SubscriptionSender, deaf: Arc<AtomicBool>) {
    while let Some(event) = from.recv().await {
        if to.is_closed() {
            return;
        }
        match event {
            Event::Message(_) if deaf.load(Ordering::Relaxed) => {}
            Event::Message(payload) => {
                to.push(payload);
            }
            Event::Resumed(continuity) => to.resumed(continuity),
            Event::Lagged(count) => to.lagged(count),
            _ => {}
        }
    }
    to.end();
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

//! The receiving side of one topic: a subscription that counts as live only while our own probes come back.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{replay::OfTopic, shared::Shared};
use crate::{
    error::Result,
    events::ClusterEvent,
    id::NodeId,
    transport::{Continuity, Event, LinkState, LinkWatch, LossCause, Receipt, Subscription, Topic},
    wire::{Frame, FrameHead, FrameKind, LaneId},
};

/// A probe that is not back by then is lost. It travels behind whatever the broker has queued for us.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a probe or a subscription that the broker did not take.
const RETRY: Duration = Duration::from_millis(100);
/// How often a namespace behind a replay sends another probe: the broker may have dropped the first with what was too much.
const AGAIN: Duration = Duration::from_secs(20);
/// Lost probes in a row after which the subscription is made anew…
const RESUBSCRIBE_AFTER: u32 = 2;
/// … and after which the whole session is.
const SUSPECT_AFTER: u32 = 3;

/// What a reader yields.
#[derive(Debug)]
pub(crate) enum Input {
    /// A frame of a peer, verified; data, tail or void.
    Frame(Frame),
    /// A peer has just subscribed: it wants to know where our lane stands, and may have missed what we asked before.
    PeerProbe(NodeId),
    /// Our own probe came back, or is behind what was missed: from here on everything reaches us. `receivers` as the broker
    /// counted them.
    Live {
        /// How many subscribers the probe was handed to, where the broker tells.
        receivers: Option<u64>,
    },
    /// The topic delivers no more; a `Live` will follow.
    NotLive,
}

type Publishing = Pin<Box<dyn Future<Output = Result<Receipt>> + Send>>;
type Subscribing = Pin<Box<dyn Future<Output = Result<Subscription>> + Send>>;

/// Our last probe.
#[derive(Debug, Default)]
struct Probe {
    nonce: u64,
    /// How often it was sent once more, each time with the next nonce; any of them will do.
    more: u64,
    /// Until when it may come back; `None` while none is expected.
    deadline: Option<Instant>,
    came_back: bool,
    /// The broker has it.
    taken: bool,
    receivers: Option<u64>,
    sent: Option<Instant>,
}

pub(crate) struct Reader {
    shared: Arc<Shared>,
    topic: Topic,
    lane: LaneId,
    link: LinkWatch,
    subscription: Option<Subscription>,
    subscribing: Option<Subscribing>,
    publishing: Option<Publishing>,
    probe: Probe,
    /// What comes is what was missed.
    replay: Option<OfTopic>,
    /// When to subscribe or probe again.
    retry_at: Option<Instant>,
    /// Probes in a row that did not come back.
    lost: u32,
    /// Probe again at this interval while live: for a topic that stands for the whole link.
    keep_probing: Option<Duration>,
    live: watch::Sender<bool>,
    heard_until: Instant,
    cause: LossCause,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, topic: Topic, keep_probing: Option<Duration>) -> Self {
        Self {
            lane: LaneId::of(&topic),
            link: shared.transport.link(),
            shared,
            topic,
            subscription: None,
            subscribing: None,
            publishing: None,
            probe: Probe::default(),
            replay: None,
            retry_at: Some(Instant::now()),
            lost: 0,
            keep_probing,
            live: watch::Sender::new(false),
            heard_until: Instant::now(),
            cause: LossCause::LinkDown,
        }
    }

    /// Whether the topic delivers, to watch.
    pub(crate) fn live(&self) -> watch::Receiver<bool> {
        self.live.subscribe()
    }

    /// Until when everything published on the topic has certainly reached us: when our last probe that came back was sent.
    pub(crate) const fn heard_until(&self) -> Instant {
        self.heard_until
    }

    /// Probes at once, unless a probe is out.
    pub(crate) fn probe_now(&mut self) {
        if self.probe.deadline.is_none() && self.publishing.is_none() && *self.live.borrow() {
            self.retry_at = Some(Instant::now());
        }
    }

    /// Why payloads were last lost on their way here, as far as the transport told.
    pub(crate) const fn cause(&self) -> LossCause {
        self.cause
    }

    /// The next input; `None` once the transport is closed.
    ///
    /// Cancel safe: everything under way is kept in `self`.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        loop {
            let wake_at = [self.probe_deadline(), self.retry_at]
                .into_iter()
                .flatten()
                .min();
            let input = tokio::select! {
                biased;
                status = self.link.changed() => match status.state {
                    LinkState::Closed => return None,
                    LinkState::Up => {
                        self.retry_at = Some(Instant::now());
                        None
                    }
                    LinkState::Connecting | LinkState::Down => self.lost_link(),
                },
                published = poll_option(&mut self.publishing) => self.on_published(published),
                subscribed = poll_option(&mut self.subscribing) => {
                    self.on_subscribed(subscribed);
                    None
                }
                event = recv(&mut self.subscription) => match event {
                    Some(event) => self.on_event(event),
                    None if self.link.state() == LinkState::Closed => return None,
                    None => {
                        self.subscription = None;
                        self.publishing = None;
                        self.probe.deadline = None;
                        self.replay = None;
                        self.retry_at = Some(Instant::now() + RETRY);
                        self.not_live()
                    }
                },
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => self.on_timer(),
            };
            if input.is_some() {
                return input;
            }
        }
    }

    /// By when our probe must be back. The time of one that is still being sent has not begun.
    fn probe_deadline(&self) -> Option<Instant> {
        self.probe.deadline.filter(|_| self.publishing.is_none())
    }

    fn on_timer(&mut self) -> Option<Input> {
        let now = Instant::now();
        if self
            .probe_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            let Some(deadline) = self.shared.replay.deadline(PROBE_TIMEOUT) else {
                return self.probe_lost();
            };
            self.probe.deadline = Some(deadline);
        }
        if self.retry_at.is_none_or(|at| at > now) {
            return None;
        }
        self.retry_at = None;
        if self.link.state() == LinkState::Up {
            if self.subscription.is_none() {
                if self.subscribing.is_none() {
                    self.subscribe();
                }
            } else if self.probe.deadline.is_none() {
                self.send_probe();
            } else {
                self.show_life(now + self.keep_probing.unwrap_or(AGAIN));
            }
        }
        None
    }

    fn subscribe(&mut self) {
        let transport = self.shared.transport.clone();
        let topic = self.topic.clone();
        self.subscribing = Some(Box::pin(async move { transport.subscribe(&topic).await }));
    }

    fn on_subscribed(&mut self, subscribed: Result<Subscription>) {
        match subscribed {
            Ok(subscription) => {
                self.subscription = Some(subscription);
                self.replay = None;
                self.send_probe();
            }
            Err(error) => {
                if error.is_retryable() {
                    debug!(topic = %self.topic, ?error, "not subscribed yet");
                } else {
                    warn!(topic = %self.topic, ?error, "cannot subscribe, trying again");
                }
                let wait = RETRY * if error.is_retryable() { 1 } else { 10 };
                self.retry_at = Some(Instant::now() + wait.mul_f64(0.5 + fastrand::f64()));
            }
        }
    }

    /// Publishes the probe that is out once more, if it waits behind a replay: to those who hear nothing else of us
    /// meanwhile, and in case it was dropped there.
    fn show_life(&mut self, again: Instant) {
        self.retry_at = Some(again);
        if self.publishing.is_none() && self.shared.replay.deadline(PROBE_TIMEOUT).is_some() {
            self.probe.more += 1;
            self.publish_probe();
        }
    }

    /// Publishes a probe to ourselves the way every frame goes. Peers answer it with where their lanes stand.
    fn send_probe(&mut self) {
        self.probe = Probe {
            nonce: fastrand::u64(..),
            deadline: Some(Instant::now() + PROBE_TIMEOUT),
            sent: Some(Instant::now()),
            ..Probe::default()
        };
        let again = self.keep_probing.or(self.replay.map(|_| AGAIN));
        if let Some(interval) = again {
            self.retry_at = Some(Instant::now() + interval);
        }
        self.publish_probe();
    }

    fn publish_probe(&mut self) {
        let head = FrameHead {
            version: self.shared.emit_version(),
            kind: FrameKind::Probe,
            origin: self.shared.me,
            lane: self.lane,
            seq: self.probe.nonce.wrapping_add(self.probe.more),
            count: 0,
        };
        let wire = &self.shared.wire;
        let payload = wire.seal(wire.begin(), head);
        let transport = self.shared.transport.clone();
        let topic = self.topic.clone();
        self.publishing = Some(Box::pin(
            async move { transport.publish(&topic, payload).await },
        ));
    }

    fn on_published(&mut self, published: Result<Receipt>) -> Option<Input> {
        let mut early = None;
        match published {
            Ok(receipt) => {
                self.probe.taken = true;
                self.probe.receivers = receipt.receivers;
                self.probe.deadline = self.probe.deadline.map(|_| Instant::now() + PROBE_TIMEOUT);
                if self.replay.is_some() && matches!(self.topic, Topic::Namespace(_)) {
                    // What comes back shows that the subscription lives. What waits to be sent need not wait for all of it;
                    // only the link as a whole does, by which members are judged.
                    early = self.now_live();
                }
            }
            // A probe that could not be sent proves nothing about what we receive.
            Err(error) if !self.probe.came_back && !self.probe.taken => {
                debug!(topic = %self.topic, ?error, "probe not sent");
                self.probe.deadline = None;
                self.retry_at = Some(Instant::now() + RETRY);
                return None;
            }
            Err(_) => {}
        }
        let back = self.probe_back();
        early.or(back)
    }

    fn probe_back(&mut self) -> Option<Input> {
        if !self.probe.came_back || self.publishing.is_some() {
            return None;
        }
        self.probe.deadline = None;
        self.replay = None;
        self.lost = 0;
        // What was published before it has reached us before it.
        self.heard_until = self.probe.sent.unwrap_or(self.heard_until);
        self.retry_at = self.keep_probing.map(|interval| Instant::now() + interval);
        self.now_live()
    }

    fn now_live(&self) -> Option<Input> {
        let was_live = self.live.send_replace(true);
        (!was_live).then_some(Input::Live {
            receivers: self.probe.receivers,
        })
    }

    fn probe_lost(&mut self) -> Option<Input> {
        self.shared.counters.probes_lost.inc();
        self.probe.deadline = None;
        self.publishing = None;
        self.lost += 1;
        self.retry_at = Some(Instant::now());
        if self.lost >= SUSPECT_AFTER {
            warn!(topic = %self.topic, "probes do not come back, reconnecting");
            self.lost = 0;
            self.link.suspect();
        }
        if self.lost >= RESUBSCRIBE_AFTER {
            self.subscription = None;
            return self.not_live();
        }
        None
    }

    fn lost_link(&mut self) -> Option<Input> {
        self.probe.deadline = None;
        self.replay = None;
        self.publishing = None;
        self.subscribing = None;
        self.retry_at = None;
        self.cause = LossCause::LinkDown;
        self.not_live()
    }

    fn not_live(&self) -> Option<Input> {
        self.live.send_replace(false).then_some(Input::NotLive)
    }

    fn on_event(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Message(payload) => {
                if let Some(replay) = self.replay {
                    self.shared.replay.goes_on(replay);
                }
                self.on_message(payload)
            }
            Event::Resumed(continuity) => {
                let replays = matches!(
                    continuity,
                    Continuity::Unbroken { replayed: 1.. } | Continuity::Lost { .. }
                );
                self.replay = replays.then(|| self.shared.replay.begins());
                self.cause = match continuity {
                    Continuity::Lost { count, cause } => {
                        warn!(topic = %self.topic, ?count, ?cause, "the broker no longer has what was missed");
                        self.tell_history_lost(count, cause);
                        cause
                    }
                    Continuity::Unbroken { .. } | Continuity::Unknown => LossCause::LinkDown,
                };
                let input = self.not_live();
                self.send_probe();
                input
            }
            Event::Lagged(count) => {
                self.shared.counters.payloads_overflowed.add(count);
                warn!(topic = %self.topic, count, "receive buffer full, payloads dropped");
                self.cause = LossCause::Overflow;
                // The answers tell how much was in them, also where nothing follows.
                self.send_probe();
                None
            }
        }
    }

    /// Who had sent it may be gone, and then no sequence number will tell.
    fn tell_history_lost(&self, payloads: Option<u64>, cause: LossCause) {
        if let Topic::Namespace(namespace) = &self.topic {
            self.shared.counters.histories_lost.inc();
            self.shared.emit(ClusterEvent::HistoryLost {
                namespace: namespace.clone(),
                payloads,
                cause,
            });
        }
    }

    fn on_message(&mut self, payload: Bytes) -> Option<Input> {
        let head = match self.shared.wire.peek(&payload) {
            Ok(head) => head,
            Err(reject) => {
                self.shared.rejected(None, &reject);
                return None;
            }
        };
        let own = head.origin == self.shared.me;
        let is_probe = || {
            let number = head.seq.wrapping_sub(self.probe.nonce);
            head.kind == FrameKind::Probe && number <= self.probe.more
        };
        if own && !is_probe() {
            return None;
        }
        let frame = match self.shared.wire.open(self.lane, payload) {
            Ok(frame) => frame,
            Err(reject) => {
                self.shared.rejected(Some(head.origin), &reject);
                return None;
            }
        };
        if own {
            self.probe.came_back = true;
            return self.probe_back();
        }
        let now = Instant::now().into_std();
        self.shared.membership().on_frame(now, head.origin);
        self.shared.counters.frames_received.inc();
        Some(match head.kind {
            FrameKind::Probe => Input::PeerProbe(head.origin),
            FrameKind::Data | FrameKind::Tail | FrameKind::Void => Input::Frame(frame),
        })
    }
}

/// The output of a future that may not be there, once; pending otherwise.
async fn poll_option<T>(slot: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match slot {
        Some(future) => {
            let output = future.await;
            *slot = None;
            output
        }
        None => std::future::pending().await,
    }
}

async fn recv(subscription: &mut Option<Subscription>) -> Option<Event> {
    match subscription {
        Some(subscription) => subscription.recv().await,
        None => std::future::pending().await,
    }
}

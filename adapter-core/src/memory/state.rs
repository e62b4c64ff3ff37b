//! Who is connected to a bus, who subscribes to what, and what becomes of a publish.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{sync::oneshot, time::Instant};

use super::{
    courier::{Flight, Flights},
    faults::{Arrival, Dice, Faults},
};
use crate::{
    error::{Error, ErrorKind, Result},
    transport::{
        BufferLimits, Continuity, LinkSender, LossCause, Receipt, Subscription, SubscriptionSender,
        Topic,
    },
};

/// How many calls a frozen bus keeps waiting; more are refused as [`ErrorKind::Full`].
const MAX_HELD: usize = 65_536;
/// Subscriptions that may be gone but not yet noticed before a sweep looks for them.
const SWEEP_AFTER: usize = 64;

#[derive(Debug)]
struct Node {
    link: LinkSender,
    limits: BufferLimits,
    cut: bool,
    deaf: bool,
}

#[derive(Debug)]
struct Subscriber {
    /// Rises with the time of subscribing, over all topics.
    number: u64,
    node: u64,
    sender: SubscriptionSender,
    /// Payloads published while the node was cut off.
    missed: u64,
    /// Payloads on their way that nothing may overtake, and when the last of them arrives.
    in_flight: u32,
    last_due: Option<Instant>,
}

/// A call that waits for a frozen bus.
#[derive(Debug)]
enum Held {
    Publish {
        node: u64,
        topic: Topic,
        payload: Bytes,
        done: oneshot::Sender<Receipt>,
    },
    Subscribe {
        node: u64,
        thawed: oneshot::Sender<()>,
    },
}

/// What came of a call: an answer at once, or one that a frozen bus owes.
pub(super) enum Answer<T, U> {
    Now(T),
    /// Closed without a value if the link is lost first.
    Later(oneshot::Receiver<U>),
}

#[derive(Debug)]
pub(super) struct State {
    running: bool,
    /// The calls that wait, while the bus is frozen.
    held: Option<Vec<Held>>,
    nodes: BTreeMap<u64, Node>,
    /// The subscribers of a topic, those of one node side by side, else in order of subscribing.
    topics: HashMap<Topic, Vec<Subscriber>>,
    next_node: u64,
    next_subscriber: u64,
    /// Upper bound of the number of subscribers, and the number at which a sweep is due.
    subscribers: usize,
    sweep_at: usize,
    dice: Option<Dice>,
    pub(super) flights: Flights,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            running: true,
            held: None,
            nodes: BTreeMap::new(),
            topics: HashMap::new(),
            next_node: 0,
            next_subscriber: 0,
            subscribers: 0,
            sweep_at: SWEEP_AFTER,
            dice: None,
            flights: Flights::default(),
        }
    }

    pub(super) fn connect(&mut self, link: LinkSender, limits: BufferLimits) -> u64 {
        let number = self.next_node;
        self.next_node += 1;
        if self.running {
            link.up();
        }
        self.nodes.insert(
            number,
            Node {
                link,
                limits,
                cut: false,
                deaf: false,
            },
        );
        number
    }

    /// Forgets a node and ends its subscriptions. Returns whether it was connected.
    pub(super) fn disconnect(&mut self, node: u64) -> bool {
        let Some(gone) = self.nodes.remove(&node) else {
            return false;
        };
        self.drop_held(node);
        self.topics.retain(|_, subscribers| {
            subscribers.retain(|subscriber| {
                if subscriber.node == node {
                    subscriber.sender.end();
                }
                subscriber.node != node
            });
            !subscribers.is_empty()
        });
        gone.link.closed(None);
        true
    }

    pub(super) fn publish(
        &mut self,
        from: u64,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Answer<Receipt, Receipt>> {
        self.require_link(from, "memory: publish")?;
        let Some(held) = &mut self.held else {
            return Ok(Answer::Now(self.route(from, topic, &payload)));
        };
        let (done, answer) = oneshot::channel();
        hold(held, "memory: publish", || Held::Publish {
            node: from,
            topic: topic.clone(),
            payload,
            done,
        })?;
        Ok(Answer::Later(answer))
    }

    pub(super) fn subscribe(
        &mut self,
        node: u64,
        topic: &Topic,
    ) -> Result<Answer<Subscription, ()>> {
        let limits = self.require_link(node, "memory: subscribe")?;
        if let Some(held) = &mut self.held {
            let (thawed, answer) = oneshot::channel();
            hold(held, "memory: subscribe", || Held::Subscribe {
                node,
                thawed,
            })?;
            return Ok(Answer::Later(answer));
        }
        self.sweep();
        let (sender, subscription) = Subscription::channel(limits);
        let subscribers = self.topics.entry(topic.clone()).or_default();
        let place = subscribers.partition_point(|other| other.node <= node);
        subscribers.insert(
            place,
            Subscriber {
                number: self.next_subscriber,
                node,
                sender,
                missed: 0,
                in_flight: 0,
                last_due: None,
            },
        );
        self.next_subscriber += 1;
        self.subscribers += 1;
        Ok(Answer::Now(subscription))
    }

    /// Checks that the node can reach the bus; a session that its watcher suspects is renewed first.
    fn require_link(&mut self, number: u64, operation: &'static str) -> Result<BufferLimits> {
        let refuse = |kind, message| Err(Error::new(kind, operation, message));
        let Some(node) = self.nodes.get_mut(&number) else {
            return refuse(ErrorKind::Closed, "the transport is closed");
        };
        let limits = node.limits;
        if node.cut {
            return refuse(ErrorKind::LinkDown, "the link is cut");
        }
        if !self.running {
            return refuse(ErrorKind::LinkDown, "the bus is stopped");
        }
        if node.link.suspected().now_or_never().is_some() {
            node.deaf = false;
            node.link
                .down("connected but not delivering: probes did not come back");
            self.resume(number, |_| Continuity::Unknown);
        }
        Ok(limits)
    }

    /// Hands a payload to every subscriber it can reach. The receipt counts their nodes.
    fn route(&mut self, from: u64, topic: &Topic, payload: &Bytes) -> Receipt {
        let Some(subscribers) = self.topics.get_mut(topic) else {
            return Receipt::with_receivers(0);
        };
        subscribers.retain(|subscriber| !subscriber.sender.is_closed());
        let (mut receivers, mut last) = (0, None);
        for subscriber in subscribers.iter_mut() {
            let Some(node) = self.nodes.get(&subscriber.node) else {
                continue;
            };
            if node.cut {
                subscriber.missed += 1;
                continue;
            }
            if self
                .dice
                .as_ref()
                .is_some_and(|dice| !dice.connects(from, subscriber.node))
            {
                continue;
            }
            if last != Some(subscriber.node) {
                last = Some(subscriber.node);
                receivers += 1;
            }
            if node.deaf {
                continue;
            }
            match &mut self.dice {
                None => subscriber.send(topic, payload, Arrival::NOW, &mut self.flights),
                Some(dice) => {
                    for arrival in dice.arrivals() {
                        subscriber.send(topic, payload, arrival, &mut self.flights);
                    }
                }
            }
        }
        Receipt::with_receivers(receivers)
    }

    /// Hands over what is due; returns when the next payload is.
    pub(super) fn deliver_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(flight) = self.flights.pop_due(now) {
            let Some(subscriber) = find(&mut self.topics, &flight) else {
                continue;
            };
            if flight.ordered {
                subscriber.in_flight -= 1;
            }
            if !self.nodes.get(&subscriber.node).is_none_or(|n| n.deaf) {
                subscriber.sender.push(flight.payload);
            }
        }
        self.flights.next_due()
    }

    pub(super) fn stop(&mut self) {
        if !std::mem::replace(&mut self.running, false) {
            return;
        }
        self.held = None;
        self.lose_flights(None);
        for node in self.nodes.values() {
            node.link.down("the bus is stopped");
        }
    }

    pub(super) fn start(&mut self) {
        if std::mem::replace(&mut self.running, true) {
            return;
        }
        let back: Vec<u64> = self.nodes.keys().copied().collect();
        for number in back {
            self.resume(number, |_| Continuity::Unknown);
        }
    }

    pub(super) fn freeze(&mut self) {
        if self.running {
            self.held.get_or_insert_default();
        }
    }

    pub(super) fn thaw(&mut self) {
        for held in self.held.take().into_iter().flatten() {
            match held {
                Held::Publish {
                    node,
                    topic,
                    payload,
                    done,
                } => {
                    let receipt = self.route(node, &topic, &payload);
                    // The caller may have given up; the payload goes its way all the same, as with any broker.
                    let _ = done.send(receipt);
                }
                Held::Subscribe { thawed, .. } => {
                    let _ = thawed.send(());
                }
            }
        }
    }

    pub(super) fn cut(&mut self, number: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        node.cut = true;
        node.link.down("the link is cut");
        self.drop_held(number);
        self.lose_flights(Some(number));
    }

    pub(super) fn heal(&mut self, number: u64) {
        let Some(node) = self.nodes.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut node.cut, false) && self.running {
            self.resume(number, |missed| match missed {
                0 => Continuity::Unbroken { replayed: 0 },
                count => Continuity::Lost {
                    count: Some(count),
                    cause: LossCause::LinkDown,
                },
            });
        }
    }

    pub(super) fn deafen(&mut self, number: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.deaf = true;
        }
    }

    pub(super) fn set_faults(&mut self, faults: Option<Faults>) {
        self.dice = faults.map(Dice::new);
    }

    /// Whether payloads are, or may soon be, on their way for some time.
    pub(super) fn needs_courier(&self) -> bool {
        self.dice.as_ref().is_some_and(Dice::delays) || self.flights.next_due().is_some()
    }

    /// Tells a node's subscriptions that they are registered again, in the order they were made, then the link.
    fn resume(&mut self, number: u64, continuity: impl Fn(u64) -> Continuity) {
        let Some(node) = self.nodes.get_mut(&number).filter(|node| !node.cut) else {
            return;
        };
        node.deaf = false;
        let mut subscribers: Vec<&mut Subscriber> = self
            .topics
            .values_mut()
            .flatten()
            .filter(|subscriber| subscriber.node == number)
            .collect();
        subscribers.sort_unstable_by_key(|subscriber| subscriber.number);
        for subscriber in subscribers {
            let missed = std::mem::take(&mut subscriber.missed);
            subscriber.sender.resumed(continuity(missed));
        }
        node.link.up();
    }

    /// Loses what is on its way to one node, or to all.
    fn lose_flights(&mut self, to: Option<u64>) {
        let topics = &mut self.topics;
        self.flights.retain(|flight| {
            let Some(subscriber) = find(topics, flight) else {
                return false;
            };
            let lost = to.is_none_or(|node| node == subscriber.node);
            if lost {
                subscriber.missed += 1;
                subscriber.in_flight -= u32::from(flight.ordered);
            }
            !lost
        });
    }

    /// Gives up the calls of one node that wait for a frozen bus.
    fn drop_held(&mut self, gone: u64) {
        if let Some(held) = &mut self.held {
            held.retain(|held| match held {
                Held::Publish { node, .. } | Held::Subscribe { node, .. } => *node != gone,
            });
        }
    }

    /// Forgets dropped subscriptions to topics that nobody publishes to; costs constant time per subscribe on average.
    fn sweep(&mut self) {
        if self.subscribers < self.sweep_at {
            return;
        }
        self.topics.retain(|_, subscribers| {
            subscribers.retain(|subscriber| !subscriber.sender.is_closed());
            !subscribers.is_empty()
        });
        self.subscribers = self.topics.values().map(Vec::len).sum();
        self.sweep_at = 2 * self.subscribers + SWEEP_AFTER;
    }

    #[cfg(test)]
    pub(super) fn subscriber_count(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }
}

impl Subscriber {
    fn send(&mut self, topic: &Topic, payload: &Bytes, arrival: Arrival, flights: &mut Flights) {
        let waits = arrival.ordered && self.in_flight > 0;
        if arrival.after == Duration::ZERO && !waits {
            self.sender.push(payload.clone());
            return;
        }
        let mut due = Instant::now() + arrival.after;
        if arrival.ordered {
            due = self.last_due.map_or(due, |last| last.max(due));
        }
        let flew = flights.depart(Flight {
            due,
            number: 0,
            topic: topic.clone(),
            subscriber: self.number,
            payload: payload.clone(),
            ordered: arrival.ordered,
        });
        if !flew {
            self.sender.lagged(1);
        } else if arrival.ordered {
            self.in_flight += 1;
            self.last_due = Some(due);
        }
    }
}

fn find<'a>(
    topics: &'a mut HashMap<Topic, Vec<Subscriber>>,
    flight: &Flight,
) -> Option<&'a mut Subscriber> {
    let subscribers = topics.get_mut(&flight.topic)?;
    subscribers
        .iter_mut()
        .find(|subscriber| subscriber.number == flight.subscriber)
}

fn hold(held: &mut Vec<Held>, operation: &'static str, call: impl FnOnce() -> Held) -> Result<()> {
    if held.len() >= MAX_HELD {
        let message = format!("the bus is frozen and {MAX_HELD} calls already wait");
        return Err(Error::new(ErrorKind::Full, operation, message));
    }
    held.push(call());
    Ok(())
}

//! A long replay is waited for, although our own probe is behind it.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, Error, ErrorKind, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{
        BufferLimits, Continuity, Event, LinkState, Receipt, Subscription, SubscriptionSender,
        Topic, Transport,
    },
};
use socketioxide_core::adapter::CoreAdapter;
use support::{
    Ack, Node, event, eventually, everyone,
    odd::{Odd, Oddity},
    wire,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// What comes back, and how slowly: for a minute.
const BACKLOG: u64 = 120;
const EACH: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Flows,
    /// Away: everything is kept.
    Held,
    /// Back: what was kept comes, one by one, and then the rest.
    Replays,
}

/// A transport that gives back what was missed on namespaces, slowly.
#[derive(Debug)]
struct Slow {
    mode: watch::Sender<Mode>,
    /// What comes on other topics comes after that.
    one_queue: bool,
    /// The first probe of the new session comes too early.
    refuses: AtomicBool,
    subscriptions: AtomicUsize,
}

#[async_trait::async_trait]
impl Oddity for Slow {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        let is_back = *self.mode.borrow() == Mode::Replays;
        if is_back && *topic == Topic::Cluster && self.refuses.swap(false, Relaxed) {
            return Err(Error::new(ErrorKind::LinkDown, "publish", "not yet"));
        }
        inner.publish(topic, payload).await
    }
    async fn subscribe(&self, inner: &MemoryTransport, topic: &Topic) -> Result<Subscription> {
        let inner = inner.subscribe(topic).await?;
        let replays = matches!(topic, Topic::Namespace(_));
        if !replays && !self.one_queue {
            return Ok(inner);
        }
        self.subscriptions.fetch_add(1, Relaxed);
        let (sender, subscription) = Subscription::channel(BufferLimits::default());
        let mode = self.mode.subscribe();
        tokio::spawn(async move {
            match replays {
                true => replay(inner, sender, mode).await,
                false => follow(inner, sender, mode).await,
            }
        });
        Ok(subscription)
    }
}

async fn replay(
    mut inner: Subscription,
    sender: SubscriptionSender,
    mut mode: watch::Receiver<Mode>,
) {
    let mut away = false;
    while let Some(event) = inner.recv().await {
        away |= *mode.borrow() == Mode::Held;
        let _ = mode.wait_for(|mode| *mode != Mode::Held).await;
        if std::mem::take(&mut away) {
            sender.resumed(Continuity::Unbroken { replayed: BACKLOG });
        }
        if *mode.borrow() == Mode::Replays {
            sleep(EACH).await;
        }
        pass(&sender, event);
    }
}

async fn follow(
    mut inner: Subscription,
    sender: SubscriptionSender,
    mut mode: watch::Receiver<Mode>,
) {
    loop {
        let flows = *mode.borrow_and_update() == Mode::Flows;
        tokio::select! {
            Ok(()) = mode.changed() => if *mode.borrow() == Mode::Replays {
                sender.resumed(Continuity::Unknown);
            },
            Some(event) = inner.recv(), if flows => pass(&sender, event),
            else => break,
        }
    }
}

fn pass(sender: &SubscriptionSender, event: Event) {
    if let Event::Message(payload) = event {
        sender.push(payload);
    }
}

/// Lets a node be away, and come back to what it missed; all of it arrives on the subscriptions that there were.
async fn all_of_it_arrives(one_queue: bool) {
    let bus = MemoryBus::new();
    let slow = Slow {
        mode: watch::Sender::new(Mode::Flows),
        one_queue,
        refuses: AtomicBool::new(true),
        subscriptions: AtomicUsize::new(0),
    };
    let slow = Arc::new(Odd(bus.connect(), slow));
    let one = Node::new(bus.connect(), ClusterConfig::default());
    let two = Node::over(slow.clone(), ClusterConfig::default());
    let (sending, others) = one.namespace("/").await;
    let (receiving, sockets) = two.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    let other = others.add(Ack::Never);
    let heard = || {
        let mut heard = sockets.received(sid);
        heard.retain(|it| *it != wire("meanwhile"));
        heard
    };
    eventually("they know each other", || one.cluster.nodes().len() == 1).await;
    let mut events = one.cluster.events();
    let subscriptions = slow.1.subscriptions.load(Relaxed);
    slow.1.mode.send_replace(Mode::Held);
    let words: Vec<_> = (0..BACKLOG).map(|number| number.to_string()).collect();
    for word in &words {
        let sent = sending.broadcast(event("/", word), everyone()).await;
        sent.unwrap();
        one.cluster.flush().await.unwrap();
    }
    slow.1.mode.send_replace(Mode::Replays);
    let start = Instant::now();
    if !one_queue {
        // What the node has to say does not wait for all that.
        eventually("the link delivers", || {
            two.cluster.link().state() == LinkState::Up
        })
        .await;
        let sent = receiving.broadcast(event("/", "meanwhile"), everyone());
        sent.await.unwrap();
        timeout(Duration::from_secs(5), two.cluster.flush())
            .await
            .unwrap()
            .unwrap();
        assert!(heard().len() < words.len(), "it was over");
        eventually("it arrives", || {
            others.received(other).last() == Some(&wire("meanwhile"))
        })
        .await;
    }
    let arrive = async {
        while heard().len() < words.len() {
            sleep(EACH).await;
        }
    };
    timeout(Duration::from_secs(120), arrive).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(50), "it was not slow");
    slow.1.mode.send_replace(Mode::Flows);
    eventually("the link delivers", || {
        two.cluster.link().state() == LinkState::Up
    })
    .await;
    let expected: Vec<_> = words.iter().map(|word| wire(word)).collect();
    assert_eq!(heard(), expected);
    assert_eq!(slow.1.subscriptions.load(Relaxed), subscriptions);
    let stats = two.cluster.stats();
    assert_eq!((stats.envelopes_lost, stats.probes_lost), (0, 0));
    while let Some(event) = events.try_recv() {
        assert!(!matches!(event, ClusterEvent::Left { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn however_long_it_takes() {
    all_of_it_arrives(false).await;
}

#[tokio::test(start_paused = true)]
async fn although_all_else_is_behind_it() {
    all_of_it_arrives(true).await;
}

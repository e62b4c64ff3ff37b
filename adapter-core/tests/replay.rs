//! A long replay is waited for, although our own probe is behind it.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use socketioxide_adapter_core::{
    ClusterConfig, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{BufferLimits, Continuity, Event, Subscription, Topic, Transport},
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

/// What comes back, and how slowly.
const BACKLOG: u64 = 24;
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
    subscriptions: AtomicUsize,
}

#[async_trait::async_trait]
impl Oddity for Slow {
    async fn subscribe(&self, inner: &MemoryTransport, topic: &Topic) -> Result<Subscription> {
        let mut inner = inner.subscribe(topic).await?;
        if !matches!(topic, Topic::Namespace(_)) {
            return Ok(inner);
        }
        self.subscriptions.fetch_add(1, Relaxed);
        let (sender, subscription) = Subscription::channel(BufferLimits::default());
        let mut mode = self.mode.subscribe();
        tokio::spawn(async move {
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
                if let Event::Message(payload) = event {
                    sender.push(payload);
                }
            }
        });
        Ok(subscription)
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_it_arrives_on_the_subscription_that_there_was() {
    let bus = MemoryBus::new();
    let slow = Slow {
        mode: watch::Sender::new(Mode::Flows),
        subscriptions: AtomicUsize::new(0),
    };
    let slow = Arc::new(Odd(bus.connect(), slow));
    let one = Node::new(bus.connect(), ClusterConfig::default());
    let two = Node::over(slow.clone(), ClusterConfig::default());
    let (sending, _) = one.namespace("/").await;
    let (_receiving, sockets) = two.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    eventually("they know each other", || one.cluster.nodes().len() == 1).await;
    slow.1.mode.send_replace(Mode::Held);
    let words: Vec<_> = (0..BACKLOG).map(|number| number.to_string()).collect();
    for word in &words {
        let sent = sending.broadcast(event("/", word), everyone()).await;
        sent.unwrap();
        one.cluster.flush().await.unwrap();
    }
    slow.1.mode.send_replace(Mode::Replays);
    let start = Instant::now();
    let arrive = async {
        while sockets.received(sid).len() < words.len() {
            sleep(EACH).await;
        }
    };
    timeout(Duration::from_secs(60), arrive).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(10), "it was not slow");
    let expected: Vec<_> = words.iter().map(|word| wire(word)).collect();
    assert_eq!(sockets.received(sid), expected);
    assert_eq!(slow.1.subscriptions.load(Relaxed), 1);
    assert_eq!(two.cluster.stats().envelopes_lost, 0);
}

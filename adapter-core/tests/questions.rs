//! Queries that a peer cannot answer at once: it is deaf, not subscribed yet, or has left the namespace.

mod support;

use std::{sync::Arc, time::Duration};

use socketioxide_adapter_core::{
    ClusterConfig, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{Subscription, Topic, Transport},
};
use socketioxide_core::adapter::CoreAdapter;
use support::{
    Ack, Node, eventually, everyone,
    odd::{Odd, Oddity},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

/// A query must not end by this.
const NEVER: Duration = Duration::from_secs(3600);

fn config() -> ClusterConfig {
    ClusterConfig::default().with_request_timeout(NEVER)
}

#[tokio::test(start_paused = true)]
async fn a_question_that_a_deaf_peer_missed_is_answered_once_it_hears() {
    let bus = MemoryBus::new();
    let deaf = Arc::new(bus.connect());
    let a = Node::new(bus.connect(), config());
    let b = Node::new(deaf.clone(), config());
    let (asking, _) = a.namespace("/").await;
    let (_answering, sockets) = b.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    deaf.deafen();
    let began = Instant::now();
    let found = asking.fetch_sockets(everyone()).await.unwrap();
    assert_eq!(found.iter().map(|s| s.id).collect::<Vec<_>>(), [sid]);
    let rooms = asking.rooms(everyone()).await.unwrap();
    assert!(rooms.is_empty());
    // Two probes, each lost after 2 s, make a node doubt its link.
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_node_that_leaves_the_namespace() {
    let bus = MemoryBus::new();
    let deaf = Arc::new(bus.connect());
    let a = Node::new(bus.connect(), config());
    let b = Node::new(deaf.clone(), config());
    let (asking, _) = a.namespace("/").await;
    let (leaving, sockets) = b.namespace("/").await;
    sockets.add(Ack::Never);
    deaf.deafen();
    let began = Instant::now();
    let question = tokio::spawn(async move { asking.fetch_sockets(everyone()).await });
    asked(&a).await;
    leaving.close().await.unwrap();
    let found = question.await.unwrap().unwrap();
    assert_eq!(found.len(), 0);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

/// A transport that subscribes to a namespace only when it is given leave.
#[derive(Debug)]
struct Gated(Semaphore);

#[async_trait::async_trait]
impl Oddity for Gated {
    async fn subscribe(&self, inner: &MemoryTransport, topic: &Topic) -> Result<Subscription> {
        if matches!(topic, Topic::Namespace(_)) {
            self.0.acquire().await.map(SemaphorePermit::forget).ok();
        }
        inner.subscribe(topic).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_came_before_a_new_namespace_was_subscribed_is_answered_once_it_is() {
    let bus = MemoryBus::new();
    let gated = Arc::new(Odd(bus.connect(), Gated(Semaphore::new(0))));
    let a = Node::new(bus.connect(), config());
    let (asking, _) = a.namespace("/new").await;
    let b = Arc::new(Node::over(gated.clone(), config()));
    let starting = tokio::spawn({
        let b = b.clone();
        async move { b.namespace("/new").await }
    });
    eventually("the node is known", || a.cluster.nodes().len() == 1).await;
    let question = tokio::spawn(async move { asking.fetch_sockets(everyone()).await });
    asked(&a).await;
    assert!(!question.is_finished(), "the node announced its namespace");
    gated.1.0.add_permits(1);
    let (_answering, _) = starting.await.unwrap();
    let found = timeout(Duration::from_secs(5), question).await;
    assert_eq!(found.unwrap().unwrap().unwrap().len(), 0);
}

/// Waits until the broker has the first question of `node`.
async fn asked(node: &Node) {
    eventually("a question is asked", || {
        node.cluster.stats().envelopes_queued > 0
    })
    .await;
    node.cluster.flush().await.ok();
}

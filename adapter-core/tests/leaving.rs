//! A node that leaves says only what it knows of the messages that were still on their way.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, LeaveReason, PublishMode, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{Receipt, Topic, Transport},
};
use socketioxide_core::adapter::CoreAdapter;
use support::{
    Ack, Node, event, eventually, everyone,
    odd::{Odd, Oddity},
    wire,
};
use tokio::sync::watch;

/// A transport whose payloads to namespaces arrive while their confirmations do not, once it is told to be silent.
#[derive(Debug, Default)]
struct Silent(watch::Sender<bool>);

#[async_trait::async_trait]
impl Oddity for Silent {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        let receipt = inner.publish(topic, payload).await;
        if matches!(topic, Topic::Namespace(_)) {
            let mut silent = self.0.subscribe();
            silent.wait_for(|silent| !silent).await.ok();
        }
        receipt
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_at_the_end_is_not_called_unsent() {
    let bus = MemoryBus::new();
    let silent = Arc::new(Odd(bus.connect(), Silent::default()));
    let config = ClusterConfig::default().with_publish_mode(PublishMode::Confirmed);
    let leaving = Node::over(silent.clone(), config);
    let staying = Node::new(bus.connect(), ClusterConfig::default());
    let (sending, _) = leaving.namespace("/").await;
    let (_receiving, sockets) = staying.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    eventually("they know each other", || {
        leaving.cluster.nodes().len() == 1
    })
    .await;
    let mut events = leaving.cluster.events();
    let mut seen = staying.cluster.events();
    silent.1.0.send_replace(true);
    let call = tokio::spawn(async move { sending.broadcast(event("/", "late"), everyone()).await });
    eventually("it arrives", || sockets.received(sid) == [wire("late")]).await;
    let _ = leaving.cluster.shutdown().await;
    let error = call.await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("may have been delivered"),
        "{error}"
    );
    while let Some(event) = events.try_recv() {
        assert!(!matches!(event, ClusterEvent::Unsent { .. }), "{event:?}");
    }
    assert_eq!(leaving.cluster.stats().envelopes_unsent, 0);
    // It has said goodbye, although not everything was confirmed in time.
    let reason = loop {
        if let Some(ClusterEvent::Left { reason, .. }) = seen.recv().await {
            break reason;
        }
    };
    assert_eq!(reason, LeaveReason::Bye);
}

#[tokio::test(start_paused = true)]
async fn what_a_namespace_has_taken_is_sent_although_it_is_left() {
    let bus = MemoryBus::new();
    let leaving = Node::new(bus.connect(), ClusterConfig::default());
    let staying = Node::new(bus.connect(), ClusterConfig::default());
    let (sending, _) = leaving.namespace("/").await;
    let (_receiving, sockets) = staying.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    eventually("they know each other", || {
        leaving.cluster.nodes().len() == 1
    })
    .await;
    let words: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
    for word in &words {
        let sent = sending.broadcast(event("/", word), everyone()).await;
        sent.unwrap();
    }
    sending.close().await.unwrap();
    leaving.cluster.shutdown().await.unwrap();
    eventually("all arrive", || sockets.received(sid).len() >= words.len()).await;
    let expected: Vec<_> = words.iter().map(|word| wire(word)).collect();
    assert_eq!(sockets.received(sid), expected);
}

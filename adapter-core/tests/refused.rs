//! What a transport refuses at once is known not to be sent, and told so to the last message.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, Error, ErrorKind, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{Receipt, Topic, Transport},
};
use socketioxide_core::adapter::CoreAdapter;
use support::{
    Ack, Node, event, eventually, everyone,
    odd::{Odd, Oddity},
    wire,
};
use tokio::time::timeout;

/// A transport that refuses payloads to namespaces once it is told to.
#[derive(Debug, Default)]
struct Refusing(AtomicBool);

#[async_trait::async_trait]
impl Oddity for Refusing {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        if matches!(topic, Topic::Namespace(_)) && self.0.load(Relaxed) {
            return Err(Error::new(ErrorKind::LinkDown, "publish", "refused"));
        }
        inner.publish(topic, payload).await
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_it_is_told_as_unsent_and_nothing_as_lost() {
    // More than one frame holds.
    const COUNT: u64 = 700;
    let bus = MemoryBus::new();
    let refusing = Arc::new(Odd(bus.connect(), Refusing::default()));
    let config = ClusterConfig::default().with_retry_for(Duration::from_secs(1));
    let one = Node::over(refusing.clone(), config);
    let two = Node::new(bus.connect(), ClusterConfig::default());
    let (sending, _) = one.namespace("/").await;
    let (_receiving, sockets) = two.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    eventually("they know each other", || one.cluster.nodes().len() == 1).await;
    let mut events = one.cluster.events();
    refusing.1.0.store(true, Relaxed);
    for number in 0..COUNT {
        let emitted = sending.broadcast(event("/", &number.to_string()), everyone());
        emitted.await.unwrap();
    }
    let mut unsent = 0;
    while unsent < COUNT {
        let event = timeout(Duration::from_secs(60), events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("only {unsent} of {COUNT} were told"));
        if let Some(ClusterEvent::Unsent { count, .. }) = event {
            unsent += count;
        }
    }
    assert_eq!(unsent, COUNT);
    refusing.1.0.store(false, Relaxed);
    let after = sending.broadcast(event("/", "after"), everyone());
    after.await.unwrap();
    eventually("the next one arrives", || {
        sockets.received(sid) == [wire("after")]
    })
    .await;
    assert_eq!(two.cluster.stats().envelopes_lost, 0);
}

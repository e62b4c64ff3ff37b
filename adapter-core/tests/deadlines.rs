//! A call ends by its one deadline, however many things it has to wait for.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_core::{
    ClusterConfig, PublishMode, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{BufferLimits, Receipt, Topic, Transport},
};
use socketioxide_core::adapter::CoreAdapter;
use support::{
    Ack, Node, event, eventually, everyone,
    odd::{Odd, Oddity},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A transport that confirms as many payloads to namespaces as it has permits for.
#[derive(Debug)]
struct Sparing(Semaphore);

#[async_trait::async_trait]
impl Oddity for Sparing {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        let receipt = inner.publish(topic, payload).await;
        if matches!(topic, Topic::Namespace(_)) {
            self.0.acquire().await.map(SemaphorePermit::forget).ok();
        }
        receipt
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_spent_on_a_full_lane_is_not_spent_again_on_the_broker() {
    let bus = MemoryBus::new();
    let sparing = Arc::new(Odd(bus.connect(), Sparing(Semaphore::new(1_000))));
    let config = ClusterConfig::default()
        .with_publish_mode(PublishMode::Confirmed)
        .with_publish_timeout(TIMEOUT)
        .with_lane(BufferLimits::new(1, 1 << 20));
    let node = Node::over(sparing.clone(), config);
    let (sending, sockets) = node.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    sparing.1.0.forget_permits(1_000);
    let first = {
        let sending = sending.clone();
        tokio::spawn(async move { sending.broadcast(event("/", "first"), everyone()).await })
    };
    eventually("the lane is full", || sockets.received(sid).len() == 1).await;
    let begin = Instant::now();
    let second = tokio::spawn(async move {
        let sent = sending.broadcast(event("/", "second"), everyone()).await;
        (sent.map_err(|error| error.to_string()), begin.elapsed())
    });
    sleep(TIMEOUT - Duration::from_secs(1)).await;
    sparing.1.0.add_permits(1);
    first.await.unwrap().unwrap();
    let (sent, took) = second.await.unwrap();
    assert!(sent.unwrap_err().contains("may have been delivered"));
    assert!(took <= TIMEOUT + Duration::from_millis(100), "{took:?}");
}

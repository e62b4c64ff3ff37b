//! What the broker no longer has is told, also if nobody is left who could say how much it was.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};

use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{
        BufferLimits, Continuity, Event, LossCause, Subscription, SubscriptionSender, Topic,
        Transport,
    },
};
use support::{
    Node,
    odd::{Odd, Oddity},
};
use tokio::time::{Duration, timeout};

/// A transport that says so when it is told to.
#[derive(Debug, Default)]
struct Forgetful(Mutex<Vec<SubscriptionSender>>);

impl Forgetful {
    fn forget(&self, count: Option<u64>, cause: LossCause) {
        for sender in &*self.0.lock().unwrap() {
            sender.resumed(Continuity::Lost { count, cause });
        }
    }
}

#[async_trait::async_trait]
impl Oddity for Forgetful {
    async fn subscribe(&self, inner: &MemoryTransport, topic: &Topic) -> Result<Subscription> {
        let mut inner = inner.subscribe(topic).await?;
        let (sender, subscription) = Subscription::channel(BufferLimits::default());
        self.0.lock().unwrap().push(sender.clone());
        tokio::spawn(async move {
            while let Some(Event::Message(payload)) = inner.recv().await {
                sender.push(payload);
            }
        });
        Ok(subscription)
    }
}

#[tokio::test(start_paused = true)]
async fn each_namespace_tells_it_once() {
    let bus = MemoryBus::new();
    let forgetful = Arc::new(Odd(bus.connect(), Forgetful::default()));
    let node = Node::over(
        forgetful.clone() as Arc<dyn Transport>,
        ClusterConfig::default(),
    );
    let (_adapter, _) = node.namespace("/chat").await;
    let mut events = node.cluster.events();
    for (payloads, cause) in [(Some(3), LossCause::Trimmed), (None, LossCause::Reset)] {
        forgetful.1.forget(payloads, cause);
        let told = async {
            loop {
                let event = events.recv().await.unwrap();
                if matches!(event, ClusterEvent::HistoryLost { .. }) {
                    return event;
                }
            }
        };
        let told = timeout(Duration::from_secs(5), told).await.unwrap();
        let expected = ClusterEvent::HistoryLost {
            namespace: "/chat".into(),
            payloads,
            cause,
        };
        assert_eq!(told, expected);
    }
    assert_eq!(node.cluster.stats().histories_lost, 2);
}

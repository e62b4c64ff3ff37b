//! A node that publishes all the time, one that listens, and the ledger between them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use socketioxide_adapter_conformance::ledger::{Attempt, Entry, Gap, Ledger};
use socketioxide_adapter_core::transport::{Event, Subscription, Topic, Transport};
use socketioxide_adapter_redis::RedisTransport;
use tokio::task::JoinHandle;

use super::{SOON, soon};

/// Publishes that must arrive when all is well again.
const FINALS: usize = 20;

pub(crate) struct Load {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    publishing: JoinHandle<u64>,
    receiving: JoinHandle<()>,
    publisher: Arc<RedisTransport>,
    topic: Topic,
}

impl Load {
    /// Begins to publish every millisecond.
    pub(crate) async fn start(
        publisher: &Arc<RedisTransport>,
        receiver: &RedisTransport,
        topic: &Topic,
    ) -> Self {
        let ledger = Arc::new(Ledger::new());
        ledger.joins("receiver");
        let subscription = receiver.subscribe(topic).await.unwrap();
        let receiving = tokio::spawn(receive(ledger.clone(), subscription));
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, books, node, to) = (
            stop.clone(),
            ledger.clone(),
            publisher.clone(),
            topic.clone(),
        );
        let publishing = tokio::spawn(async move {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                publish(&node, &to, &books, number).await;
                number += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            number
        });
        Self {
            ledger,
            stop,
            publishing,
            receiving,
            publisher: publisher.clone(),
            topic: topic.clone(),
        }
    }

    /// Waits until so many more have arrived; returns how long that took.
    pub(crate) async fn goes_on(&self, count: u64) -> Duration {
        let received = || self.ledger.judge().receivers["receiver"].received;
        let (start, enough) = (Instant::now(), received() + count);
        let limit = 3 * SOON;
        while received() < enough {
            assert!(
                start.elapsed() < limit,
                "not within {limit:?}: delivery goes on"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        start.elapsed()
    }

    /// Ends the load and wants a balance without silent losses, duplicates and reorders; returns it as text.
    pub(crate) async fn balances(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let next = soon("the last publish", self.publishing).await.unwrap();
        self.ledger.finals();
        for number in (next..).take(FINALS) {
            publish(&self.publisher, &self.topic, &self.ledger, number).await;
        }
        soon("the finals", async {
            while !self.ledger.finals_arrived() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        self.receiving.abort();
        let judgement = self.ledger.judge();
        assert!(judgement.is_clean(), "{judgement}");
        judgement.to_string()
    }
}

async fn publish(node: &RedisTransport, topic: &Topic, ledger: &Ledger, number: u64) {
    let entry = Entry {
        publisher: 0,
        lane: 0,
        number,
    };
    ledger.attempts(entry);
    let payload = number.to_be_bytes().to_vec();
    let outcome = node.publish(topic, payload.into()).await;
    ledger.concludes(entry, Attempt::from(&outcome));
}

async fn receive(ledger: Arc<Ledger>, mut subscription: Subscription) {
    while let Some(event) = subscription.recv().await {
        match event {
            Event::Message(payload) => {
                let number = <[u8; 8]>::try_from(&payload[..]).unwrap();
                let entry = Entry {
                    publisher: 0,
                    lane: 0,
                    number: u64::from_be_bytes(number),
                };
                ledger.arrives("receiver", entry);
            }
            _ => ledger.reports("receiver", Gap::Here { count: None }),
        }
    }
}

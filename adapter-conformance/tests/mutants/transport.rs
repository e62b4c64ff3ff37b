//! The in-process transport with one bug.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::{Future, pending, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    memory::MemoryTransport,
    transport::{
        Capabilities, LinkSender, LinkState, LinkWatch, Receipt, Subscription, Topic, Transport,
        link,
    },
};
use tokio::{task::yield_now, time::sleep};

use crate::{
    bug::Bug,
    reading::{self, Reader},
};

/// The last payload of each topic of each cluster, for a bug that keeps it.
pub(crate) type History = Arc<Mutex<HashMap<(String, Topic), Bytes>>>;

/// A transport with a bug.
pub(crate) struct Mutant {
    bug: Bug,
    inner: Arc<MemoryTransport>,
    cluster: String,
    history: History,
    published: AtomicU64,
    subscribed: AtomicU64,
    own: Arc<Mutex<HashSet<Bytes>>>,
    /// Whether a cancelled call left something behind.
    spoiled: AtomicBool,
    /// The link of a bug that has one of its own.
    link: (LinkSender, LinkWatch),
}

impl Mutant {
    pub(crate) fn new(
        bug: Bug,
        inner: Arc<MemoryTransport>,
        cluster: &str,
        history: History,
    ) -> Self {
        let link = link();
        if bug == Bug::IgnoresSuspicion {
            link.0.up();
            let epoch = inner.link().status().epoch;
            tokio::spawn(mirror(inner.link(), epoch, link.0.clone()));
        }
        if bug == Bug::LeavesATask {
            tokio::spawn(pending::<()>());
        }
        Self {
            bug,
            inner,
            cluster: cluster.to_owned(),
            history,
            published: AtomicU64::new(0),
            subscribed: AtomicU64::new(0),
            own: Arc::default(),
            spoiled: AtomicBool::new(false),
            link,
        }
    }

    /// Where a payload really goes.
    fn place(&self, topic: &Topic) -> Topic {
        match topic {
            Topic::Namespace(path) if self.bug == Bug::FoldsCaseOfTopics => {
                Topic::Namespace(path.to_lowercase().into())
            }
            topic => topic.clone(),
        }
    }

    async fn publish_badly(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let (inner, topic) = (&self.inner, &self.place(topic));
        let count = self.published.fetch_add(1, Ordering::Relaxed) + 1;
        let is_large = payload.len() > 64 << 10;
        let too_large = payload.len() > inner.capabilities().max_payload;
        let accepted = Ok(Receipt::default());
        match self.bug {
            Bug::LosesOneInAThousand if count.is_multiple_of(1_000) => accepted,
            Bug::DoublesOneInAThousand if count.is_multiple_of(1_000) => {
                inner.publish(topic, payload.clone()).await?;
                inner.publish(topic, payload).await
            }
            Bug::SometimesTakesItsTime if count.is_multiple_of(250) => {
                yield_now().await;
                inner.publish(topic, payload).await
            }
            Bug::OvertakesTheLarge if is_large => {
                yield_now().await;
                inner.publish(topic, payload).await
            }
            Bug::TruncatesTheLarge if is_large => {
                inner.publish(topic, payload.slice(..64 << 10)).await
            }
            Bug::TakesMoreThanTheLimit if too_large => accepted,
            Bug::ReplaysTheLastToNewcomers => {
                let place = (self.cluster.clone(), topic.clone());
                self.history.lock().unwrap().insert(place, payload.clone());
                inner.publish(topic, payload).await
            }
            Bug::NeverEchoes => {
                self.own.lock().unwrap().insert(payload.clone());
                inner.publish(topic, payload).await
            }
            Bug::ConfirmsUnread => {
                let answer = inner.publish(topic, payload).now_or_never();
                answer.unwrap_or(accepted)
            }
            Bug::CallsATimeoutNotSent => {
                let answer = inner.publish(topic, payload).await;
                answer.map_err(|error| match error.kind() {
                    ErrorKind::Timeout => Error::new(ErrorKind::LinkDown, "mutant", "timed out"),
                    _ => error,
                })
            }
            Bug::WaitsInsteadOfFailing => {
                let mut link = inner.link();
                // Not even asked while up: a wait may yield, which would be another bug.
                if link.state() != LinkState::Up {
                    link.wait_for(|status| status.state == LinkState::Up).await;
                }
                inner.publish(topic, payload).await
            }
            Bug::OverstatesReceipts => {
                let receipt = inner.publish(topic, payload).await?;
                Ok(receipt
                    .receivers
                    .map_or(receipt, |n| Receipt::with_receivers(n + 1)))
            }
            Bug::LosesAfterACancelledOne => {
                if self.spoiled.swap(false, Ordering::Relaxed) {
                    return accepted;
                }
                let spoil = SpoilOnDrop(&self.spoiled);
                let answer = inner.publish(topic, payload).await;
                yield_now().await;
                std::mem::forget(spoil);
                answer
            }
            _ => inner.publish(topic, payload).await,
        }
    }
}

struct SpoilOnDrop<'a>(&'a AtomicBool);

impl Drop for SpoilOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follows a link without its ear for suspicions.
async fn mirror(mut from: LinkWatch, mut epoch: u64, to: LinkSender) {
    loop {
        let status = from.changed().await;
        if status.state != LinkState::Up || status.epoch > epoch {
            to.down(status.reason.unwrap_or_else(|| "lost".into()));
        }
        for _ in epoch..status.epoch {
            to.up();
        }
        epoch = status.epoch;
        if status.state == LinkState::Closed {
            to.closed(None);
            return;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Mutant {
    fn name(&self) -> &'static str {
        "mutant"
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = self.inner.capabilities();
        match self.bug {
            Bug::ClaimsALargerLimit => capabilities.with_max_payload(capabilities.max_payload + 1),
            _ => capabilities,
        }
    }

    // As `async_trait` would write it, so that a bug can act before the first poll.
    fn publish<'a, 'b, 'c>(
        &'a self,
        topic: &'b Topic,
        payload: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Receipt>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        if self.bug != Bug::PublishesUnpolled {
            return Box::pin(self.publish_badly(topic, payload));
        }
        let mut call = self.inner.publish(topic, payload);
        match (&mut call).now_or_never() {
            Some(answer) => Box::pin(ready(answer)),
            None => call,
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let topic = self.place(topic);
        let subscription = self.inner.subscribe(&topic).await?;
        let reader = Reader {
            bug: self.bug,
            number: self.subscribed.fetch_add(1, Ordering::Relaxed),
            own: self.own.clone(),
            link: self.inner.link(),
        };
        let place = (self.cluster.clone(), topic);
        let last = self.history.lock().unwrap().get(&place).cloned();
        Ok(reading::through(reader, subscription, last))
    }

    fn link(&self) -> LinkWatch {
        match self.bug {
            Bug::IgnoresSuspicion => self.link.1.clone(),
            _ => self.inner.link(),
        }
    }

    async fn close(&self) -> Result<()> {
        match self.bug {
            Bug::IgnoresClose => return Ok(()),
            Bug::HangsInCloseWithoutBroker => {
                while let Err(error) = self.inner.subscribe(&Topic::Cluster).await {
                    if error.kind() == ErrorKind::Closed {
                        break;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            }
            _ => {}
        }
        self.link.0.closed(None);
        self.inner.close().await
    }
}

impl fmt::Debug for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mutant({:?})", self.bug)
    }
}

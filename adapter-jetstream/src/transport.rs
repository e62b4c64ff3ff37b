//! JetStream as [`Connected`] drives it: namespaces go through the stream, the rest is left to NATS core.

use std::{convert::Infallible, sync::Arc};

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use bytes::Bytes;
use socketioxide_adapter_core::{
    Result,
    transport::{
        Capabilities, Connected, Delivery, Driver, Limits, Receipt, Replay, SessionUp, Topic,
        Topics,
    },
};
use socketioxide_adapter_nats::Nats;
use tokio_util::task::TaskTracker;

use crate::{JetStreamConfig, error, ids::Ids, position::Position, stream};

/// What a frame needs besides its payload: the header with its id.
const OVERHEAD: usize = 128;

/// A connection to a NATS server with JetStream, as [`Connected`] says. A publish in a namespace resolves when the server has
/// stored the payload. After a reconnect, a subscription to a namespace yields `Resumed` with what became of the stream, then
/// what was missed, then the rest; other topics go by [NATS core](socketioxide_adapter_nats::NatsTransport).
pub type JetStreamTransport = Connected<JetStream>;

/// What [`JetStreamTransport`] runs: the stream, and where this node is in it.
#[derive(Debug)]
pub struct JetStream {
    pub(crate) config: JetStreamConfig,
    pub(crate) nats: Arc<Nats>,
    /// Namespaces.
    pub(crate) topics: Topics,
    pub(crate) position: Position,
    ids: Ids,
}

impl JetStream {
    pub(crate) fn new(config: JetStreamConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            nats: Arc::new(Nats::new(error::NAME, config.nats.clone())?),
            topics: Topics::default(),
            position: Position::default(),
            ids: Ids::new(stream::duplicates(&config)),
            config,
        })
    }
}

impl Driver for JetStream {
    fn name(&self) -> &'static str {
        error::NAME
    }

    /// Of namespaces. Membership and answers have no need of it and go without the stream.
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtLeastOnce)
            .with_replay(Replay::WithinRetention)
            .with_total_order(true)
            .with_confirms(true)
            .with_max_payload(self.nats.max_payload(OVERHEAD))
    }

    fn limits(&self) -> &Limits {
        self.nats.limits()
    }

    fn at(&self) -> String {
        self.nats.at()
    }

    fn topics(&self) -> &Topics {
        self.nats.topics()
    }

    fn kept_topics(&self) -> &Topics {
        &self.topics
    }

    fn topic(&self, topic: &Topic) -> (String, bool) {
        let (subject, _) = self.nats.topic(topic);
        (subject, matches!(topic, Topic::Namespace(_)))
    }

    /// A frame of a namespace is stored once, also if the same bytes are published again after an attempt that failed.
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let (subject, kept) = self.topic(topic);
        if !kept {
            return self.nats.publish(topic, payload).await;
        }
        let mut attempt = self.ids.begin(&subject, &payload);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, attempt.id());
        self.nats.send(subject, payload, Some(headers)).await?;
        // After any error the id can be used again: of this attempt or of one before it, it may not be known whether it came.
        attempt.conclude();
        Ok(Receipt::default())
    }

    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Result<Infallible> {
        self.nats.run_with(&tasks, up, Some(&*self)).await
    }

    fn ended(&self) {
        self.nats.ended();
        self.topics.end(true);
    }
}

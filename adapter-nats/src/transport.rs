//! NATS core as [`Connected`] drives it.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use socketioxide_adapter_core::{
    Result,
    transport::{
        Capabilities, Connected, Delivery, Driver, Limits, Receipt, SessionUp, Topic, Topics,
    },
};
use tokio_util::task::TaskTracker;

use crate::{
    config::NatsConfig,
    connection::Connector,
    error::Origin,
    publisher::Publisher,
    subjects::{inboxes, subject},
};

/// A connection to a NATS server, as [`Connected`] says. A publish resolves when the server has the payload. A server that does
/// not answer counts as lost after 2 to 2.5 s, and after 8 to 8.5 s if others are still heard.
pub type NatsTransport = Connected<Nats>;

/// What [`NatsTransport`] runs; for a transport of its own see [`companion`](crate::companion).
#[derive(Debug)]
pub struct Nats {
    pub(crate) origin: Origin,
    pub(crate) config: NatsConfig,
    pub(crate) connector: Connector,
    pub(crate) topics: Topics,
    pub(crate) publisher: Publisher,
    /// The largest message that all servers so far allow.
    pub(crate) largest: AtomicUsize,
}

impl Nats {
    /// Checks and reads what does not change from one session to the next. `name` is that of the transport, for errors.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](socketioxide_adapter_core::ErrorKind::Config).
    pub fn new(name: &'static str, config: NatsConfig) -> Result<Self> {
        config.validate()?;
        let at = config.endpoint.at();
        Ok(Self {
            origin: Origin { name, at },
            connector: Connector::new(&config)?,
            topics: Topics::default(),
            publisher: Publisher::new(config.endpoint.limits.publish_buffer),
            largest: AtomicUsize::new(usize::MAX),
            config,
        })
    }

    /// The largest payload, if a message has so many bytes more.
    pub fn max_payload(&self, overhead: usize) -> usize {
        let allowed = self.largest.load(Ordering::Relaxed);
        let wanted = self.config.endpoint.limits.max_payload;
        wanted.min(allowed.saturating_sub(overhead))
    }

    /// The subjects of all namespaces, with a wildcard.
    pub fn namespaces(&self) -> String {
        format!("{}._ns.*", self.config.endpoint.prefix)
    }

    /// Whether it is the subject of a topic.
    pub(crate) fn is_topic(&self, subject: &str) -> bool {
        let prefix = &self.config.endpoint.prefix;
        let tail = subject.strip_prefix(prefix.as_str());
        tail.is_some_and(|tail| tail.starts_with("._")) && !subject.starts_with(&inboxes(prefix))
    }
}

impl Driver for Nats {
    fn name(&self) -> &'static str {
        self.origin.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
            .with_confirms(true)
            .with_max_payload(self.max_payload(0))
    }

    fn limits(&self) -> &Limits {
        &self.config.endpoint.limits
    }

    fn at(&self) -> String {
        self.origin.at.clone()
    }

    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn topic(&self, topic: &Topic) -> (String, bool) {
        (subject(&self.config.endpoint.prefix, topic), false)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let subject = subject(&self.config.endpoint.prefix, topic);
        self.send(subject, payload, None).await?;
        Ok(Receipt::default())
    }

    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Result<Infallible> {
        self.run_with(&tasks, up, None::<&Infallible>).await
    }

    fn ended(&self) {
        self.publisher.set(None);
        self.topics.end(false);
    }
}

//! The transport: connects, hands calls to the present session, and ends in order.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::types::ShortString;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{
        Capabilities, Connected, Delivery, LinkWatch, Receipt, Replay, SessionUp, Sessions,
        Subscription, Topic, Transport,
    },
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{AmqpConfig, Source},
    connection::Servers,
    error::{self, Step},
    publisher::Publisher,
    session,
    stream::Cursor,
    topics::{Phase, Topics},
};

/// What the sessions share with the transport.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: AmqpConfig,
    pub(crate) servers: Servers,
    pub(crate) topics: Topics,
    pub(crate) publisher: Publisher,
    pub(crate) cursor: Cursor,
    /// Name of the exchange.
    pub(crate) exchange: ShortString,
    /// What tells this node's names from those of others.
    pub(crate) id: String,
    /// Routing key of this node's fences. No topic has a dot in it.
    pub(crate) fence: String,
    /// Whether the end of a session is the end of this node, which needs its queue no more.
    pub(crate) shutdown: CancellationToken,
}

impl Shared {
    fn new(config: AmqpConfig) -> Result<Self> {
        let exchange: ShortString = format!("{}.topics", config.prefix).into();
        let id = format!("{:032x}", fastrand::u128(..));
        Ok(Self {
            servers: Servers::new(&config)?,
            config,
            topics: Topics::default(),
            publisher: Publisher::new(exchange.clone()),
            cursor: Cursor::default(),
            exchange,
            fence: format!("fence.{id}"),
            id,
            shutdown: CancellationToken::new(),
        })
    }
}

impl Sessions for Shared {
    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Error {
        session::run(&self, &tasks, up).await
    }

    fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    fn close(&self) {
        self.publisher.close();
        self.topics.close();
    }

    fn silent(&self, limit: Duration) -> String {
        error::silent(&self.config, &self.config.servers, limit)
    }
}

/// A node's connections to a broker. Dropping it closes them, without waiting.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves when the broker has
/// confirmed the payload: it is in all queues, on disk where they are durable. While the link is down, or the broker is
/// short of memory, `publish` and `subscribe` fail at once with [`LinkDown`]; a call that is waiting when the link is lost
/// fails with [`Interrupted`], a later one than `timeout` with [`Timeout`]. A broker that does not answer counts as lost
/// after 2 to 2.5 s.
///
/// After a reconnect each subscription yields `Resumed` before the first new payload. A dropped subscription ends at the
/// broker within half a second.
///
/// [`LinkDown`]: socketioxide_adapter_core::ErrorKind::LinkDown
/// [`Interrupted`]: socketioxide_adapter_core::ErrorKind::Interrupted
/// [`Timeout`]: socketioxide_adapter_core::ErrorKind::Timeout
#[derive(Debug)]
pub struct AmqpTransport(Connected<Shared>);

impl AmqpTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again, one server after the other.
    ///
    /// # Errors
    /// [`Config`] and [`Unauthorized`] at once, what else prevents a session after `connect_timeout`. Nothing is left
    /// running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    ///
    /// [`Config`]: socketioxide_adapter_core::ErrorKind::Config
    /// [`Unauthorized`]: socketioxide_adapter_core::ErrorKind::Unauthorized
    pub async fn connect(config: AmqpConfig) -> Result<Self> {
        config.validate()?;
        let (backoff, limit) = (config.limits.backoff, config.limits.connect_timeout);
        let shared = Shared::new(config)?;
        Ok(Self(
            Connected::start("amqp", shared, backoff, limit).await?,
        ))
    }
}

#[async_trait]
impl Transport for AmqpTransport {
    fn name(&self) -> &'static str {
        self.0.sessions().config.source.transport()
    }

    fn capabilities(&self) -> Capabilities {
        let Shared { config, .. } = self.0.sessions();
        let (delivery, replay) = if config.source.replays() {
            (Delivery::AtLeastOnce, Replay::WithinRetention)
        } else {
            (Delivery::AtMostOnce, Replay::None)
        };
        Capabilities::new(delivery)
            .with_replay(replay)
            .with_confirms(true)
            .with_total_order(matches!(config.source, Source::Stream { .. }))
            .with_max_payload(config.limits.max_payload)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let Shared {
            config,
            topics,
            publisher,
            ..
        } = self.0.sessions();
        let token = topic.token();
        // If we read the topic ourselves, a queue must be there for it. If we do not, there need not be one.
        let mandatory = topics.is_subscribed(&token);
        publisher.publish(config, &token, mandatory, payload).await
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Shared { config, topics, .. } = self.0.sessions();
        let replays = config.source.replays() && matches!(topic, Topic::Namespace(_));
        let added = topics.add(&topic.token(), replays, config.limits.subscription_buffer);
        let (subscription, confirmation) = added.map_err(|phase| match phase {
            Phase::Closed => STEP.closed(),
            Phase::Down | Phase::Up => STEP.down(),
        })?;
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        match timeout(config.limits.timeout, confirmation).await {
            Ok(Ok(())) => Ok(subscription),
            Ok(Err(_)) => Err(STEP.interrupted()),
            Err(_) => Err(STEP.late(config.limits.timeout)),
        }
    }

    fn link(&self) -> LinkWatch {
        self.0.link()
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await;
        Ok(())
    }
}

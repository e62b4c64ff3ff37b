//! The transport: hands calls to the present session.

use std::{io::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{
        Capabilities, Connected, Delivery, LinkWatch, Receipt, SessionUp, Sessions, Subscription,
        Topic, Transport,
    },
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{
    companion::Companion,
    config::RedisConfig,
    error::{self, Step},
    servers::Servers,
    session,
    topics::Topics,
};

/// What the sessions share with the transport.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RedisConfig,
    pub(crate) servers: Servers,
    pub(crate) topics: Topics,
    pub(crate) companion: Option<Arc<dyn Companion>>,
}

impl Sessions for Shared {
    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Error {
        session::run(&self, &tasks, up).await
    }

    fn close(&self) {
        self.topics.close();
        if let Some(companion) = &self.companion {
            companion.close();
        }
    }

    fn silent(&self, limit: Duration) -> String {
        error::silent(&self.config, limit)
    }
}

/// A link to Redis: to one server, the primary that sentinels know, or a cluster. Dropping it closes it, without waiting.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves with the number of
/// subscribers that Redis handed it to. While the link is down, `publish` and `subscribe` fail at once with
/// [`ErrorKind::LinkDown`]; a call that is waiting when the link is lost fails with [`ErrorKind::Interrupted`], a later one
/// than `timeout` with [`ErrorKind::Timeout`]. A server that does not answer counts as lost after 2 to 2.5 s.
///
/// After a reconnect each subscription yields `Resumed(Unknown)` before the first new payload. A dropped subscription
/// ends at the server within half a second.
///
/// [`ErrorKind::LinkDown`]: socketioxide_adapter_core::ErrorKind::LinkDown
/// [`ErrorKind::Interrupted`]: socketioxide_adapter_core::ErrorKind::Interrupted
/// [`ErrorKind::Timeout`]: socketioxide_adapter_core::ErrorKind::Timeout
#[derive(Debug)]
pub struct RedisTransport(Connected<Shared>);

impl RedisTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// `Config` and `Unauthorized` at once, what else prevents a session after `connect_timeout`. Nothing is left running
    /// then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        Self::start(config, None).await
    }

    /// Like [`connect`](Self::connect), with a companion in every session.
    ///
    /// # Errors
    /// As `connect`, and what the companion says.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect_with(config: RedisConfig, companion: Arc<dyn Companion>) -> Result<Self> {
        Self::start(config, Some(companion)).await
    }

    async fn start(config: RedisConfig, companion: Option<Arc<dyn Companion>>) -> Result<Self> {
        config.validate()?;
        let (backoff, limit) = (config.limits.backoff, config.limits.connect_timeout);
        let shared = Shared {
            servers: Servers::new(&config)?,
            config,
            topics: Topics::default(),
            companion,
        };
        Ok(Self(
            Connected::start("redis", shared, backoff, limit).await?,
        ))
    }

    /// Sends a command that carries a payload of `bytes`, in one order with the publishes and with the same limits,
    /// deadline and errors.
    ///
    /// # Errors
    /// As [`publish`](Transport::publish).
    ///
    /// # Cancel safety
    /// As [`publish`](Transport::publish).
    pub async fn send(&self, command: &Cmd, bytes: usize) -> Result<Value> {
        let Shared { config, topics, .. } = self.0.sessions();
        let session = topics.session(Step::Publish, config)?;
        session.send(config, 0, command, bytes).await
    }

    /// The channel of a topic. On the stack: a publish does not allocate for it.
    fn channel(&self, topic: &Topic) -> SmallVec<[u8; 128]> {
        let config = &self.0.sessions().config;
        let mut channel = SmallVec::new();
        // Writing to memory cannot fail.
        let _ = match config.database {
            0 => write!(channel, "{}:{topic}", config.prefix),
            database => write!(channel, "{}:{database}:{topic}", config.prefix),
        };
        channel
    }
}

#[async_trait]
impl Transport for RedisTransport {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(self.0.sessions().config.limits.max_payload)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let Shared { config, topics, .. } = self.0.sessions();
        let session = topics.session(Step::Publish, config)?;
        session
            .publish(config, &self.channel(topic), &payload)
            .await
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Shared { config, topics, .. } = self.0.sessions();
        let (subscription, confirmation) = topics.add(config, &self.channel(topic))?;
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        match timeout(config.limits.timeout, confirmation).await {
            Ok(Ok(answer)) => answer.map(|()| subscription),
            Ok(Err(_)) => Err(error::interrupted(STEP, config.at())),
            Err(_) => Err(error::late(STEP, config.at(), config.limits.timeout)),
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

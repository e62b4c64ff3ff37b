//! The transport: connects, hands calls to the present session, and ends in order.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use lapin::types::ShortString;
use socketioxide_adapter_core::{
    ErrorKind, Result,
    transport::{
        Capabilities, Delivery, LinkSender, LinkState, LinkWatch, Receipt, Replay, Subscription,
        Supervisor, Topic, Transport, link, supervise,
    },
};
use tokio::{task::AbortHandle, time::timeout};
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

/// How long `close` waits for the tasks.
const CLOSE: Duration = Duration::from_secs(2);

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
    /// Everything that was spawned, also by lapin.
    pub(crate) tasks: TaskTracker,
    pub(crate) link: LinkSender,
    pub(crate) shutdown: CancellationToken,
}

impl Shared {
    fn new(config: AmqpConfig, link: LinkSender) -> Result<Self> {
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
            tasks: TaskTracker::new(),
            link,
            shutdown: CancellationToken::new(),
        })
    }

    /// Ends all subscriptions and refuses all calls from now on.
    fn close(&self) {
        self.publisher.close();
        self.topics.close();
        self.link.closed(None);
    }
}

/// A node's connections to a broker. Dropping it closes them, without waiting.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves when the broker has
/// confirmed the payload: it is in all queues, on disk where they are durable. While the link is down, or the broker is
/// short of memory, `publish` and `subscribe` fail at once with [`ErrorKind::LinkDown`]; a call that is waiting when the
/// link is lost fails with [`ErrorKind::Interrupted`], a later one than `timeout` with [`ErrorKind::Timeout`]. A broker
/// that does not answer counts as lost after 2 to 2.5 s.
///
/// After a reconnect each subscription yields `Resumed` before the first new payload. A dropped subscription ends at the
/// broker within half a second.
#[derive(Debug)]
pub struct AmqpTransport {
    shared: Arc<Shared>,
    link: LinkWatch,
    abort: AbortHandle,
}

impl AmqpTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again, one server after the other.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after
    /// `connect_timeout`. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(config: AmqpConfig) -> Result<Self> {
        config.validate()?;
        let limit = config.connect_timeout;
        let backoff = config.backoff;
        let (sender, mut watch) = link();
        let shared = Arc::new(Shared::new(config, sender.clone())?);
        let supervisor = Supervisor {
            name: shared.name(),
            link: sender,
            backoff,
            connect_timeout: limit,
            shutdown: shared.shutdown.clone(),
        };
        let sessions = shared.clone();
        let task = shared.tasks.spawn(async move {
            let fatal = supervise(supervisor, |up| session::run(sessions.clone(), up)).await;
            sessions.close();
            fatal
        });
        let transport = Self {
            shared,
            link: watch.clone(),
            abort: task.abort_handle(),
        };
        let up = timeout(
            limit,
            watch.wait_for(|status| status.state == LinkState::Up),
        )
        .await;
        if up.is_ok_and(|status| status.state == LinkState::Up) {
            return Ok(transport);
        }
        let reason = transport.link.status().reason;
        transport.end().await;
        if let Some(Ok(Some(fatal))) = task.now_or_never() {
            return Err(fatal);
        }
        let message = match reason.as_deref() {
            Some(reason) => {
                let reason = reason.strip_prefix("amqp: connect: ").unwrap_or(reason);
                format!("{reason} (gave up after {limit:?})")
            }
            None => {
                let config = &transport.shared.config;
                error::silent(config, &config.servers, limit)
            }
        };
        Err(Step::Connect.error(ErrorKind::Unavailable, message))
    }

    /// Ends all tasks, and waits for that up to a deadline.
    async fn end(&self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        if timeout(CLOSE, self.shared.tasks.wait()).await.is_err() {
            self.abort.abort();
            self.shared.close();
        }
    }
}

impl Shared {
    fn name(&self) -> &'static str {
        match self.config.source {
            Source::Exclusive { .. } | Source::Durable { .. } => "amqp",
            Source::Stream { .. } => "rabbitmq-streams",
        }
    }
}

#[async_trait]
impl Transport for AmqpTransport {
    fn name(&self) -> &'static str {
        self.shared.name()
    }

    fn capabilities(&self) -> Capabilities {
        let Shared { config, .. } = &*self.shared;
        let (delivery, replay) = if config.source.replays() {
            (Delivery::AtLeastOnce, Replay::WithinRetention)
        } else {
            (Delivery::AtMostOnce, Replay::None)
        };
        Capabilities::new(delivery)
            .with_replay(replay)
            .with_confirms(true)
            .with_total_order(matches!(config.source, Source::Stream { .. }))
            .with_max_payload(config.max_payload)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let Shared {
            config,
            topics,
            publisher,
            ..
        } = &*self.shared;
        let token = topic.token();
        // If we read the topic ourselves, a queue must be there for it. If we do not, there need not be one.
        let mandatory = topics.is_subscribed(&token);
        publisher.publish(config, &token, mandatory, payload).await
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Shared { config, topics, .. } = &*self.shared;
        let replays = config.source.replays() && matches!(topic, Topic::Namespace(_));
        let added = topics.add(&topic.token(), replays, config.subscription_buffer);
        let (subscription, confirmation) = added.map_err(|phase| match phase {
            Phase::Closed => STEP.closed(),
            Phase::Down | Phase::Up => STEP.down(),
        })?;
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        match timeout(config.timeout, confirmation).await {
            Ok(Ok(())) => Ok(subscription),
            Ok(Err(_)) => Err(STEP.interrupted()),
            Err(_) => Err(STEP.late(config.timeout)),
        }
    }

    fn link(&self) -> LinkWatch {
        self.link.clone()
    }

    async fn close(&self) -> Result<()> {
        self.end().await;
        Ok(())
    }
}

impl Drop for AmqpTransport {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
    }
}

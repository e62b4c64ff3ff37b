//! The transport: connects, hands calls to the present session, and ends in order.

use std::{io::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use redis::{Cmd, Value};
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    ErrorKind, Result,
    transport::{
        Capabilities, Delivery, LinkSender, LinkState, LinkWatch, Receipt, Subscription,
        Supervisor, Topic, Transport, link, supervise,
    },
};
use tokio::{task::AbortHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    companion::Companion,
    config::RedisConfig,
    error::{self, Step},
    servers::Servers,
    session,
    topics::Topics,
};

/// How long `close` waits for the tasks.
const CLOSE: Duration = Duration::from_secs(2);

/// What the sessions share with the transport.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: RedisConfig,
    pub(crate) servers: Servers,
    pub(crate) topics: Topics,
    pub(crate) companion: Option<Arc<dyn Companion>>,
    /// Everything that was spawned.
    pub(crate) tasks: TaskTracker,
    link: LinkSender,
}

impl Shared {
    /// Ends all subscriptions and refuses all calls from now on.
    fn close(&self) {
        self.topics.close();
        if let Some(companion) = &self.companion {
            companion.close();
        }
        self.link.closed(None);
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
#[derive(Debug)]
pub struct RedisTransport {
    shared: Arc<Shared>,
    link: LinkWatch,
    shutdown: CancellationToken,
    abort: AbortHandle,
}

impl RedisTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after
    /// `connect_timeout`. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(config: RedisConfig) -> Result<Self> {
        Self::connect_companion(config, None).await
    }

    /// Like [`connect`](Self::connect), with a companion in every session.
    ///
    /// # Errors
    /// As `connect`, and what the companion says.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect_with(config: RedisConfig, companion: Arc<dyn Companion>) -> Result<Self> {
        Self::connect_companion(config, Some(companion)).await
    }

    async fn connect_companion(
        config: RedisConfig,
        companion: Option<Arc<dyn Companion>>,
    ) -> Result<Self> {
        config.validate()?;
        let servers = Servers::new(&config)?;
        let limit = config.connect_timeout;
        let (sender, mut watch) = link();
        let shutdown = CancellationToken::new();
        let supervisor = Supervisor {
            name: "redis",
            link: sender.clone(),
            backoff: config.backoff,
            connect_timeout: limit,
            shutdown: shutdown.clone(),
        };
        let shared = Arc::new(Shared {
            config,
            servers,
            topics: Topics::default(),
            companion,
            tasks: TaskTracker::new(),
            link: sender,
        });
        let sessions = shared.clone();
        let task = shared.tasks.spawn(async move {
            let fatal = supervise(supervisor, |up| session::run(sessions.clone(), up)).await;
            sessions.close();
            fatal
        });
        let transport = Self {
            shared,
            link: watch.clone(),
            shutdown,
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
                let reason = reason.strip_prefix("redis: connect: ").unwrap_or(reason);
                format!("{reason} (gave up after {limit:?})")
            }
            None => error::silent(&transport.shared.config, limit),
        };
        Err(Step::Connect.error(ErrorKind::Unavailable, message))
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
        let Shared { config, topics, .. } = &*self.shared;
        let session = topics.session(Step::Publish, config)?;
        session.send(config, 0, command, bytes).await
    }

    /// Ends all tasks, and waits for that up to a deadline.
    async fn end(&self) {
        self.shutdown.cancel();
        self.shared.tasks.close();
        if timeout(CLOSE, self.shared.tasks.wait()).await.is_err() {
            self.abort.abort();
            self.shared.close();
        }
    }

    /// The channel of a topic. On the stack: a publish does not allocate for it.
    fn channel(&self, topic: &Topic) -> SmallVec<[u8; 128]> {
        let config = &self.shared.config;
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
            .with_max_payload(self.shared.config.max_payload)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let Shared { config, topics, .. } = &*self.shared;
        let session = topics.session(Step::Publish, config)?;
        session
            .publish(config, &self.channel(topic), &payload)
            .await
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Shared { config, topics, .. } = &*self.shared;
        let (subscription, confirmation) = topics.add(config, &self.channel(topic))?;
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        match timeout(config.timeout, confirmation).await {
            Ok(Ok(answer)) => answer.map(|()| subscription),
            Ok(Err(_)) => Err(error::interrupted(STEP, config.at())),
            Err(_) => Err(error::late(STEP, config.at(), config.timeout)),
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

impl Drop for RedisTransport {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;
    use crate::config::Address;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off() {
        let config = RedisConfig::new(Address::Unix("/nowhere".into()));
        let (sender, link) = link();
        let shared = Arc::new(Shared {
            servers: Servers::new(&config).unwrap(),
            config,
            topics: Topics::default(),
            companion: None,
            tasks: TaskTracker::new(),
            link: sender,
        });
        shared.topics.open(Arc::default());
        let stuck = shared.tasks.spawn(pending::<()>());
        let transport = RedisTransport {
            shared,
            link,
            shutdown: CancellationToken::new(),
            abort: stuck.abort_handle(),
        };
        let Shared { config, topics, .. } = &*transport.shared;
        let (mut subscription, _) = topics.add(config, b"c").unwrap();
        let start = Instant::now();
        let (first, second) = tokio::join!(transport.close(), transport.close());
        first.and(second).unwrap();
        assert_eq!(start.elapsed().as_secs(), CLOSE.as_secs());
        assert_eq!(transport.link.state(), LinkState::Closed);
        assert_eq!(subscription.recv().now_or_never(), Some(None));
        assert!(stuck.await.unwrap_err().is_cancelled());
        // A session that is only now on its way out changes nothing any more.
        topics.end();
        topics.open(Arc::default());
        let closed = [
            transport
                .publish(&Topic::Cluster, "x".into())
                .await
                .unwrap_err(),
            transport.subscribe(&Topic::Cluster).await.unwrap_err(),
        ];
        assert_eq!(closed.map(|error| error.kind()), [ErrorKind::Closed; 2]);
    }
}

//! The transport: hands calls to the present session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{
        Capabilities, Connected, Delivery, LinkWatch, Receipt, Replay, SessionUp, Sessions,
        Subscription, Topic, Transport,
    },
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{
    config::NatsConfig,
    connection::Connector,
    error::{self, Step},
    log::Log,
    publisher::{Outgoing, Publisher},
    session,
    subjects::{inboxes, namespaces, subject},
    topics::{Phase, Topics},
};

/// What the sessions share with the transport.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NatsConfig,
    pub(crate) connector: Connector,
    pub(crate) topics: Topics,
    pub(crate) publisher: Publisher,
    /// Where the frames of namespaces are kept.
    pub(crate) log: Option<Log>,
    /// The largest payload that all servers so far allow.
    max_payload: AtomicUsize,
}

impl Shared {
    /// Notes what the server allows.
    pub(crate) fn limit_payload(&self, message: usize) {
        let bytes = match self.log {
            Some(_) => Log::max_payload(message),
            None => message,
        };
        self.max_payload.fetch_min(bytes, Ordering::Relaxed);
    }

    /// Whether it is the subject of a topic.
    pub(crate) fn is_topic(&self, subject: &str) -> bool {
        let prefix = &self.config.prefix;
        let tail = subject.strip_prefix(prefix.as_str());
        tail.is_some_and(|tail| tail.starts_with("._")) && !subject.starts_with(&inboxes(prefix))
    }

    /// Whether the log keeps what is published to this subject.
    pub(crate) fn is_logged(&self, subject: &str) -> bool {
        self.log.is_some() && subject.starts_with(&namespaces(&self.config.prefix))
    }
}

impl Sessions for Shared {
    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Error {
        session::run(&self, &tasks, up).await
    }

    fn close(&self) {
        self.publisher.close();
        self.topics.close();
    }

    fn silent(&self, limit: Duration) -> String {
        format!("{}: no answer within {limit:?}", self.connector.servers())
    }
}

/// A connection to a NATS server. Dropping it closes it, without waiting.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves when the server has
/// the payload. While the link is down, `publish` and `subscribe` fail at once with [`ErrorKind::LinkDown`]; a call that is
/// waiting when the link is lost fails with [`ErrorKind::Interrupted`], a later one than `timeout` with
/// [`ErrorKind::Timeout`]. A server that does not answer counts as lost after 2 to 2.5 s, and after 8 to 8.5 s if others are
/// still heard.
///
/// After a reconnect each subscription yields `Resumed` before the first new payload. A dropped subscription ends at the
/// server within half a second.
#[derive(Debug)]
pub struct NatsTransport(Connected<Shared>);

impl NatsTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after
    /// `connect_timeout`. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(config: NatsConfig) -> Result<Self> {
        config.validate()?;
        let (backoff, limit) = (config.limits.backoff, config.limits.connect_timeout);
        let shared = Shared {
            connector: Connector::new(&config)?,
            log: Log::new(&config)?,
            max_payload: config.limits.max_payload.into(),
            config,
            topics: Topics::default(),
            publisher: Publisher::default(),
        };
        Ok(Self(
            Connected::start("nats", shared, backoff, limit).await?,
        ))
    }

    fn subject(&self, topic: &Topic) -> String {
        subject(&self.0.sessions().config.prefix, topic)
    }
}

#[async_trait]
impl Transport for NatsTransport {
    fn name(&self) -> &'static str {
        match self.0.sessions().log {
            Some(_) => "jetstream",
            None => "nats",
        }
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = match self.0.sessions().log {
            // Of namespaces. Membership and answers have no need of it and go without the log.
            Some(_) => Capabilities::new(Delivery::AtLeastOnce)
                .with_replay(Replay::WithinRetention)
                .with_total_order(true),
            None => Capabilities::new(Delivery::AtMostOnce),
        };
        capabilities
            .with_confirms(true)
            .with_max_payload(self.0.sessions().max_payload.load(Ordering::Relaxed))
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let limit = self.0.sessions().max_payload.load(Ordering::Relaxed);
        if payload.len() > limit {
            let message = format!("{} bytes, at most {limit} are allowed", payload.len());
            return Err(Step::Publish.error(ErrorKind::TooLarge, message));
        }
        let subject = self.subject(topic);
        let Shared {
            config,
            publisher,
            log,
            ..
        } = self.0.sessions();
        match log {
            Some(log) if self.0.sessions().is_logged(&subject) => {
                log.publish(publisher, config, subject, payload).await?;
            }
            _ => {
                let message = Outgoing {
                    subject,
                    payload,
                    headers: None,
                };
                publisher.publish(config, message).await?;
            }
        }
        Ok(Receipt::default())
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Shared { config, topics, .. } = self.0.sessions();
        let subject = self.subject(topic);
        let logged = self.0.sessions().is_logged(&subject);
        let added = topics.add(subject, logged, config.limits.subscription_buffer);
        let (subscription, confirmation) = added.map_err(|phase| match phase {
            Phase::Closed => error::closed(STEP),
            Phase::Down | Phase::Up => error::down(STEP),
        })?;
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        match timeout(config.limits.timeout, confirmation).await {
            Ok(Ok(answer)) => answer.map(|()| subscription),
            Ok(Err(_)) => Err(error::interrupted(STEP)),
            Err(_) => Err(error::late(STEP, config.limits.timeout)),
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

//! The transport: topics become logs, and what needs no log is left to Pub/Sub.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};
use socketioxide_adapter_core::{
    ErrorKind, Result,
    transport::{Capabilities, LinkWatch, Receipt, Subscription, Topic, Transport},
};
use socketioxide_adapter_redis::RedisTransport;
use tokio::time::timeout;
use tracing::warn;

use crate::{
    config::{Ephemeral, Retention, StreamsConfig},
    error,
    log::{Phase, Place},
    position::Id,
    reply::{PAYLOAD, TOPIC},
    session::Reader,
};

/// A connection to a Redis server that keeps logs. Dropping it closes it, without waiting.
///
/// Link, deadlines and errors are those of [`RedisTransport`], on whose sessions it rides with one connection more. After a
/// reconnect each subscription to a log yields `Resumed` with what became of the log, then what was missed, then the rest;
/// one to a topic that goes by Pub/Sub yields `Resumed(Unknown)`. A subscription whose reader is slow waits, and the log
/// with it; if the log is trimmed before it goes on, it yields `Lagged`.
#[derive(Debug)]
pub struct RedisStreamsTransport {
    redis: RedisTransport,
    reader: Arc<Reader>,
}

impl RedisStreamsTransport {
    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// As [`RedisTransport::connect`]; also [`ErrorKind::Config`] if the nodes that are there already share their logs in
    /// another way.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(config: StreamsConfig) -> Result<Self> {
        config.validate()?;
        let window = config.reconnect_window();
        if let Retention::Age(age) = config.retention
            && age < window
        {
            warn!(
                ?age,
                ?window,
                "the logs keep less than an outage may take, raise max_age"
            );
        }
        let redis = config.redis.clone();
        let reader = Arc::new(Reader::new(config));
        let redis = RedisTransport::connect_with(redis, reader.clone()).await?;
        Ok(Self { redis, reader })
    }

    /// Where a topic is kept; `None`: nowhere, it goes by Pub/Sub.
    fn place(&self, topic: &Topic) -> Option<Place> {
        let config = &self.reader.config;
        let prefix = &config.redis.prefix;
        let retention = match topic {
            Topic::Namespace(path) => config.namespaces.get(path.as_str()),
            Topic::Cluster | Topic::Node(_) if config.ephemeral == Ephemeral::PubSub => {
                return None;
            }
            Topic::Cluster | Topic::Node(_) => None,
        };
        let name = topic.to_string();
        let (key, topic) = match config.streams {
            None => (format!("{prefix}:{name}"), None),
            Some(streams) => {
                let stream = hash(name.as_bytes()) % u64::from(streams);
                // In braces: what a Redis Cluster spreads keys by.
                (
                    format!("{prefix}:{{log/{stream}}}"),
                    Some(name.into_bytes().into()),
                )
            }
        };
        Some(Place {
            key: key.into_bytes().into(),
            topic,
            retention: retention.copied().unwrap_or(config.retention),
        })
    }

    fn add(&self, place: &Place, payload: &[u8]) -> Cmd {
        let mut command = Cmd::with_capacity(9, place.key.len() + payload.len() + 64);
        command.arg("XADD").arg(&*place.key);
        match place.retention {
            Retention::Length(length) => command.arg("MAXLEN").arg("~").arg(length),
            Retention::Age(age) => {
                // Without a session nothing is sent.
                let now = self.reader.server_time().unwrap_or(Duration::ZERO);
                let oldest = Id {
                    time: now.saturating_sub(age).as_millis() as u64,
                    number: 0,
                };
                command.arg("MINID").arg("~").arg(oldest.to_string())
            }
        };
        command.arg("*");
        if let Some(topic) = &place.topic {
            command.arg(TOPIC).arg(&**topic);
        }
        command.arg(PAYLOAD).arg(payload);
        command
    }
}

#[async_trait]
impl Transport for RedisStreamsTransport {
    fn name(&self) -> &'static str {
        "redis-streams"
    }

    fn capabilities(&self) -> Capabilities {
        self.reader.config.capabilities()
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let Some(place) = self.place(topic) else {
            return self.redis.publish(topic, payload).await;
        };
        let command = self.add(&place, &payload);
        match self.redis.send(&command, payload.len()).await? {
            Value::BulkString(_) => Ok(Receipt::default()),
            _ => Err(error::unreadable("XADD")),
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let Some(place) = self.place(topic) else {
            return self.redis.subscribe(topic).await;
        };
        let config = &self.reader.config.redis;
        let added = self
            .reader
            .cursors
            .add(place, config.limits.subscription_buffer);
        let (subscription, confirmation) = added.map_err(|phase| match phase {
            Phase::Closed => error::subscribe(ErrorKind::Closed, "the transport is closed"),
            Phase::Down | Phase::Up => error::subscribe(ErrorKind::LinkDown, "the link is down"),
        })?;
        match timeout(config.limits.timeout, confirmation).await {
            Ok(Ok(answer)) => answer.map(|()| subscription),
            Ok(Err(_)) => {
                let lost = "the connection was lost";
                Err(error::subscribe(ErrorKind::Interrupted, lost))
            }
            Err(_) => Err(error::late(config.at(), config.limits.timeout)),
        }
    }

    fn link(&self) -> LinkWatch {
        self.redis.link()
    }

    async fn close(&self) -> Result<()> {
        self.redis.close().await
    }
}

/// FNV-1a. Every node must come to the same, whatever it was built with.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

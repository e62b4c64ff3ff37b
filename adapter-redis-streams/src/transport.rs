//! The transport: topics become logs, and what needs no log is left to Pub/Sub.

use std::{pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value};
use socketioxide_adapter_core::{
    Result,
    transport::{
        Capabilities, Delivery, Driver as _, LinkWatch, Receipt, Replay, Step, Subscription, Topic,
        Transport, log::Place,
    },
};
use socketioxide_adapter_redis::RedisTransport;

use crate::{
    config::{Retention, StreamsConfig},
    error,
    reply::{Id, PAYLOAD, TOPIC},
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
    pub(crate) async fn start(config: StreamsConfig) -> Result<Self> {
        let redis = config.redis.clone();
        let reader = Arc::new(Reader::new(config));
        let redis = redis.connect_with(reader.clone()).await?;
        Ok(Self { redis, reader })
    }

    fn add(&self, place: &Place, payload: &[u8]) -> Cmd {
        let mut command = Cmd::with_capacity(9, place.log.len() + payload.len() + 64);
        command.arg("XADD").arg(&*place.log);
        match self.reader.config.retention_of(&place.log) {
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
        error::NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtLeastOnce)
            .with_replay(Replay::WithinRetention)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(self.redis.driver().limits().max_payload)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        const STEP: Step = Step::Publish;
        let Some(place) = self.reader.config.place(topic) else {
            return self.redis.publish(topic, payload).await;
        };
        self.redis.check(STEP)?;
        self.redis.check_size(payload.len())?;
        let command = self.add(&place, &payload);
        // In its place at once, as in `Connected`: it is large.
        let answer = pin!(self.redis.driver().send(&command, payload.len()));
        match self.redis.in_time(STEP, answer).await? {
            Value::BulkString(_) => Ok(Receipt::default()),
            _ => Err(error::unreadable(STEP, "XADD")),
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        let Some(place) = self.reader.config.place(topic) else {
            return self.redis.subscribe(topic).await;
        };
        self.redis.check(STEP)?;
        let driver = self.redis.driver();
        let limits = driver.limits().subscription_buffer;
        let (subscription, confirmation) = self.reader.cursors.add(place, limits);
        let confirmed = async {
            let lost = |_| Err(STEP.interrupted(driver.name(), driver.at()));
            confirmation.await.unwrap_or_else(lost)
        };
        self.redis.in_time(STEP, confirmed).await?;
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.redis.link()
    }

    async fn close(&self) -> Result<()> {
        self.redis.close().await
    }
}

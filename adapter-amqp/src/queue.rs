//! Reading from a queue of this node's own, which the exchange fills.

use futures_util::{StreamExt as _, future::try_join_all};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use socketioxide_adapter_core::transport::{Continuity, LossCause};

use crate::{
    config::Source,
    connection::Connection,
    error, keys,
    session::{PREFETCH, Reader, is_fence, prefetch, taken_away},
    stream::Position,
    transport::Shared,
};

/// Bindings asked for at once.
const BATCH: usize = 256;

/// The queue of one session.
#[derive(Debug)]
pub(crate) struct Queue {
    name: ShortString,
    exchange: ShortString,
}

impl Queue {
    /// Declares the queue, with its bindings if it is new, and reads from it.
    pub(crate) async fn open(
        shared: &Shared,
        connection: &mut Connection,
    ) -> lapin::Result<(Self, Reader)> {
        let node = format!("{}.node.{}", shared.config.prefix, shared.id);
        let durable = matches!(shared.config.source, Source::Durable { .. });
        let name: ShortString = if durable {
            connection.delete = Some((node.as_str().into(), shared.shutdown.clone()));
            node.into()
        } else {
            // A new one for each session: the broker may still hold the one before.
            format!("{node}.{:08x}", fastrand::u32(..)).into()
        };
        let resumes = durable && shared.cursor.get().is_some();
        let kept = if resumes {
            length(connection, &name).await?
        } else {
            None
        };
        let channel = connection.channel.clone();
        let options = QueueDeclareOptions {
            durable,
            exclusive: !durable,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.clone(), options, arguments(&shared.config.source))
            .await?;
        let queue = Self {
            name,
            exchange: shared.exchange.clone(),
        };
        if resumes && kept.is_none() {
            let (count, cause) = (None, LossCause::Reset);
            shared.topics.forget(Continuity::Lost { count, cause });
        }
        queue
            .bind(&channel, std::slice::from_ref(&shared.fence))
            .await?;
        let (_, missing) = shared.topics.differences();
        queue.bind(&channel, &missing).await?;
        let fence = shared.topics.fence(&missing);
        shared.publisher.fence(&shared.fence, fence);
        prefetch(&channel).await?;
        let options = BasicConsumeOptions {
            // A connection that the broker has not given up yet may still read from the same queue. Two readers would
            // share its messages.
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let name = queue.name.clone();
        let mut consumer = channel
            .basic_consume(name, "".into(), options, FieldTable::default())
            .await?;
        let first = match kept {
            Some(length) => resume(shared, &channel, &mut consumer, length, fence).await?,
            None => Vec::new(),
        };
        let reader = Reader {
            channel,
            consumer,
            first,
            replay_until: None,
            // A queue that was kept takes what is published already. Its fence comes after all that was missed, which is as
            // slow as those who read it.
            wait_for: kept.is_none().then_some(fence),
        };
        Ok((queue, reader))
    }

    pub(crate) async fn bind(&self, channel: &Channel, tokens: &[String]) -> lapin::Result<()> {
        for batch in tokens.chunks(BATCH) {
            let binds = batch.iter().map(|token| {
                channel.queue_bind(
                    self.name.clone(),
                    self.exchange.clone(),
                    keys::routing_key(token),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
            });
            try_join_all(binds).await?;
        }
        Ok(())
    }

    pub(crate) async fn unbind(&self, channel: &Channel, tokens: &[String]) -> lapin::Result<()> {
        for batch in tokens.chunks(BATCH) {
            let unbinds = batch.iter().map(|token| {
                channel.queue_unbind(
                    self.name.clone(),
                    self.exchange.clone(),
                    keys::routing_key(token),
                    FieldTable::default(),
                )
            });
            try_join_all(unbinds).await?;
        }
        Ok(())
    }
}

/// How many messages wait in the queue, if the broker has it. Asked on a channel of its own, which a "no" closes.
async fn length(connection: &Connection, name: &ShortString) -> lapin::Result<Option<u32>> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = connection.channel().await?;
    let found = channel.queue_declare(name.clone(), options, FieldTable::default());
    match found.await {
        Ok(queue) => Ok(Some(queue.message_count())),
        Err(error) if error::is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads up to the last message that was handed out, the **anchor**, which was never acknowledged: a full queue loses its
/// oldest messages first, so that nothing is missing if the anchor is there. What was acknowledged, but the broker did not
/// hear of it, comes before the anchor once more. Returns what else was read.
async fn resume(
    shared: &Shared,
    channel: &Channel,
    consumer: &mut Consumer,
    length: u32,
    fence: u64,
) -> lapin::Result<Vec<Delivery>> {
    let anchor = shared.cursor.get();
    let mut first = Vec::new();
    while first.len() < PREFETCH.into() {
        let delivery = consumer.next().await.ok_or_else(taken_away)??;
        let is_end = is_fence(shared, &delivery, fence);
        let is_anchor = anchor.as_ref() == Some(&Position::of(&delivery));
        let before = delivery.delivery_tag - 1;
        first.push(delivery);
        if is_anchor {
            // Read and acknowledged before, in vain. If they were as many as may be unacknowledged, nothing would follow.
            // 0 would mean all.
            if before > 0 {
                let multiple = BasicAckOptions { multiple: true };
                channel.basic_ack(before, multiple).await?;
            }
            let replayed = u64::from(length).saturating_sub(first.len() as u64);
            shared.topics.resume(Continuity::Unbroken { replayed });
            return Ok(Vec::new());
        }
        if is_end {
            break;
        }
    }
    let (count, cause) = (None, LossCause::Overflow);
    shared.topics.resume(Continuity::Lost { count, cause });
    Ok(first)
}

fn arguments(source: &Source) -> FieldTable {
    let mut arguments = FieldTable::default();
    let mut limit = |name: &str, value: u128| {
        let value = AMQPValue::LongLongInt(value.try_into().unwrap_or(i64::MAX));
        arguments.insert(name.into(), value);
    };
    match source {
        Source::Exclusive { max_bytes } => limit("x-max-length-bytes", (*max_bytes).into()),
        Source::Durable { max_bytes, expires } => {
            limit("x-max-length-bytes", (*max_bytes).into());
            limit("x-expires", expires.as_millis());
        }
        Source::Stream { .. } => {}
    }
    arguments
}

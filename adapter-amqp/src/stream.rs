//! Reading from the stream that all nodes share, from where this node was.
//!
//! A stream tells nobody that what he asks for is gone: from an offset that was deleted it starts later, and at one that it
//! has not reached yet it waits. So every session looks for the end first, where it puts a fence, and then reads the last
//! message that it had, the **anchor**, once more: if it is the first to come, nothing is missing.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use socketioxide_adapter_core::transport::{Continuity, LossCause};
use tokio::time::sleep;

use crate::{
    config::Source,
    connection::Connection,
    error, keys,
    session::{Reader, hand_out, is_fence, prefetch, taken_away},
    transport::Shared,
};

const OFFSET: &str = "x-stream-offset";
/// How often a stream that the server does not find is asked for again, and how long after.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The last message that was read; outlives the sessions.
#[derive(Debug, Default)]
pub(crate) struct Cursor(Mutex<Option<Position>>);

/// A message of the stream or queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) offset: i64,
    /// Tells the message from others, also from one that has its offset in a stream that was made anew.
    id: String,
}

impl Position {
    /// Where a message is. In a queue, they all have offset 0.
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let offset = match keys::header(delivery, OFFSET) {
            Some(AMQPValue::LongLongInt(offset)) => *offset,
            _ => 0,
        };
        let id = delivery.properties.message_id().as_ref();
        Self {
            offset,
            id: id.map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl Cursor {
    /// Notes that a message was read.
    pub(crate) fn advance(&self, position: Position) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }

    pub(crate) fn get(&self) -> Option<Position> {
        let position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        position.clone()
    }
}

/// Declares the stream and reads on from the cursor; without one, from the end.
pub(crate) async fn open(shared: &Shared, connection: &Connection) -> lapin::Result<Reader> {
    let name: ShortString = format!("{}.stream", shared.config.prefix).into();
    let channel = declare(connection, &name, &shared.config.source).await?;
    let (exchange, everything) = (shared.exchange.clone(), "#".into());
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(name.clone(), exchange, everything, options, none)
        .await?;

    let mut end = attach(connection, &name, AMQPValue::LongString("last".into())).await?;
    // After the attachment, or it could be in a part of the stream before that.
    let fence = shared.topics.fence(&[]);
    shared.publisher.fence(&shared.fence, fence);
    let last = loop {
        let delivery = end.next().await?;
        if is_fence(shared, &delivery, fence) {
            break Position::of(&delivery);
        }
    };
    let anchor = shared.cursor.get();
    let Some(anchor) = anchor.filter(|anchor| anchor.offset < last.offset) else {
        if shared.cursor.get().is_some() {
            // The stream ends before the anchor: it is another one, or it was rolled back.
            shared.topics.resume(lost(LossCause::Reset));
        }
        shared.cursor.advance(last);
        shared.topics.came_back(fence);
        return Ok(end.reader(None));
    };
    drop(end);
    let offset = AMQPValue::LongLongInt(anchor.offset);
    let mut resumed = attach(connection, &name, offset).await?;
    let (delivery, first) = loop {
        let delivery = resumed.next().await?;
        // The broker may begin where the part of the stream begins that the offset is in.
        let position = Position::of(&delivery);
        if position.offset >= anchor.offset {
            break (delivery, position);
        }
    };
    if first == anchor {
        // At most: the offsets have holes, and not all of it is for us.
        let replayed = (last.offset - anchor.offset - 1).unsigned_abs();
        shared.topics.resume(Continuity::Unbroken { replayed });
    } else {
        let trimmed = first.offset > anchor.offset;
        shared.topics.resume(lost(if trimmed {
            LossCause::Trimmed
        } else {
            LossCause::Reset
        }));
        hand_out(shared, delivery, first.offset < last.offset).await;
        shared.cursor.advance(first);
    }
    Ok(resumed.reader(Some(last.offset)))
}

/// Declares the stream. Returns the channel that was asked on: a "no" closes it.
async fn declare(
    connection: &Connection,
    name: &ShortString,
    source: &Source,
) -> lapin::Result<Channel> {
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    patiently(error::is_not_found, || async move {
        let channel = connection.channel().await?;
        let declared = channel.queue_declare(name.clone(), durable, arguments(source));
        declared.await.map(|_| channel)
    })
    .await
}

/// Asks again for a while, as long as the answer is one that says "not yet": a server that has just started takes
/// connections before it has its streams again.
async fn patiently<T, F: Future<Output = lapin::Result<T>>>(
    not_yet: impl Fn(&lapin::Error) -> bool,
    ask: impl Fn() -> F,
) -> lapin::Result<T> {
    for _ in 0..TRIES {
        match ask().await {
            Err(error) if not_yet(&error) => sleep(PAUSE).await,
            answer => return answer,
        }
    }
    ask().await
}

/// How much is lost, only the numbers in the messages can tell.
const fn lost(cause: LossCause) -> Continuity {
    Continuity::Lost { count: None, cause }
}

/// A consumer on a channel of its own.
struct Attached {
    channel: Channel,
    consumer: Consumer,
}

async fn attach(
    connection: &Connection,
    stream: &ShortString,
    offset: AMQPValue,
) -> lapin::Result<Attached> {
    let mut arguments = FieldTable::default();
    arguments.insert(OFFSET.into(), offset);
    let arguments = &arguments;
    let attached = patiently(error::has_no_copy, || async move {
        let channel = connection.channel().await?;
        prefetch(&channel).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(stream.clone(), "".into(), options, arguments.clone());
        let consumer = consumer.await?;
        Ok(Attached { channel, consumer })
    });
    attached.await.map_err(|error| {
        if error::has_no_copy(&error) {
            error::no_copy()
        } else {
            error
        }
    })
}

impl Attached {
    async fn next(&mut self) -> lapin::Result<Delivery> {
        let delivery = self.consumer.next().await.ok_or_else(taken_away)??;
        let one = BasicAckOptions::default();
        self.channel.basic_ack(delivery.delivery_tag, one).await?;
        Ok(delivery)
    }

    fn reader(self, replay_until: Option<i64>) -> Reader {
        Reader {
            channel: self.channel,
            consumer: self.consumer,
            first: Vec::new(),
            replay_until,
            wait_for: None,
        }
    }
}

fn arguments(source: &Source) -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: String| AMQPValue::LongString(text.into());
    let number = |number: u64| AMQPValue::LongLongInt(number.try_into().unwrap_or(i64::MAX));
    arguments.insert("x-queue-type".into(), text("stream".into()));
    if let Source::Stream {
        max_bytes,
        max_age,
        segment_bytes,
    } = source
    {
        arguments.insert("x-max-length-bytes".into(), number(*max_bytes));
        arguments.insert("x-max-age".into(), text(format!("{}s", max_age.as_secs())));
        let segment = "x-stream-max-segment-size-bytes";
        arguments.insert(segment.into(), number(*segment_bytes));
    }
    arguments
}

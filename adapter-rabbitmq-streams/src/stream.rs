//! Reading from the stream that all nodes share, from where this node was.
//!
//! A stream tells nobody that what he asks for is gone: from an offset that was deleted it starts later, and at one that it
//! has not reached yet it waits. So every session looks for the end first, where it puts a fence, and then reads the last
//! message that it had, the **anchor**, once more: if it is the first to come, nothing is missing.

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, ErrorKind,
    options::QueueDeclareOptions,
    protocol::{AMQPError, AMQPErrorKind, AMQPSoftError as Soft},
    types::{AMQPValue, FieldTable, ShortString},
};
use socketioxide_adapter_amqp::{Amqp, Connection, Reader, Source};
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Continuity, LossCause},
};
use tokio::time::sleep;

/// The consumer's argument for where to begin, and the header of a message that says where it is.
const OFFSET: &str = "x-stream-offset";
/// How often a stream that the server does not find is asked for again, and how long after.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The stream that all nodes share. These values must be the same at all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// How much the broker keeps. Default 1 GiB.
    pub max_bytes: u64,
    /// How long the broker keeps it. Default 1 hour.
    pub max_age: Duration,
    /// Size of the files that the stream is cut into; only whole ones are deleted. Default 16 MiB.
    pub segment_bytes: u64,
}

impl Source for Stream {
    const NAME: &'static str = "rabbitmq-streams";
    const DEFAULT: Self = Self {
        max_bytes: 1 << 30,
        max_age: Duration::from_secs(3600),
        segment_bytes: 16 << 20,
    };
    const TOTAL_ORDER: bool = true;

    fn take_from(url: &mut BackendUrl) -> Result<Self> {
        let mut stream = Self::DEFAULT;
        for (option, bytes) in [
            ("max_bytes", &mut stream.max_bytes),
            ("segment_bytes", &mut stream.segment_bytes),
        ] {
            let given = url.take_parsed(option, "a number of bytes")?;
            *bytes = given.unwrap_or(*bytes);
        }
        url.read_duration("max_age", &mut stream.max_age)?;
        Ok(stream)
    }

    fn validate(&self) -> Result<(), &'static str> {
        if self.max_bytes == 0 || self.segment_bytes == 0 || self.max_age.as_secs() == 0 {
            return Err("sizes must be at least 1 byte, max_age at least 1 second");
        }
        Ok(())
    }

    fn replays(&self) -> bool {
        true
    }

    async fn open(&self, node: &Amqp<Self>, connection: &Connection) -> lapin::Result<Reader> {
        let name: ShortString = format!("{}.stream", node.config.endpoint.prefix).into();
        let channel = self.declare(connection, &name).await?;
        node.bind(&channel, &name, "#", true).await?;
        let last = AMQPValue::LongString("last".into());
        let mut end = attach(connection, &name, last).await?;
        // After the attachment, or it could be in a part of the stream before that.
        let fence = node.follow(&channel, None, true).await?;
        let last = end.find(|it| node.fence_of(it) == Some(fence)).await?;
        let end_offset = offset(&last.properties);
        let Some(anchor) = node.anchor().filter(|it| offset(it) < end_offset) else {
            if node.anchor().is_some() {
                // The stream ends before the anchor: it is another one, or it was rolled back.
                node.resume(Continuity::lost(LossCause::Reset));
            }
            node.hand_out(last).await;
            return Ok(end);
        };
        drop(end);
        let begin = offset(&anchor);
        let mut reader = attach(connection, &name, AMQPValue::LongLongInt(begin)).await?;
        // The broker may begin where the part of the stream begins that the offset is in.
        let first = reader.find(|it| offset(&it.properties) >= begin).await?;
        let is_later = offset(&first.properties) > begin;
        if !is_later && first.properties.message_id() == anchor.message_id() {
            // At most: the offsets have holes, and not all of it is for us.
            let replayed = (end_offset - begin - 1).unsigned_abs();
            node.resume(Continuity::Unbroken { replayed });
        } else {
            // How much, only the numbers in the messages can tell.
            node.resume(Continuity::lost(match is_later {
                true => LossCause::Trimmed,
                false => LossCause::Reset,
            }));
            reader.first.push(first);
        }
        Ok(reader)
    }
}

impl Stream {
    /// Declares the stream. Returns the channel that was asked on: a "no" closes it.
    async fn declare(&self, connection: &Connection, name: &ShortString) -> lapin::Result<Channel> {
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let not_found = |error: &lapin::Error| is(error, Soft::NOTFOUND);
        patiently(not_found, || async move {
            let channel = connection.lapin.create_channel().await?;
            let declared = channel.queue_declare(name.clone(), durable, self.arguments());
            declared.await.map(|_| channel)
        })
        .await
    }

    fn arguments(&self) -> FieldTable {
        let text = |text: String| AMQPValue::LongString(text.into());
        let number = |number: u64| AMQPValue::LongLongInt(number.try_into().unwrap_or(i64::MAX));
        let mut arguments = FieldTable::default();
        for (name, value) in [
            ("x-queue-type", text("stream".to_owned())),
            ("x-max-length-bytes", number(self.max_bytes)),
            ("x-max-age", text(format!("{}s", self.max_age.as_secs()))),
            (
                "x-stream-max-segment-size-bytes",
                number(self.segment_bytes),
            ),
        ] {
            arguments.insert(name.into(), value);
        }
        arguments
    }
}

/// Where a message is in the stream.
fn offset(properties: &BasicProperties) -> i64 {
    let headers = properties.headers().as_ref().map(FieldTable::inner);
    match headers.and_then(|it| it.get(OFFSET)) {
        Some(AMQPValue::LongLongInt(offset)) => *offset,
        _ => 0,
    }
}

/// Reads from this offset on.
async fn attach(
    connection: &Connection,
    stream: &ShortString,
    offset: AMQPValue,
) -> lapin::Result<Reader> {
    let mut arguments = FieldTable::default();
    arguments.insert(OFFSET.into(), offset);
    let arguments = &arguments;
    let has_no_copy =
        |error: &lapin::Error| is(error, Soft::PRECONDITIONFAILED) || is(error, Soft::NOTFOUND);
    let attached = patiently(has_no_copy, || async move {
        let channel = connection.lapin.create_channel().await?;
        Reader::attach(channel, stream.clone(), false, arguments.clone()).await
    });
    attached.await.map_err(|error| match has_no_copy(&error) {
        // Elsewhere the other code means something that is not to be tried again.
        true => {
            let gone = AMQPError::new(AMQPErrorKind::Soft(Soft::NOTFOUND), "".into());
            ErrorKind::ProtocolError(gone).into()
        }
        false => error,
    })
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

/// Whether this is the broker's answer.
fn is(error: &lapin::Error, answer: Soft) -> bool {
    let answer = AMQPErrorKind::Soft(answer);
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == answer)
}

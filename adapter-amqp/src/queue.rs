//! Reading from a queue of this node's own, which the exchange fills.

use std::time::Duration;

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Continuity, LossCause},
};

use crate::{
    Amqp, Connection, Reader, Source,
    config::invalid,
    source::{PREFETCH, ack},
};

/// A queue of the node's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// What the broker holds for a node that is away or reads slowly; beyond it the oldest goes.
    pub max_bytes: u64,
    /// How long the broker keeps the queue of a node that is away. `None`: it ends with its connection, and what is published
    /// while the node is cut off is lost for it.
    pub expires: Option<Duration>,
}

impl Queue {
    /// A queue of 64 MiB that ends with its connection.
    pub const EXCLUSIVE: Self = Self {
        max_bytes: 64 << 20,
        expires: None,
    };
    /// A queue of 64 MiB that the broker keeps for a minute while the node is away.
    pub const DURABLE: Self = Self {
        expires: Some(Duration::from_secs(60)),
        ..Self::EXCLUSIVE
    };
}

impl Source for Queue {
    const NAME: &'static str = "amqp";
    const DEFAULT: Self = Self::EXCLUSIVE;
    const TOTAL_ORDER: bool = false;

    fn take_from(url: &mut BackendUrl) -> Result<Self> {
        let mut queue = match url.take("queue").as_deref() {
            None | Some("exclusive") => Self::EXCLUSIVE,
            Some("durable") => Self::DURABLE,
            Some(_) => return Err(invalid("option \"queue\" must be exclusive or durable")),
        };
        if let Some(expires) = &mut queue.expires {
            url.read_duration("expires", expires)?;
        }
        let max_bytes = url.take_parsed("max_bytes", "a number of bytes")?;
        queue.max_bytes = max_bytes.unwrap_or(queue.max_bytes);
        Ok(queue)
    }

    fn validate(&self) -> Result<(), &'static str> {
        if self.max_bytes == 0 || self.expires.is_some_and(|it| it.as_secs() == 0) {
            return Err("max_bytes must be at least 1 byte, expires at least 1 second");
        }
        Ok(())
    }

    fn replays(&self) -> bool {
        self.expires.is_some()
    }

    async fn open(&self, node: &Amqp<Self>, connection: &Connection) -> lapin::Result<Reader> {
        let durable = self.replays();
        let own = &node.own_name;
        let name: ShortString = match durable {
            true => own.as_str().into(),
            // A new one for each session: the broker may still hold the one before.
            false => format!("{own}.{:08x}", fastrand::u32(..)).into(),
        };
        let channel = connection.channel.clone();
        let options = QueueDeclareOptions {
            durable,
            exclusive: !durable,
            ..Default::default()
        };
        let number = |it: u128| AMQPValue::LongLongInt(it.try_into().unwrap_or(i64::MAX));
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length-bytes".into(), number(self.max_bytes.into()));
        if let Some(expires) = self.expires {
            arguments.insert("x-expires".into(), number(expires.as_millis()));
        }
        let queue = channel
            .queue_declare(name.clone(), options, arguments)
            .await?;
        // One that was kept has the anchor at least, or what has displaced it.
        let is_new = queue.message_count() == 0 && queue.consumer_count() == 0;
        if is_new {
            node.topics.end(false);
        }
        // All this before it is read: on a narrow way the broker's answers would come behind everything that it sends ahead.
        node.bind(&channel, &name, own, true).await?;
        let fence = node.follow(&channel, Some(&name), true).await?;
        // A connection that the broker has not given up yet may still read from the same queue. Two readers would share its
        // messages.
        let mut reader = Reader::attach(channel, name, true, Default::default()).await?;
        let Some(anchor) = node.anchor().filter(|_| durable && !is_new) else {
            let fence = reader.find(|it| node.fence_of(it) == Some(fence)).await?;
            node.hand_out(fence).await;
            return Ok(reader);
        };
        // The anchor, the last message that was handed out, was never acknowledged. A full queue loses its oldest messages
        // first, so that nothing is missing if it is there. What was acknowledged, but the broker did not hear of it, comes
        // before it once more. The fence comes after all that was missed, which is as slow as those who read it: nobody waits
        // for it.
        while reader.first.len() < PREFETCH.into() {
            let delivery = reader.next().await?;
            if delivery.properties.message_id() == anchor.message_id() {
                // If those before were as many as may be unacknowledged, nothing would follow.
                ack(&reader.channel, delivery.delivery_tag - 1).await?;
                let before = reader.first.len() as u32 + 1;
                let replayed = queue.message_count().saturating_sub(before).into();
                node.resume(Continuity::Unbroken { replayed });
                reader.first.clear();
                return Ok(reader);
            }
            let is_end = node.fence_of(&delivery) == Some(fence);
            reader.first.push(delivery);
            if is_end {
                break;
            }
        }
        node.resume(Continuity::lost(LossCause::Overflow));
        Ok(reader)
    }
}

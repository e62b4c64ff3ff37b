//! Where a node reads from, and how.

use std::{fmt::Debug, future::Future, io};

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::{FieldTable, ShortString},
};
use socketioxide_adapter_core::{Result, backend::BackendUrl};

use crate::{Amqp, Connection};

/// Messages that the broker sends ahead of our acknowledgements.
pub(crate) const PREFETCH: u16 = 500;

/// Where a node reads from. All nodes publish to the same exchange, so that nodes of different kinds hear each other.
pub trait Source: Debug + Clone + Send + Sync + 'static {
    /// Name of the transport that reads from it.
    const NAME: &'static str;
    /// What is read from if nothing else is said.
    const DEFAULT: Self;
    /// Whether all nodes read everything in the same order.
    const TOTAL_ORDER: bool;

    /// Takes its options of a URL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](socketioxide_adapter_core::ErrorKind::Config).
    fn take_from(url: &mut BackendUrl) -> Result<Self>;

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// What is wrong.
    fn validate(&self) -> Result<(), &'static str>;

    /// Whether the broker keeps for a node that is away what is published in namespaces.
    fn replays(&self) -> bool;

    /// Declares it and begins to read. If it [replays](Self::replays), from behind the node's [anchor](Amqp::anchor), and
    /// tells by [`Amqp::resume`] whether something is missing there.
    fn open(
        &self,
        node: &Amqp<Self>,
        connection: &Connection,
    ) -> impl Future<Output = lapin::Result<Reader>> + Send;
}

/// What a session reads from. The last message is never acknowledged.
#[derive(Debug)]
pub struct Reader {
    pub(crate) channel: Channel,
    pub(crate) consumer: Consumer,
    /// To be bound to the topics; a source without it gets everything.
    pub(crate) queue: Option<ShortString>,
    /// What was read already, but not handed out.
    pub first: Vec<Delivery>,
}

impl Reader {
    /// Reads from a queue or stream, on a channel of its own. `own`: it is a queue of this node, which nobody else may read
    /// from, and which the session has to bind to the topics.
    ///
    /// # Errors
    /// Those of the broker.
    pub async fn attach(
        channel: Channel,
        queue: ShortString,
        own: bool,
        arguments: FieldTable,
    ) -> lapin::Result<Self> {
        prefetch(&channel).await?;
        let options = BasicConsumeOptions {
            exclusive: own,
            ..Default::default()
        };
        let consumer = channel.basic_consume(queue.clone(), "".into(), options, arguments);
        Ok(Self {
            consumer: consumer.await?,
            channel,
            queue: own.then_some(queue),
            first: Vec::new(),
        })
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> lapin::Result<Delivery> {
        self.consumer.next().await.ok_or_else(taken_away)?
    }

    /// Skips everything before the first message for which `is_it` holds, and returns that one.
    ///
    /// # Errors
    /// The connection was lost, or the broker has nothing to read from any more.
    pub async fn find(&mut self, is_it: impl Fn(&Delivery) -> bool) -> lapin::Result<Delivery> {
        loop {
            let delivery = self.next().await?;
            if is_it(&delivery) {
                return Ok(delivery);
            }
            ack(&self.channel, delivery.delivery_tag).await?;
        }
    }
}

/// Says how far the broker may run ahead; also a question that it must answer.
pub(crate) async fn prefetch(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(PREFETCH, Default::default()).await
}

/// Acknowledges everything up to this delivery.
pub(crate) async fn ack(channel: &Channel, tag: u64) -> lapin::Result<()> {
    let multiple = BasicAckOptions { multiple: true };
    // 0 would mean all that there is.
    if tag > 0 {
        channel.basic_ack(tag, multiple).await?;
    }
    Ok(())
}

/// The broker took a consumer away: the queue or stream was deleted, or its node went down.
pub(crate) fn taken_away() -> lapin::Error {
    io::Error::from(io::ErrorKind::BrokenPipe).into()
}

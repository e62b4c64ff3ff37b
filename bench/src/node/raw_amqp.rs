//! lapin without any adapter: the limit on RabbitMQ, each payload confirmed.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::FieldTable,
};
use socketioxide_core::Value;

use super::{Node, Nodes, Result, Role, frame, text};
use crate::heard::Heard;

const EXCHANGE: &str = "raw";

/// One payload for so many messages, one connection each way, one queue for each node.
pub(crate) struct RawAmqp {
    publishing: Channel,
    batch: usize,
    _connections: [Connection; 2],
}

pub(crate) async fn raw_amqp(role: &Role) -> Result<Nodes<RawAmqp>> {
    let heard = Arc::<Heard>::default();
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let hears = (role.sockets > 0).then(|| heard.clone());
        let node = connect(role, hears).await.map_err(text)?;
        nodes.push(Arc::new(node));
    }
    Ok(Nodes { nodes, heard })
}

async fn connect(role: &Role, heard: Option<Arc<Heard>>) -> lapin::Result<RawAmqp> {
    let connection = || Connection::connect(&role.url, ConnectionProperties::default());
    let connections = [connection().await?, connection().await?];
    let publishing = connections[0].create_channel().await?;
    let (no, none) = (ConfirmSelectOptions::default(), FieldTable::default);
    publishing.confirm_select(no).await?;
    let subscribing = connections[1].create_channel().await?;
    let declare = ExchangeDeclareOptions::default();
    let topic = ExchangeKind::Topic;
    subscribing
        .exchange_declare(EXCHANGE.into(), topic, declare, none())
        .await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = subscribing
        .queue_declare("".into(), exclusive, none())
        .await?;
    let queue = queue.name().clone();
    let bind = QueueBindOptions::default();
    subscribing
        .queue_bind(queue.clone(), EXCHANGE.into(), "raw".into(), bind, none())
        .await?;
    let unacknowledged = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    let consumer = subscribing
        .basic_consume(queue, "raw".into(), unacknowledged, none())
        .await?;
    tokio::spawn(hear(consumer, heard, role.batch));
    Ok(RawAmqp {
        publishing,
        batch: role.batch,
        _connections: connections,
    })
}

async fn hear(mut consumer: Consumer, heard: Option<Arc<Heard>>, batch: usize) {
    while let Some(Ok(delivery)) = consumer.next().await {
        if let Some(heard) = &heard {
            heard.frame(&delivery.data, batch);
        }
    }
}

impl Node for RawAmqp {
    async fn send(&self, message: Value) -> Result<()> {
        let payload = frame(&message, self.batch);
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let sent = self.publishing.basic_publish(
            EXCHANGE.into(),
            "raw".into(),
            options,
            &payload,
            properties,
        );
        sent.await.map_err(text)?.await.map_err(text)?;
        Ok(())
    }

    fn batch(&self) -> u64 {
        self.batch as u64
    }
}

//! async-nats without any adapter: the limit on NATS.

use std::sync::Arc;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt as _;
use socketioxide_core::Value;

use super::{Node, Nodes, Result, Role, frame, text};
use crate::heard::Heard;

const SUBJECT: &str = "raw";

/// One payload for so many messages, and one connection each way.
pub(crate) struct RawNats {
    publishing: Client,
    batch: usize,
}

pub(crate) async fn raw_nats(role: &Role) -> Result<Nodes<RawNats>> {
    let heard = Arc::<Heard>::default();
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let publishing = async_nats::connect(&role.url).await.map_err(text)?;
        let subscribing = async_nats::connect(&role.url).await.map_err(text)?;
        // As with the adapters, the publisher hears itself.
        let subscription = subscribing.subscribe(SUBJECT).await.map_err(text)?;
        subscribing.flush().await.map_err(text)?;
        let hears = (role.sockets > 0).then(|| heard.clone());
        tokio::spawn(hear(subscription, hears, role.batch));
        nodes.push(Arc::new(RawNats {
            publishing,
            batch: role.batch,
        }));
    }
    Ok(Nodes { nodes, heard })
}

async fn hear(mut subscription: Subscriber, heard: Option<Arc<Heard>>, batch: usize) {
    while let Some(message) = subscription.next().await {
        if let Some(heard) = &heard {
            heard.frame(&message.payload, batch);
        }
    }
}

impl Node for RawNats {
    async fn send(&self, message: Value) -> Result<()> {
        let payload = frame(&message, self.batch);
        self.publishing
            .publish(SUBJECT, payload)
            .await
            .map_err(text)
    }

    fn batch(&self) -> u64 {
        self.batch as u64
    }
}

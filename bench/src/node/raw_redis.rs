//! A broker's client without any adapter: the limit that an adapter is measured against.

use std::{convert::Infallible, sync::Arc};

use redis::{
    AsyncConnectionConfig, Client, PushInfo, PushKind, Value as Reply, aio::MultiplexedConnection,
};
use socketioxide_core::Value;

use super::{Node, Nodes, Result, Role, text};
use crate::{heard::Heard, message::body};

const CHANNEL: &str = "raw";

/// redis-rs: one PUBLISH for each message, and one connection each way.
pub(crate) struct RawRedis {
    publishing: MultiplexedConnection,
    _subscribing: MultiplexedConnection,
}

pub(crate) async fn raw_redis(role: &Role) -> Result<Nodes<RawRedis>> {
    let heard = Arc::<Heard>::default();
    let client = Client::open(format!("{}?protocol=resp3", role.url)).map_err(text)?;
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let publishing = client.get_multiplexed_async_connection_with_config(&config);
        let publishing = publishing.await.map_err(text)?;
        let hears = (role.sockets > 0).then(|| heard.clone());
        let config = config.set_push_sender(move |push: PushInfo| {
            if let (PushKind::Message, Some(heard)) = (push.kind, &hears)
                && let Some(Reply::BulkString(payload)) = push.data.get(1)
            {
                heard.message(payload);
            }
            Ok::<(), Infallible>(())
        });
        let subscribing = client.get_multiplexed_async_connection_with_config(&config);
        let mut subscribing = subscribing.await.map_err(text)?;
        // As with the adapters, the publisher hears itself.
        subscribing.subscribe(CHANNEL).await.map_err(text)?;
        nodes.push(Arc::new(RawRedis {
            publishing,
            _subscribing: subscribing,
        }));
    }
    Ok(Nodes { nodes, heard })
}

impl Node for RawRedis {
    async fn send(&self, message: Value) -> Result<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(CHANNEL).arg(body(&message));
        let mut connection = self.publishing.clone();
        publish.query_async(&mut connection).await.map_err(text)
    }
}

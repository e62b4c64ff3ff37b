//! A whole Socket.IO server on a port of its own, for real clients.

use std::sync::Arc;

use axum::Router;
use socketioxide::{SocketIo, adapter::Adapter, layer::SocketIoLayer};
use socketioxide_adapter::{Cluster, ClusterAdapter, ClusterConfig, connect_with};
use socketioxide_core::{Value, adapter::CoreAdapter};
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};
use tokio::net::TcpListener;

use super::{Node, Nodes, Result, Role, text};
use crate::{heard::Heard, message::text_of};

/// A server that listens.
pub(crate) struct Server<A: Adapter> {
    io: SocketIo<A>,
    port: u16,
    cluster: Option<Cluster>,
}

/// A server with this project's adapter.
pub(crate) async fn our_server(role: &Role) -> Result<Nodes<Server<ClusterAdapter<Emitter>>>> {
    let cluster = connect_with(&role.url, ClusterConfig::default());
    let cluster = cluster.await.map_err(text)?;
    let built = SocketIo::builder().with_adapter::<ClusterAdapter<_>>(cluster.clone());
    let (layer, io) = built.build_layer();
    io.ns("/", async || {}).await.map_err(text)?;
    listen(layer, io, Some(cluster)).await
}

/// A server with socketioxide-redis over redis-rs.
pub(crate) async fn sio_redis_server(role: &Role) -> Result<Nodes<Server<RedisAdapter<Emitter>>>> {
    let client = redis::Client::open(format!("{}?protocol=resp3", role.url)).map_err(text)?;
    let state = RedisAdapterCtr::new_with_redis(&client).await;
    let built = SocketIo::builder().with_adapter::<RedisAdapter<_>>(state.map_err(text)?);
    let (layer, io) = built.build_layer();
    io.ns("/", async || {}).await.map_err(text)?;
    listen(layer, io, None).await
}

/// What socketioxide puts behind an adapter.
pub(crate) type Emitter = socketioxide::adapter::Emitter;

async fn listen<A: Adapter>(
    layer: SocketIoLayer<A>,
    io: SocketIo<A>,
    cluster: Option<Cluster>,
) -> Result<Nodes<Server<A>>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(text)?;
    let port = listener.local_addr().map_err(text)?.port();
    let app = Router::new().layer(layer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(Nodes {
        nodes: vec![Arc::new(Server { io, port, cluster })],
        heard: Arc::<Heard>::default(),
    })
}

impl<A: Adapter + CoreAdapter<Emitter>> Node for Server<A> {
    async fn send(&self, message: Value) -> Result<()> {
        self.io.emit("m", text_of(&message)).await.map_err(text)
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn reported(&self) -> u64 {
        super::adapter::reported(self.cluster.as_ref())
    }
}

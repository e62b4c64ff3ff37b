//! Adapters of socketioxide, driven as socketioxide drives them: ours and the published one for Redis.

use std::{fmt::Display, future::Future, sync::Arc};

use fred::{prelude::Builder, types::RespVersion};
use futures_util::StreamExt as _;
use socketioxide_adapter::{Cluster, ClusterAdapter, ClusterConfig, PublishMode, connect_with};
use socketioxide_core::{
    Str, Uid, Value,
    adapter::{BroadcastFlags, BroadcastOptions, CoreAdapter, CoreLocalAdapter},
    packet::Packet,
};
use socketioxide_redis::{
    CustomRedisAdapter, RedisAdapterCtr,
    drivers::{fred::FredDriver, redis::RedisDriver},
};

use super::{Node, Nodes, Result, Role, emitter::Emitter, text};
use crate::heard::Heard;

/// One server with an adapter; its first namespace is the one that is used.
pub(crate) struct Server<A> {
    namespaces: Vec<Arc<A>>,
    path: Str,
    cluster: Option<Cluster>,
}

/// Starts a server and waits until it hears the others.
async fn start<A, E>(state: &A::State, role: &Role, heard: &Arc<Heard>) -> Result<Server<A>>
where
    A: CoreAdapter<Emitter>,
    A::InitRes: Future<Output = Result<(), E>>,
    E: Display,
{
    let uid = Uid::new();
    let mut namespaces = Vec::new();
    for number in 0..role.namespaces {
        let (path, sockets) = match number {
            0 => ("/".to_owned(), role.sockets),
            _ => (format!("/{number}"), 0),
        };
        let emitter = Emitter::new(&path, uid, sockets, heard.clone());
        let adapter = Arc::new(A::new(state, CoreLocalAdapter::new(emitter)));
        adapter.clone().init(|| {}).await.map_err(text)?;
        namespaces.push(adapter);
    }
    Ok(Server {
        namespaces,
        path: Str::from("/"),
        cluster: None,
    })
}

/// Servers with this project's adapter.
pub(crate) async fn ours(
    role: &Role,
    confirmed: bool,
) -> Result<Nodes<Server<ClusterAdapter<Emitter>>>> {
    let heard = Arc::<Heard>::default();
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let mode = if confirmed {
            PublishMode::Confirmed
        } else {
            PublishMode::Queued
        };
        let config = ClusterConfig::default().with_publish_mode(mode);
        let cluster = connect_with(&role.url, config).await.map_err(text)?;
        let mut server = start(&cluster, role, &heard).await?;
        server.cluster = Some(cluster);
        nodes.push(Arc::new(server));
    }
    Ok(Nodes { nodes, heard })
}

/// Servers with socketioxide-redis over redis-rs, as its documentation sets it up.
pub(crate) async fn sio_redis(
    role: &Role,
) -> Result<Nodes<Server<CustomRedisAdapter<Emitter, RedisDriver>>>> {
    let heard = Arc::<Heard>::default();
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let url = format!("{}?protocol=resp3", role.url);
        let client = redis::Client::open(url).map_err(text)?;
        let state = RedisAdapterCtr::new_with_redis(&client).await;
        let state = state.map_err(text)?;
        nodes.push(Arc::new(start(&state, role, &heard).await?));
    }
    Ok(Nodes { nodes, heard })
}

/// Servers with socketioxide-redis over fred, as its documentation sets it up.
pub(crate) async fn fred(
    role: &Role,
) -> Result<Nodes<Server<CustomRedisAdapter<Emitter, FredDriver>>>> {
    let heard = Arc::<Heard>::default();
    let mut nodes = Vec::new();
    for _ in 0..role.nodes {
        let mut config = fred::prelude::Config::from_url(&role.url).map_err(text)?;
        config.version = RespVersion::RESP3;
        let client = Builder::from_config(config).build_subscriber_client();
        let state = RedisAdapterCtr::new_with_fred(client.map_err(text)?).await;
        let state = state.map_err(text)?;
        nodes.push(Arc::new(start(&state, role, &heard).await?));
    }
    Ok(Nodes { nodes, heard })
}

fn everyone() -> BroadcastOptions {
    let mut opts = BroadcastOptions::default();
    opts.add_flag(BroadcastFlags::Broadcast);
    opts
}

impl<A: CoreAdapter<Emitter>> Node for Server<A> {
    async fn send(&self, message: Value) -> Result<()> {
        let packet = Packet::event(self.path.clone(), message);
        let sent = self.namespaces[0].broadcast(packet, everyone()).await;
        sent.map_err(text)
    }

    async fn fetch(&self) -> Result<usize> {
        let sockets = self.namespaces[0].fetch_sockets(everyone()).await;
        sockets.map(|sockets| sockets.len()).map_err(text)
    }

    async fn ack(&self, message: Value) -> Result<usize> {
        let packet = Packet::event(self.path.clone(), message);
        let acks = self.namespaces[0].broadcast_with_ack(packet, everyone(), None);
        let acks = acks.await.map_err(text)?;
        let good = acks.filter(|(_, ack)| std::future::ready(ack.is_ok()));
        Ok(good.count().await)
    }

    fn reported(&self) -> u64 {
        reported(self.cluster.as_ref())
    }
}

/// Messages that a node of ours has told to be lost.
pub(super) fn reported(cluster: Option<&Cluster>) -> u64 {
    cluster.map_or(0, |cluster| {
        let stats = cluster.stats();
        stats.envelopes_lost + stats.envelopes_unsent
    })
}

//! One server of a cluster, in each of the ways that are compared.

mod adapter;
mod channel;
mod clients;
mod emitter;
mod raw_amqp;
mod raw_nats;
mod raw_redis;
mod server;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use socketioxide_core::Value;

pub(crate) use self::{
    adapter::{fred, ours, sio_redis},
    channel::channel,
    clients::clients,
    raw_amqp::raw_amqp,
    raw_nats::raw_nats,
    raw_redis::raw_redis,
    server::{our_server, sio_redis_server},
};
use crate::{heard::Heard, message::body};

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// This project's adapter; the URL tells the backend.
    Ours {
        /// Each call waits for the broker.
        confirmed: bool,
    },
    /// socketioxide-redis with its `redis` driver.
    SioRedis,
    /// socketioxide-redis with its `fred` driver.
    SioFred,
    /// No adapter and no broker.
    Channel,
    /// redis-rs without any adapter: one PUBLISH for each message.
    RawRedis,
    /// async-nats without any adapter.
    RawNats,
    /// lapin without any adapter, with publisher confirms.
    RawAmqp,
    /// A whole server for real clients.
    Server {
        /// With this project's adapter, or with socketioxide-redis.
        ours: bool,
    },
    /// Clients of the server at the URL.
    Clients,
    /// A Node.js server: `bench/peers/peer.mjs`.
    Node {
        /// With this adapter.
        adapter: NodeAdapter,
    },
}

/// The Redis adapters of Socket.IO itself, with the client `redis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NodeAdapter {
    /// Pub/Sub.
    Classic,
    /// Sharded Pub/Sub.
    Sharded,
    /// Redis Streams.
    Streams,
}

/// What a process is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// Servers in this process.
    pub(crate) nodes: usize,
    /// Namespaces of each.
    pub(crate) namespaces: usize,
    /// Sockets of each in its first namespace.
    pub(crate) sockets: usize,
    /// Messages in a payload of a bare client.
    pub(crate) batch: usize,
    pub(crate) count_allocations: bool,
}

impl Role {
    pub(crate) const fn new(kind: Kind, url: String) -> Self {
        Self {
            kind,
            url,
            nodes: 1,
            namespaces: 1,
            sockets: 0,
            batch: 1,
            count_allocations: false,
        }
    }

    #[must_use]
    pub(crate) const fn with_sockets(mut self, sockets: usize) -> Self {
        self.sockets = sockets;
        self
    }

    #[must_use]
    pub(crate) const fn with_nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    #[must_use]
    pub(crate) const fn with_namespaces(mut self, namespaces: usize) -> Self {
        self.namespaces = namespaces;
        self
    }
}

pub(crate) type Result<T, E = String> = std::result::Result<T, E>;

/// The operations that are measured.
pub(crate) trait Node: Send + Sync + 'static {
    /// `io.emit(..)`.
    fn send(&self, message: Value) -> impl Future<Output = Result<()>> + Send;

    /// `io.fetch_sockets()`; how many were found.
    fn fetch(&self) -> impl Future<Output = Result<usize>> + Send {
        async { Err("not supported".to_owned()) }
    }

    /// `io.emit_with_ack(..)`; how many answered.
    fn ack(&self, _message: Value) -> impl Future<Output = Result<usize>> + Send {
        async { Err("not supported".to_owned()) }
    }

    /// Where it listens, if it does.
    fn port(&self) -> u16 {
        0
    }

    /// Messages that one call of [`send`](Self::send) carries.
    fn batch(&self) -> u64 {
        1
    }

    /// Messages that this node knows to be lost and has told the application.
    fn reported(&self) -> u64 {
        0
    }
}

/// Servers of one kind, and what they hear together.
pub(crate) struct Nodes<N> {
    pub(crate) nodes: Vec<Arc<N>>,
    pub(crate) heard: Arc<Heard>,
}

/// A payload of so many messages, as a bare client would send a batch of them.
fn frame(message: &Value, batch: usize) -> Bytes {
    body(message).repeat(batch).into()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

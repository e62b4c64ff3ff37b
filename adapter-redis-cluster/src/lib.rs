//! Redis Cluster as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter), by sharded Pub/Sub.
//!
//! Like `socketioxide-adapter-redis`, on whose sessions it is made, but each topic is on the master that has the slot of its
//! channel `<prefix>:<topic>`, and nothing is broadcast within the cluster. Works with Redis 7 or newer and with Valkey. Two
//! connections to each master are kept. A slot that moves is followed to its new master; a fail-over is a new session.
//! Delivery is at most once: what is published while a node is cut off is lost for it, and the core reports exactly how much.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_redis_cluster::BACKEND);
//! let transport = registry.connect("redis+cluster://10.0.0.1,10.0.0.2?prefix=chat").await?;
//! transport.publish(&Topic::Cluster, "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `redis+cluster://[user:password@]host1[:6379],host2,…` gives some servers of the cluster, which know the others. With TLS
//! (cargo feature `tls`): `rediss+cluster://`. With `valkey` for `redis` they mean the same.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of every channel name; clusters with different prefixes do not see each other |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (`rediss+cluster://`) |
//!
//! [`RedisClusterConfig`] has the same and the rest: buffers, payload limit, reconnect back-off.
//!
//! # What the servers must allow
//! With ACLs, the user needs `+hello +cluster|slots +spublish +ssubscribe +sunsubscribe` and `&<prefix>:*`.

mod config;
mod slots;
mod topology;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::config::RedisClusterConfig;
pub use socketioxide_adapter_redis::{
    Address, Backoff, BufferLimits, Endpoint, Limits, RedisTransport, RootCa,
};

/// Sharded Pub/Sub on a Redis Cluster, for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "redis-cluster",
    schemes: &[
        "redis+cluster",
        "rediss+cluster",
        "valkey+cluster",
        "valkeys+cluster",
    ],
    connect: |url| connecting(async { RedisClusterConfig::from_url(url)?.connect().await }),
};

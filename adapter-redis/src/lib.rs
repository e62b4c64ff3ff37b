//! Redis Pub/Sub as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! Works with Redis 6.2 or newer and with Valkey: with one server, or with the primary that sentinels know. A read-only
//! replica is refused, since what is published there reaches only its own clients. A topic is a channel `<prefix>:<topic>`;
//! one connection publishes, a second one subscribes. Delivery is at most once: what is published while a node is cut off is
//! lost for it, and the core reports exactly how much.
//!
//! What else rides on these sessions: [`topology`] is how `socketioxide-adapter-redis-cluster` finds the masters of a Redis
//! Cluster, [`companion`] how `socketioxide-adapter-redis-streams` reads its logs.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_redis::BACKEND);
//! let transport = registry.connect("redis://127.0.0.1:6379?prefix=chat").await?;
//! transport.publish(&Topic::Cluster, "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `redis://[user:password@]host[:6379][/database]`, the same with `rediss://` for TLS (cargo feature `tls`), or
//! `redis+unix:///path/to/socket`.
//!
//! `redis+sentinel://primary@sentinel1[:26379],sentinel2,…` asks the sentinels for the primary of this name, at each
//! attempt to connect and once a second from then on. With TLS: `rediss+sentinel://`. All schemes may begin with `valkey`
//! instead of `redis`.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of every channel name; clusters with different prefixes do not see each other |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (`rediss://`) |
//! | `db`, `user`, `password` | | database and credentials (`redis+unix://` and `redis+sentinel://`, which have no other place for them) |
//! | `sentinel_user`, `sentinel_password` | | credentials of the sentinels |
//!
//! [`RedisConfig`] has the same and the rest: buffers, payload limit, reconnect back-off.
//!
//! # What the server must allow
//! With ACLs, the user needs `+hello +publish +subscribe +unsubscribe` (and `+select` with a database) and `&<prefix>:*`; on
//! sentinels `+hello +sentinel|get-master-addr-by-name`.
//!
//! Redis closes the connection of a subscriber that has 32 MiB unread, or 8 MiB for a minute
//! (`client-output-buffer-limit pubsub`). This crate reads at once and keeps its own backlog bounded and counted, so that
//! happens only when the process or the network stands still; it is an ordinary reconnect.

pub mod companion;
mod config;
mod connection;
mod error;
mod session;
pub mod topology;
mod transport;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::{
    config::RedisConfig,
    topology::Sentinel,
    transport::{Redis, RedisTransport},
};
pub use socketioxide_adapter_core::{
    backend::{Endpoint, RootCa},
    socket::Address,
    transport::{Backoff, BufferLimits, Limits},
};

/// Redis Pub/Sub, on one server or with sentinels, for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "redis",
    schemes: &[
        "redis",
        "rediss",
        "redis+unix",
        "redis+sentinel",
        "rediss+sentinel",
        "valkey",
        "valkeys",
        "valkey+unix",
        "valkey+sentinel",
        "valkeys+sentinel",
    ],
    connect: |url| connecting(async { RedisConfig::from_url(url)?.connect().await }),
};

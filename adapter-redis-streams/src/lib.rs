//! Redis Streams as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! Like `socketioxide-adapter-redis`, but what is published in a namespace goes through a log that the server keeps for a
//! while. A node that was cut off reads on where it stopped, and gets what it missed, in order and once. What the server no
//! longer has is told, with the exact number; so is a log that was deleted, emptied or rolled back.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_redis_streams::BACKEND);
//! let transport = registry.connect("redis+streams://127.0.0.1:6379?maxlen=50000").await?;
//! transport.publish(&Topic::Namespace("/chat".into()), "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `redis+streams://[user:password@]host[:6379][/database]`, the same with `rediss+streams://` for TLS (cargo feature
//! `tls`), or `redis+sentinel+streams://primary@sentinel1[:26379],sentinel2,…`; with `valkey` for `redis` they mean the
//! same. All options of `socketioxide-adapter-redis`, and:
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `maxlen` | `10000` | a log keeps at least so many entries, 100 or more |
//! | `max_age` | – | instead of `maxlen`: a log keeps at least the entries of this time, `1s` or more, by the server's clock |
//! | `streams` | – | so many logs, shared by all namespaces, instead of one for each |
//! | `ephemeral` | `pubsub` | `log`: membership and answers go through the log too, for platforms without Pub/Sub |
//! | `expire` | `3600s` | a log that no node has read for this time is deleted by the server, `60s` or more |
//!
//! `streams` and `ephemeral` must be the same at all nodes; one that differs is refused. [`StreamsConfig`] has the same and
//! the retention of single namespaces.
//!
//! # What the server must allow
//! Redis 6.2 or newer; losses are counted from 7.0 on, and by Valkey. With ACLs, the user needs what Pub/Sub needs, and
//! `+xadd +xread +xrange +xinfo +xgroup|create +pexpire +set +get +time +client|id +client|unblock` on `~<prefix>:*`.
//! Without `+client|unblock`, a new subscription may take a second longer to hear the first payload.
//!
//! # How it reads
//! One connection waits (`XREAD BLOCK`) behind the last entry of all logs. Where something may be missing, after a
//! reconnect, after a pause, and every ten seconds, the reader looks at the log from its last entry on: if that entry, the
//! anchor, is still there, nothing behind it can be missing, since logs are only trimmed at their front. If it is not, the
//! log's counters say how much is gone. A random number that begins with the log tells whether it is still the same one.

mod config;
mod error;
mod page;
mod reply;
mod server;
mod session;
mod transport;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::{
    config::{Ephemeral, Retention, StreamsConfig},
    transport::RedisStreamsTransport,
};
pub use socketioxide_adapter_redis::{
    Address, Backoff, BufferLimits, Endpoint, Limits, RedisConfig, RootCa, Sentinel,
};

/// Redis Streams for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "redis-streams",
    schemes: &[
        "redis+streams",
        "rediss+streams",
        "redis+sentinel+streams",
        "rediss+sentinel+streams",
        "valkey+streams",
        "valkeys+streams",
        "valkey+sentinel+streams",
        "valkeys+sentinel+streams",
    ],
    connect: |url| connecting(async { StreamsConfig::from_url(url)?.connect().await }),
};

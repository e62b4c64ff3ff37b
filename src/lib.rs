//! One cluster adapter for [socketioxide], any message broker.
//!
//! A Socket.IO server knows only the clients connected to it. This crate makes any number of Rust socketioxide servers
//! behave as one: `io.emit()`, rooms, acknowledgements, remote joins and queries reach every node, over the broker you
//! already run. The application does not change; the broker is a URL.
//!
//! ```
//! use socketioxide::{SocketIo, adapter::Adapter, extract::SocketRef};
//! use socketioxide_adapter::{ClusterAdapter, connect};
//!
//! async fn on_connect<A: Adapter>(socket: SocketRef<A>) {
//!     socket.broadcast().emit("hello", &socket.id).await.ok();
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = connect("memory://docs").await?; // or redis://127.0.0.1:6379
//! let (layer, io) = SocketIo::builder()
//!     .with_adapter::<ClusterAdapter<_>>(cluster.clone())
//!     .build_layer();
//! io.ns("/", on_connect).await?;
//! # let _ = layer;
//! // … serve `layer`, and at the end:
//! io.close().await;
//! cluster.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Backends
//!
//! | URL | cargo feature | crate |
//! | --- | --- | --- |
//! | `memory://name` | always there | [`socketioxide_adapter_core::memory`] |
//! | `redis://`, `rediss://`, `redis+unix://`, `redis+sentinel://` | `redis` (default) | `socketioxide-adapter-redis` |
//! | `redis+cluster://` | `redis-cluster` | `socketioxide-adapter-redis-cluster` |
//! | `redis+streams://`, `rediss+streams://`, `redis+sentinel+streams://` | `redis-streams` | `socketioxide-adapter-redis-streams` |
//! | `amqp://`, `amqps://` | `amqp` | `socketioxide-adapter-amqp` |
//! | `amqp+streams://`, `amqps+streams://` | `rabbitmq-streams` | `socketioxide-adapter-rabbitmq-streams` |
//! | `nats://`, `nats+tls://` | `nats` | `socketioxide-adapter-nats` |
//! | `nats+jetstream://`, `nats+jetstream+tls://` | `jetstream` | `socketioxide-adapter-jetstream` |
//!
//! # What holds
//!
//! * Local sockets are always served, whatever the broker does.
//! * A socket sees each message of a peer at most once and in the order of its sender; what was lost on the way is
//!   reported exactly, as [`ClusterEvent::Gap`].
//! * A broker that restarts is reconnected to without help, and the link counts as up only when a probe of this node came
//!   back through the broker.
//! * No call waits for ever.
//!
//! [socketioxide]: https://docs.rs/socketioxide

mod backends;

pub use socketioxide_adapter_core::{
    Answer, Cluster, ClusterAckStream, ClusterAdapter, ClusterConfig, ClusterEvent, ClusterEvents,
    ClusterStats, Error, ErrorKind, InitRes, LeaveReason, NodeId, NodeInfo, OnMissing,
    OutagePolicy, Outcome, PublishMode, Result, backend, memory, transport, wire,
};

pub use self::backends::{connect, connect_with, registry};

/// The code in README and `docs/`, compiled with the documentation tests.
#[cfg(all(doctest, feature = "redis"))]
mod prose {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/operations.md")]
    mod operations {}
}

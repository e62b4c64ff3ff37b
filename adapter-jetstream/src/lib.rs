//! NATS JetStream as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! Like `socketioxide-adapter-nats`, but what is published in a namespace goes through one stream that the server keeps for
//! a while. A node that was cut off gets back what it missed, in order, as far as the stream still has it; what it no longer
//! has is told, and so is a stream that was deleted or rolled back. Works with nats-server 2.9 or newer, alone or as a
//! cluster.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_jetstream::BACKEND);
//! let transport = registry.connect("nats+jetstream://127.0.0.1:4222?max_age=600s").await?;
//! transport.publish(&Topic::Namespace("/chat".into()), "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `nats+jetstream://[user:password@]host[:4222][,host2[:4222]…]`, the same with `nats+jetstream+tls://` for TLS. All options
//! of `socketioxide-adapter-nats`, and:
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `max_age`, `max_bytes` | `300s`, `268435456` | how long and how much is kept |
//! | `replicas` | `1` | on how many servers a frame is stored before it counts as accepted |
//! | `storage` | `file` | `file` or `memory` |
//!
//! `docs/backends/nats.md` in the repository tells what happens when, how to size a stream, and what the server must allow.

mod config;
mod error;
mod ids;
mod position;
mod reader;
mod session;
mod stream;
mod transport;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::{
    config::JetStreamConfig,
    transport::{JetStream, JetStreamTransport},
};
pub use socketioxide_adapter_nats::{
    Address, Auth, Backoff, BufferLimits, Endpoint, Limits, NatsConfig, RootCa,
};

/// NATS with JetStream for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "jetstream",
    schemes: &["nats+jetstream", "nats+jetstream+tls"],
    connect: |url| connecting(async { JetStreamConfig::from_url(url)?.connect().await }),
};

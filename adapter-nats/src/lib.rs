//! NATS core as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! Works with nats-server 2.9 or newer, alone or as a cluster. A topic is a subject. Delivery is at most once: what is
//! published while a node is cut off is lost for it, and the core reports exactly how much. `socketioxide-adapter-jetstream`
//! gives it back.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_nats::BACKEND);
//! let transport = registry.connect("nats://127.0.0.1:4222?prefix=chat").await?;
//! transport.publish(&Topic::Cluster, "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `nats://[user:password@]host[:4222][,host2[:4222]…]` or `nats://token@host`; the same with `nats+tls://` for TLS. Several
//! hosts are servers of one NATS cluster.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of every subject; clusters with different prefixes do not see each other |
//! | `creds` | | `.creds` file with a JWT and its nkey seed |
//! | `nkey` | | file with an nkey seed |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (TLS) |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//!
//! [`NatsConfig`] has the same and the rest: buffers, payload limit, reconnect back-off. `docs/backends/nats.md` in the
//! repository tells what happens when, and what the server must allow.

pub mod companion;
mod config;
mod connection;
mod error;
mod publisher;
mod session;
mod subjects;
mod transport;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::{
    config::{Auth, NatsConfig},
    transport::{Nats, NatsTransport},
};
pub use socketioxide_adapter_core::{
    backend::{Endpoint, RootCa},
    socket::Address,
    transport::{Backoff, BufferLimits, Limits},
};

/// NATS for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "nats",
    schemes: &["nats", "nats+tls"],
    connect: |url| connecting(async { NatsConfig::from_url(url)?.connect().await }),
};

//! NATS as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! Works with nats-server 2.9 or newer, alone or as a cluster. There are two of them:
//!
//! * **NATS core** ([`BACKEND`]): a topic is a subject. Delivery is at most once: what is published while a node is cut off
//!   is lost for it, and the core reports exactly how much.
//! * **JetStream** ([`JETSTREAM`], cargo feature `jetstream`): the frames of all namespaces go through one stream, and a node
//!   that was cut off gets back what it missed, as far as the stream still has it.
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
//! `nats://[user:password@]host[:4222][,host2[:4222]…]` or `nats://token@host`; the same with `nats+tls://` for TLS, with
//! `nats+jetstream://` for JetStream, and with `nats+jetstream+tls://` for both. Several hosts are servers of one NATS
//! cluster.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of every subject; clusters with different prefixes do not see each other |
//! | `creds` | | `.creds` file with a JWT and its nkey seed |
//! | `nkey` | | file with an nkey seed |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (TLS) |
//! | `max_age`, `max_bytes` | `300s`, `268435456` | JetStream: how long and how much is kept |
//! | `replicas` | `1` | JetStream: on how many servers a frame is stored before it counts as accepted |
//! | `storage` | `file` | JetStream: `file` or `memory` |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//!
//! [`NatsConfig`] has the same and the rest: buffers, payload limit, reconnect back-off. `docs/backends/nats.md` in the
//! repository tells what happens when, how to size a stream, and what the server must allow.

mod config;
mod connection;
mod error;
#[cfg_attr(feature = "jetstream", path = "log/enabled.rs")]
#[cfg_attr(not(feature = "jetstream"), path = "log/disabled.rs")]
mod log;
mod publisher;
mod session;
mod subjects;
#[cfg_attr(not(feature = "jetstream"), expect(dead_code, reason = "for the log"))]
mod topics;
mod transport;

use std::sync::Arc;

use socketioxide_adapter_core::{
    Result,
    backend::{Backend, BackendUrl},
    transport::Transport,
};

pub use self::{
    config::{Auth, LogConfig, NatsConfig},
    transport::NatsTransport,
};
pub use socketioxide_adapter_core::{
    backend::RootCa,
    socket::Address,
    transport::{Backoff, BufferLimits, Limits},
};

/// NATS for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "nats",
    schemes: &["nats", "nats+tls"],
    connect: |url| Box::pin(connect(url)),
};

/// NATS with JetStream for a [`Registry`](socketioxide_adapter_core::backend::Registry); needs the cargo feature
/// `jetstream`.
pub const JETSTREAM: Backend = Backend {
    name: "jetstream",
    schemes: &["nats+jetstream", "nats+jetstream+tls"],
    connect: |url| Box::pin(connect(url)),
};

async fn connect(url: BackendUrl) -> Result<Arc<dyn Transport>> {
    let config = NatsConfig::from_url(url)?;
    Ok(Arc::new(NatsTransport::connect(config).await?))
}

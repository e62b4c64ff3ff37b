//! AMQP 0-9-1 queues as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! All nodes publish to one topic exchange, `<prefix>.topics`, and the broker confirms each message. Where a node reads from
//! is its own choice, its [`Source`]:
//!
//! | URL | source | what a node missed while it was cut off |
//! |---|---|---|
//! | `amqp://` | an exclusive queue of its own | is lost; the core reports exactly how much |
//! | `amqp://…?queue=durable` | a queue of its own that the broker keeps for a while | comes back, within the limits of the queue |
//! | `amqp+streams://`, of [`socketioxide-adapter-rabbitmq-streams`](https://docs.rs/socketioxide-adapter-rabbitmq-streams) | the stream `<prefix>.stream`, which all nodes share | comes back, within the retention of the stream |
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_amqp::BACKEND);
//! let transport = registry.connect("amqp://user:password@127.0.0.1:5672?prefix=chat").await?;
//! transport.publish(&Topic::Cluster, "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `amqp://[user:password@]host[:5672][/virtual host]` and, with TLS (cargo feature `tls`), `amqps://…[:5671]`. Without a
//! virtual host it is `/`. The servers of a RabbitMQ cluster stand side by side with commas, `amqp://a,b,c:5673/chat`, and
//! are tried in turn.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of all names; clusters with different prefixes do not see each other |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//! | `heartbeat` | `5s` | after twice this time of silence the broker gives a node up |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (`amqps`) |
//! | `queue` | `exclusive` | or `durable` |
//! | `max_bytes` | 64 MiB | what the broker keeps of a queue |
//! | `expires` | `60s` | how long the broker keeps a durable queue that nobody reads |
//!
//! [`AmqpConfig`] has the same and the rest: buffers, payload limit, reconnect back-off. `docs/backends/amqp.md` in the
//! repository says what happens when, how to size the broker, and how to configure it.

mod config;
mod connection;
mod error;
mod queue;
mod session;
mod source;
mod transport;

use socketioxide_adapter_core::backend::{Backend, connecting};

pub use self::{
    config::{AmqpConfig, Config},
    connection::Connection,
    queue::Queue,
    source::{Reader, Source},
    transport::{Amqp, AmqpTransport},
};
pub use socketioxide_adapter_core::{
    backend::{Endpoint, RootCa},
    socket::Address,
    transport::{Backoff, BufferLimits, Limits},
};

/// Queues for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "amqp",
    schemes: &["amqp", "amqps"],
    connect: |url| connecting(async { AmqpConfig::from_url(url)?.connect().await }),
};

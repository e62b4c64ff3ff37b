//! RabbitMQ streams as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).
//!
//! All nodes read one stream, `<prefix>.stream`; what a node missed while it was cut off comes back, within the retention of
//! the stream. Needs RabbitMQ 3.9 or newer, and no plugin: it is the AMQP port. Everything but the reading is that of
//! [`socketioxide-adapter-amqp`](socketioxide_adapter_amqp), and nodes of both kinds hear each other.
//!
//! ```no_run
//! # async fn example() -> socketioxide_adapter_core::Result<()> {
//! use socketioxide_adapter_core::{backend::Registry, transport::Topic};
//!
//! let registry = Registry::new().with(socketioxide_adapter_rabbitmq_streams::BACKEND);
//! let url = "amqp+streams://user:password@127.0.0.1:5672?prefix=chat";
//! let transport = registry.connect(url).await?;
//! transport.publish(&Topic::Cluster, "hello".into()).await?;
//! # Ok(()) }
//! ```
//!
//! # URLs
//! `amqp+streams://[user:password@]host[:5672][/virtual host]` and, with TLS (cargo feature `tls`),
//! `amqps+streams://…[:5671]`. Without a virtual host it is `/`. The servers of a RabbitMQ cluster stand side by side with
//! commas, `amqp+streams://a,b,c:5673/chat`, and are tried in turn.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `prefix` | `socketioxide` | first part of all names; clusters with different prefixes do not see each other |
//! | `connect_timeout` | `5s` | how long the first connection, and each later attempt, may take |
//! | `timeout` | `2s` | how long a publish or subscribe may take |
//! | `heartbeat` | `5s` | after twice this time of silence the broker gives a node up |
//! | `ca` | the system's | PEM file of the certificate authorities to trust (`amqps+streams`) |
//! | `max_bytes` | 1 GiB | what the broker keeps of the stream |
//! | `max_age` | `3600s` | how long the broker keeps what is in the stream |
//! | `segment_bytes` | 16 MiB | size of the files of the stream; only whole ones are deleted |
//!
//! [`RabbitmqStreamsConfig`] has the same and the rest: buffers, payload limit, reconnect back-off.
//! `docs/backends/rabbitmq-streams.md` in the repository says what happens when, how to size the broker, and how to
//! configure it.

mod stream;

use socketioxide_adapter_amqp::{Amqp, Config};
use socketioxide_adapter_core::{
    backend::{Backend, connecting},
    transport::Connected,
};

pub use self::stream::Stream;
pub use socketioxide_adapter_amqp::{
    Address, Backoff, BufferLimits, Endpoint, Limits, RootCa, Source,
};

/// The configuration of a node that reads from the stream which all nodes share.
///
/// ```
/// use socketioxide_adapter_rabbitmq_streams::{Address, Endpoint, RabbitmqStreamsConfig, Source as _, Stream};
///
/// let endpoint = Endpoint::new(Address::new("rabbit-1", 5672)).with_credentials("chat", "secret");
/// let config = RabbitmqStreamsConfig::new(endpoint).with_source(Stream {
///     max_bytes: 10 << 30,
///     ..Stream::DEFAULT
/// });
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
pub type RabbitmqStreamsConfig = Config<Stream>;

/// A node's connections to a broker, as [`AmqpTransport`](socketioxide_adapter_amqp::AmqpTransport). A publish resolves when
/// a majority of the copies of the stream has the payload; all nodes see one order.
pub type RabbitmqStreamsTransport = Connected<Amqp<Stream>>;

/// RabbitMQ streams for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "rabbitmq-streams",
    schemes: &["amqp+streams", "amqps+streams"],
    connect: |url| connecting(async { RabbitmqStreamsConfig::from_url(url)?.connect().await }),
};

//! Redis Streams as a transport of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).

mod config;
mod error;
mod log;
mod position;
mod reply;
mod server;
mod session;
mod transport;

use std::sync::Arc;

use socketioxide_adapter_core::{backend::Backend, transport::Transport};

pub use self::{
    config::{Ephemeral, Retention, StreamsConfig},
    transport::RedisStreamsTransport,
};

/// Redis Streams for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "redis-streams",
    schemes: &[
        "redis+streams",
        "rediss+streams",
        "valkey+streams",
        "valkeys+streams",
    ],
    connect: |url| {
        Box::pin(async move {
            let config = StreamsConfig::from_url(url)?;
            let transport = RedisStreamsTransport::connect(config).await?;
            let transport: Arc<dyn Transport> = Arc::new(transport);
            Ok(transport)
        })
    },
};

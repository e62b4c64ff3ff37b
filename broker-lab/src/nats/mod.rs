//! NATS servers, with and without JetStream.

mod server;

pub use self::server::{Nats, NatsBuilder};

//! RabbitMQ servers.

mod ports;
mod server;

pub use self::server::{RabbitMq, RabbitMqBuilder};

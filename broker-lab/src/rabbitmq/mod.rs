//! RabbitMQ servers.

mod home;
mod ports;
mod server;

pub use self::server::{RabbitMq, RabbitMqBuilder};

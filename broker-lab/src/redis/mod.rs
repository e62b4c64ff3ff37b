//! Redis (or Valkey) servers.

mod admin;
mod server;

pub use self::{
    admin::Reply,
    server::{ClientKind, Redis, RedisBuilder},
};

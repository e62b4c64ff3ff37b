//! For transports that need more of the server than Pub/Sub: a companion rides on the sessions of a [`RedisTransport`].
//!
//! It gets a connection of its own in each session, for commands that block, while addresses, TLS, login, reconnecting,
//! signs of life, the state of the link and the end are the transport's. `socketioxide-adapter-redis-streams` is made of
//! it. The types are those of redis-rs and change with its version.
//!
//! [`RedisTransport`]: crate::RedisTransport

use std::fmt;

use async_trait::async_trait;
use redis::{RedisError, aio::MultiplexedConnection};
use socketioxide_adapter_core::{Error, socket::Address, transport::Step};
use tokio::sync::oneshot;

use crate::error;

/// What runs beside Pub/Sub in every session.
#[async_trait]
pub trait Companion: fmt::Debug + Send + Sync + 'static {
    /// Serves one session, and returns why it cannot go on: the session ends with it.
    ///
    /// The link is not up before `ready` was sent. The future is dropped with the session. Each connection must receive
    /// something every second, or it counts as lost after 2 to 2.5 s; [`Session::publishing`] is taken care of.
    async fn run(&self, session: Session, ready: oneshot::Sender<()>) -> Error;

    /// Notes that the session is over. Must not block; may be called more than once.
    fn end(&self);

    /// Notes that there will be no session any more. Must not block; may be called more than once.
    fn close(&self);
}

/// One session, as a [`Companion`] sees it.
#[derive(Debug)]
pub struct Session {
    /// A connection that nobody else uses, without a deadline for answers.
    pub own: MultiplexedConnection,
    /// The connection that publishes travel on.
    pub publishing: MultiplexedConnection,
    pub(crate) address: Address,
}

impl Session {
    /// An error of one of the connections, or an answer of the server, as an error of the adapter.
    pub fn error(&self, error: &RedisError) -> Error {
        error::from_redis(Step::Link, &self.address, error)
    }
}

//! For transports that need more of the server than NATS core: a companion runs beside every session of [`Nats`], by
//! [`Nats::run_with`], and publishes by [`Nats::send`].
//!
//! Addresses, TLS, login, signs of life, permissions, the order and the number of publishes, and the subjects without a
//! companion are taken care of. `socketioxide-adapter-jetstream` is made of it. The types are those of async-nats and change
//! with its version.
//!
//! [`Nats`]: crate::Nats
//! [`Nats::run_with`]: crate::Nats::run_with
//! [`Nats::send`]: crate::Nats::send

use std::{convert::Infallible, future::Future};

use async_nats::{Client, Message, Subscriber};
use socketioxide_adapter_core::Result;
use tokio::sync::oneshot;

/// What runs beside NATS core in every session.
pub trait Companion: Sync + 'static {
    /// Serves one session until something breaks: the session ends with it.
    ///
    /// The link is not up before `ready` was sent. The future is dropped with the session.
    fn run(
        &self,
        session: Session,
        ready: oneshot::Sender<()>,
    ) -> impl Future<Output = Result<Infallible>> + Send;

    /// Reads the server's answer to a publish with headers.
    ///
    /// # Errors
    /// What the publish fails with.
    fn acknowledgement(message: &Message) -> Result<()>;
}

/// One session, as a [`Companion`] sees it.
#[derive(Debug)]
pub struct Session {
    /// The connection. Make no subscription of your own with it.
    pub client: Client,
    /// A subject that nobody else uses.
    pub inbox: String,
    /// What arrives there.
    pub messages: Subscriber,
}

/// There is none.
impl Companion for Infallible {
    async fn run(&self, _session: Session, _ready: oneshot::Sender<()>) -> Result<Self> {
        Ok(*self)
    }

    fn acknowledgement(_message: &Message) -> Result<()> {
        Ok(())
    }
}

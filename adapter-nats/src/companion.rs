//! For transports that need more of the server than NATS core: a companion runs beside every session of [`Nats`].
//!
//! Addresses, TLS, login, signs of life, permissions, the order and the number of publishes, and the subjects without a
//! companion are taken care of. `socketioxide-adapter-jetstream` is made of it. The types are those of async-nats and change
//! with its version.

use std::{convert::Infallible, future::Future, sync::Arc};

use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use socketioxide_adapter_core::{Result, transport::SessionUp};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::{Nats, session};

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

impl Nats {
    /// One session, as [`Driver::run`](socketioxide_adapter_core::transport::Driver::run) without a companion.
    ///
    /// # Errors
    /// Why it is over.
    pub async fn run_with(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        up: SessionUp,
        companion: &impl Companion,
    ) -> Result<Infallible> {
        session::run(self, tasks, up, Some(companion)).await
    }

    /// Publishes with headers, in one order with all other publishes, and waits for the answer of the server to just this
    /// message, which [`Companion::acknowledgement`] reads. Hands it to the client library at the first poll, and has no
    /// deadline of its own.
    ///
    /// # Errors
    /// Those of the answer, and as [`Transport::publish`](socketioxide_adapter_core::transport::Transport::publish).
    pub async fn publish_acknowledged(
        &self,
        subject: String,
        payload: Bytes,
        headers: HeaderMap,
    ) -> Result<()> {
        let headers = Some(headers);
        let sent = self
            .publisher
            .publish(&self.origin, subject, payload, headers);
        sent.await
    }
}

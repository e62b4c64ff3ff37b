//! One node's end of a bus.

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    task::consume_budget,
    time::{Instant, timeout_at},
};

use super::{bus::Core, state::Answer};
use crate::{
    error::{Error, ErrorKind, Result},
    transport::{Capabilities, Delivery, LinkWatch, Receipt, Subscription, Topic, Transport},
};

const CAPABILITIES: Capabilities = Capabilities::new(Delivery::AtMostOnce)
    .with_confirms(true)
    .with_total_order(true)
    .with_max_payload(16 << 20);

/// A node's connection to a [`MemoryBus`](super::MemoryBus). Dropping it closes it.
///
/// A link that a watcher [suspects](LinkWatch::suspect) is renewed at the node's next publish or subscribe: the bus has no
/// task that could do it earlier.
pub struct MemoryTransport {
    core: Arc<Core>,
    number: u64,
    link: LinkWatch,
}

impl MemoryTransport {
    pub(super) const fn new(core: Arc<Core>, number: u64, link: LinkWatch) -> Self {
        Self { core, number, link }
    }

    /// Its place in the order in which nodes connected to the bus, from 0: the name of the node in
    /// [`Faults::partition`](super::Faults::partition).
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Cuts this node off: its link goes down, and it misses what the others publish.
    pub fn cut(&self) {
        self.core.state().cut(self.number);
    }

    /// Ends a cut: every subscription yields `Resumed` with the exact number of missed payloads, then the link goes up
    /// (if the bus runs).
    pub fn heal(&self) {
        self.core.state().heal(self.number);
    }

    /// Makes the node deaf while its link stays up, as with a broker that lost the subscription or a connection that died
    /// one way. It hears again after a reconnect: [`LinkWatch::suspect`] or a cut makes one.
    pub fn deafen(&self) {
        self.core.state().deafen(self.number);
    }

    async fn by<T>(
        &self,
        deadline: Instant,
        operation: &'static str,
        call: impl Future<Output = T>,
    ) -> Result<T> {
        let message = || format!("the bus did not answer within {:?}", self.core.call_timeout);
        timeout_at(deadline, call)
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, operation, message()))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        const OPERATION: &str = "memory: publish";
        if payload.len() > CAPABILITIES.max_payload {
            return Err(Error::new(
                ErrorKind::TooLarge,
                OPERATION,
                format!(
                    "{} bytes, at most {} are allowed",
                    payload.len(),
                    CAPABILITIES.max_payload
                ),
            ));
        }
        let answer = self.core.state().publish(self.number, topic, payload)?;
        if !self.core.send_off() {
            return Err(Error::new(
                ErrorKind::Interrupted,
                OPERATION,
                "delayed delivery needs a tokio runtime",
            ));
        }
        match answer {
            Answer::Now(receipt) => {
                // Yield now and then, or a loop of publishes would starve the readers on its thread. Only now: the
                // first poll decides the order.
                consume_budget().await;
                Ok(receipt)
            }
            Answer::Later(receipt) => self
                .by(Instant::now() + self.core.call_timeout, OPERATION, receipt)
                .await?
                .map_err(|_| Error::new(ErrorKind::Interrupted, OPERATION, "the link was lost")),
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let mut deadline = None;
        loop {
            let answer = self.core.state().subscribe(self.number, topic)?;
            match answer {
                Answer::Now(subscription) => return Ok(subscription),
                // Thawed, or the link was lost: the next attempt tells.
                Answer::Later(thawed) => {
                    let deadline =
                        *deadline.get_or_insert_with(|| Instant::now() + self.core.call_timeout);
                    let _ = self.by(deadline, "memory: subscribe", thawed).await?;
                }
            }
        }
    }

    fn link(&self) -> LinkWatch {
        self.link.clone()
    }

    async fn close(&self) -> Result<()> {
        self.core.state().disconnect(self.number);
        Ok(())
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.core.state().disconnect(self.number);
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransport")
            .field("number", &self.number)
            .field("link", &self.link.state())
            .finish_non_exhaustive()
    }
}

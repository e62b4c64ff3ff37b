//! The transport contract: how opaque bytes travel between the nodes of a cluster.
//!
//! A [`Transport`] moves bytes between [`Topic`]s over one broker and knows nothing of Socket.IO: framing, batching,
//! numbering, duplicates, gaps, membership and requests are the core's. What a transport owes is this:
//!
//! * **Fan-out.** A published payload reaches every current subscriber of its topic, the publishing node included. The
//!   core proves a link alive by waiting for its own probe to come back the normal way.
//! * **Order.** Payloads of one transport on one topic arrive in the order in which `publish` was *first polled*. The core
//!   keeps a few publishes in flight and relies on it.
//! * **No torn payloads.** A payload arrives whole and unchanged, or not at all.
//! * **Honest answers.** `Ok` means the broker has it (where [`Capabilities::confirms`]); an error's
//!   [`outcome`](crate::Error::outcome) never says "not sent" of something that may have been sent.
//! * **Deadlines.** No method waits for ever, whatever the broker does.
//! * **Loss is visible.** After each reconnect every subscription yields [`Event::Resumed`]; a full buffer drops, counts
//!   and yields [`Event::Lagged`].
//!
//! Everything but the wire protocol of the broker is provided. Write a [`Driver`], and [`Connected`] makes a transport of it:
//! the reconnect loop from connect to close, deadlines, and the calls. [`Topics`] is the table of what is wanted; where the
//! broker has logs that can be read from any position, [`log`] is. [`Budget`] bounds what waits to be answered,
//! [`pulse`] notices that a connection is dead, [`socket`](crate::socket) opens it. Or take the parts: [`supervise()`],
//! [`link()`], [`Subscription::channel`]. The in-memory transport in [`memory`](crate::memory) is a complete one to read.

mod backoff;
mod budget;
mod capabilities;
mod driver;
mod limits;
mod link;
pub mod log;
pub mod pulse;
mod step;
mod subscription;
mod supervise;
mod topic;
mod topics;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{
    backoff::Backoff,
    budget::{Budget, Permit},
    capabilities::{Capabilities, Delivery, Replay},
    driver::{Connected, Driver},
    limits::Limits,
    link::{LinkSender, LinkState, LinkStatus, LinkWatch, link},
    step::Step,
    subscription::{BufferLimits, Continuity, Event, LossCause, Subscription, SubscriptionSender},
    supervise::{SessionUp, Supervisor, supervise},
    topic::Topic,
    topics::{Differences, Name, Topics},
};
use crate::error::Result;

/// What the broker said about an accepted payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// How many subscribers the broker handed the payload to, where it tells; the publishing node counts as one.
    pub receivers: Option<u64>,
}

impl Receipt {
    /// A receipt of a broker that counted the receivers.
    pub const fn with_receivers(receivers: u64) -> Self {
        Self {
            receivers: Some(receivers),
        }
    }
}

/// Moves opaque bytes between topics over one broker.
///
/// See the [module documentation](self) for the whole contract. The trait is dyn-compatible: the core holds an
/// `Arc<dyn Transport>`.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Short lowercase name of the transport for logs and errors, for example `"redis"`.
    fn name(&self) -> &'static str;

    /// What this transport can do. The value does not change during the life of the transport, except that
    /// `max_payload` may shrink once the broker has told its own limit.
    fn capabilities(&self) -> Capabilities;

    /// Publishes one payload to every subscriber of `topic`, this node included.
    ///
    /// Resolves with `Ok` once the broker has the payload (where [`Capabilities::confirms`]), otherwise once it was
    /// written to the broker. While the link is down it fails at once with [`ErrorKind::LinkDown`].
    ///
    /// # Errors
    /// [`ErrorKind::LinkDown`], [`ErrorKind::TooLarge`] and [`ErrorKind::Closed`] say that nothing was sent;
    /// [`ErrorKind::Rejected`] that the broker refused it; [`ErrorKind::Interrupted`] and [`ErrorKind::Timeout`] that the
    /// outcome is unknown.
    ///
    /// # Cancel safety
    /// Dropping the future before its first poll publishes nothing; later the outcome is unknown. It never publishes
    /// half a payload and never disturbs other calls.
    ///
    /// [`ErrorKind::LinkDown`]: crate::ErrorKind::LinkDown
    /// [`ErrorKind::TooLarge`]: crate::ErrorKind::TooLarge
    /// [`ErrorKind::Closed`]: crate::ErrorKind::Closed
    /// [`ErrorKind::Rejected`]: crate::ErrorKind::Rejected
    /// [`ErrorKind::Interrupted`]: crate::ErrorKind::Interrupted
    /// [`ErrorKind::Timeout`]: crate::ErrorKind::Timeout
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt>;

    /// Subscribes to `topic`; resolves once the *broker* has the subscription.
    ///
    /// The subscription survives reconnects: it goes silent while the link is down, then yields [`Event::Resumed`].
    /// Dropping it ends it. Two subscriptions to one topic both receive everything.
    ///
    /// # Errors
    /// [`ErrorKind::LinkDown`](crate::ErrorKind::LinkDown) or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) while the
    /// broker cannot be reached, [`ErrorKind::Unauthorized`](crate::ErrorKind::Unauthorized) if it forbids the topic,
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`close`](Self::close).
    ///
    /// # Cancel safety
    /// Dropping the future leaves no subscription behind.
    async fn subscribe(&self, topic: &Topic) -> Result<Subscription>;

    /// The state of the link to the broker, to read and to watch.
    fn link(&self) -> LinkWatch;

    /// Closes the link, ends every subscription and stops every task of the transport. Idempotent; returns by a deadline
    /// of its own (a few seconds) even if the broker does not answer.
    ///
    /// # Errors
    /// Only what is worth telling: the transport is closed in any case.
    async fn close(&self) -> Result<()>;
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        (**self).publish(topic, payload).await
    }
    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        (**self).subscribe(topic).await
    }
    fn link(&self) -> LinkWatch {
        (**self).link()
    }
    async fn close(&self) -> Result<()> {
        (**self).close().await
    }
}

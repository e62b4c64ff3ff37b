//! What happens in the cluster, told to the application.

use std::{fmt, sync::Arc};

use socketioxide_core::Str;
use tokio::sync::broadcast;

use crate::{error::ErrorKind, id::NodeId, transport::LossCause};

/// Why a node left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaveReason {
    /// It said goodbye.
    Bye,
    /// It was silent for longer than [`dead_after`](crate::ClusterConfig::dead_after).
    Dead,
}

/// Something an operator or an application may want to know. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A node joined.
    Joined {
        /// The node.
        node: NodeId,
    },
    /// A node left.
    Left {
        /// The node.
        node: NodeId,
        /// Why.
        reason: LeaveReason,
    },
    /// Our own link delivers: a probe of ours came back through the broker.
    LinkUp,
    /// Our own link is down. Local sockets are still served; what peers send meanwhile is reported afterwards.
    LinkDown {
        /// Why, in one line.
        reason: Arc<str>,
    },
    /// Envelopes of a peer did not reach this node and never will.
    Gap {
        /// The node that sent them.
        origin: NodeId,
        /// The namespace they were for.
        namespace: Str,
        /// How many; exact.
        count: u64,
        /// Why, as far as this node can tell.
        cause: LossCause,
    },
    /// The broker no longer has all that this node missed in a namespace while it was cut off. What nodes that still live
    /// had sent is told as [`Gap`](Self::Gap) as well, exactly; what others had sent, by this alone.
    HistoryLost {
        /// The namespace.
        namespace: Str,
        /// How many payloads, each of one or more envelopes, where the broker tells.
        payloads: Option<u64>,
        /// Why.
        cause: LossCause,
    },
    /// Envelopes of this node that were taken into the lane could not be handed to the broker in time. One that may have
    /// reached the broker is not among them: the peers that miss it report it, as [`Gap`](Self::Gap).
    Unsent {
        /// The namespace they were for.
        namespace: Str,
        /// How many.
        count: u64,
        /// The last failure.
        reason: ErrorKind,
    },
    /// A query or a broadcast with acknowledgements ended without the answers of some nodes.
    Incomplete {
        /// The namespace.
        namespace: Str,
        /// The nodes that did not answer.
        missing: Vec<NodeId>,
    },
    /// A peer speaks no wire version that this node understands; its traffic is ignored.
    Incompatible {
        /// The node.
        node: NodeId,
        /// The oldest version it accepts.
        min_version: u8,
        /// The newest version it speaks.
        max_version: u8,
    },
    /// The reader of the events was too slow: so many events were dropped for it.
    Lagged {
        /// How many.
        count: u64,
    },
}

impl fmt::Display for ClusterEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { node } => write!(f, "node {node} joined"),
            Self::Left { node, reason } => match reason {
                LeaveReason::Bye => write!(f, "node {node} left"),
                LeaveReason::Dead => write!(f, "node {node} is silent and counts as dead"),
            },
            Self::LinkUp => f.write_str("link to the broker up"),
            Self::LinkDown { reason } => write!(f, "link to the broker down: {reason}"),
            Self::Gap {
                origin,
                namespace,
                count,
                cause,
            } => write!(
                f,
                "{count} messages of node {origin} in {namespace} were lost ({cause:?})"
            ),
            Self::HistoryLost {
                namespace,
                payloads,
                cause,
            } => {
                write!(f, "the broker no longer has ")?;
                match payloads {
                    Some(count) => write!(f, "{count} payloads")?,
                    None => write!(f, "some")?,
                }
                write!(f, " of what was missed in {namespace} ({cause:?})")
            }
            Self::Unsent {
                namespace,
                count,
                reason,
            } => write!(
                f,
                "{count} messages in {namespace} were not sent ({reason:?})"
            ),
            Self::Incomplete { namespace, missing } => {
                write!(f, "no answer in {namespace} from")?;
                for node in missing {
                    write!(f, " {node}")?;
                }
                Ok(())
            }
            Self::Incompatible {
                node,
                min_version,
                max_version,
            } => write!(
                f,
                "node {node} speaks wire versions {min_version} to {max_version}, which this node does not"
            ),
            Self::Lagged { count } => write!(f, "{count} events were dropped for a slow reader"),
        }
    }
}

/// A reader of [`ClusterEvent`]s; it sees what happens after it was made.
#[derive(Debug)]
pub struct ClusterEvents {
    rx: broadcast::Receiver<ClusterEvent>,
}

impl ClusterEvents {
    pub(crate) const fn new(rx: broadcast::Receiver<ClusterEvent>) -> Self {
        Self { rx }
    }

    /// The next event; `None` once the cluster is gone. A slow reader gets [`ClusterEvent::Lagged`] where it missed some.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Option<ClusterEvent> {
        match self.rx.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(ClusterEvent::Lagged { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<ClusterEvent> {
        match self.rx.try_recv() {
            Ok(event) => Some(event),
            Err(broadcast::error::TryRecvError::Lagged(count)) => {
                Some(ClusterEvent::Lagged { count })
            }
            Err(_) => None,
        }
    }
}

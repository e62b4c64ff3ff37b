//! The acknowledgements of one broadcast, from the sockets of all nodes.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};
use socketioxide_core::{
    Sid,
    adapter::{AckStreamItem, SocketEmitter},
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::hub::{AckResult, Acks, Hub, Namespace, Registered};

/// A stream of acknowledgements that ends when every socket has answered or timed out and every node is done, dead or
/// late. What dead and late nodes still owed is told by [`ClusterEvent::Incomplete`](crate::ClusterEvent::Incomplete).
///
/// Dropping it forgets the request: late acknowledgements are ignored.
pub struct ClusterAckStream<E: SocketEmitter> {
    local: Pin<Box<E::AckStream>>,
    remote: Option<Remote>,
}

struct Remote {
    hub: Arc<Hub>,
    namespace: Arc<Namespace>,
    request: Registered<Acks>,
    deadline: Pin<Box<Sleep>>,
}

impl<E: SocketEmitter> ClusterAckStream<E> {
    /// Acknowledgements of this node's sockets only.
    pub(super) fn local(local: E::AckStream) -> Self {
        Self {
            local: Box::pin(local),
            remote: None,
        }
    }

    pub(super) fn cluster(
        local: E::AckStream,
        hub: Arc<Hub>,
        namespace: Arc<Namespace>,
        request: Registered<Acks>,
        deadline: Instant,
    ) -> Self {
        Self {
            local: Box::pin(local),
            remote: Some(Remote {
                hub,
                namespace,
                request,
                deadline: Box::pin(sleep_until(deadline)),
            }),
        }
    }

    fn poll_remote(&mut self, cx: &mut Context<'_>) -> Poll<Option<AckStreamItem<E::AckError>>> {
        let Some(remote) = &mut self.remote else {
            return Poll::Ready(None);
        };
        loop {
            match remote.request.state.poll_next(cx) {
                Poll::Ready(Some((sid, result))) => {
                    if let Some(item) = decode::<E>(sid, result) {
                        return Poll::Ready(Some(item));
                    }
                    remote.hub.shared.counters.acks_dropped.inc();
                }
                Poll::Ready(None) => break,
                Poll::Pending => match remote.deadline.as_mut().poll(cx) {
                    Poll::Ready(()) => break,
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
        let missing = remote.request.state.missing();
        if !missing.is_empty() {
            remote.hub.incomplete(&remote.namespace, missing);
        }
        self.remote = None;
        Poll::Ready(None)
    }
}

/// `None` if a peer sent something that is no acknowledgement.
fn decode<E: SocketEmitter>(sid: Sid, result: AckResult) -> Option<AckStreamItem<E::AckError>> {
    let result = match result {
        Ok(payload) => Ok(payload.into_value().ok()?),
        Err(json) => Err(serde_json::from_slice(&json).ok()?),
    };
    Some((sid, result))
}

impl<E: SocketEmitter> Stream for ClusterAckStream<E> {
    type Item = AckStreamItem<E::AckError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let local = if self.local.is_terminated() {
            Poll::Ready(None)
        } else {
            self.local.as_mut().poll_next(cx)
        };
        if let Poll::Ready(Some(item)) = local {
            return Poll::Ready(Some(item));
        }
        match (local, self.poll_remote(cx)) {
            (_, Poll::Ready(Some(item))) => Poll::Ready(Some(item)),
            (Poll::Ready(_), Poll::Ready(None)) => Poll::Ready(None),
            _ => Poll::Pending,
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (lower, upper) = self.local.size_hint();
        match &self.remote {
            // More nodes may still tell their number.
            Some(_) => (lower, None),
            None => (lower, upper),
        }
    }
}

impl<E: SocketEmitter> FusedStream for ClusterAckStream<E> {
    fn is_terminated(&self) -> bool {
        self.remote.is_none() && self.local.is_terminated()
    }
}

impl<E: SocketEmitter> fmt::Debug for ClusterAckStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remaining = self.remote.as_ref().map(|r| r.request.state.remaining());
        f.debug_struct("ClusterAckStream")
            .field("remaining_remote", &remaining)
            .finish_non_exhaustive()
    }
}

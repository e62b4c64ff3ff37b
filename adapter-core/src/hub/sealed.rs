//! A frame that has its numbers, and its way to the broker.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    lane::{Batch, Lane, Waiter},
    shared::Shared,
};
use crate::{
    error::{ErrorKind, Result},
    transport::Receipt,
    wire::{FrameHead, FrameKind},
};

/// A frame on its way; its first poll hands it to the transport, which fixes its place in the order.
pub(crate) type Publishing = Pin<Box<dyn Future<Output = Result<Receipt>> + Send>>;

/// A frame that has its numbers and is not settled yet.
pub(crate) struct Sealed {
    pub(crate) payload: Bytes,
    pub(crate) seq: u64,
    pub(crate) count: u32,
    /// Bytes of the envelopes, as the lane counts them.
    pub(crate) bytes: usize,
    pub(crate) since: Instant,
    pub(crate) waiters: Vec<Waiter>,
    /// Some attempt may have reached the broker.
    pub(crate) maybe_sent: bool,
    pub(crate) last_error: ErrorKind,
    /// It was given up and only withdraws its numbers.
    pub(crate) void: bool,
}

impl Sealed {
    /// Gives the envelopes of a batch the lane's next numbers.
    pub(crate) fn new(shared: &Shared, lane: &Lane, batch: Batch) -> Self {
        let count = batch.buf.count();
        let seq = lane.take_numbers(count);
        let head = head(shared, lane, FrameKind::Data, seq, count);
        Self {
            payload: shared.wire.seal(batch.buf, head),
            seq,
            count,
            bytes: batch.bytes,
            since: batch.since,
            waiters: batch.waiters,
            maybe_sent: false,
            last_error: ErrorKind::LinkDown,
            void: false,
        }
    }

    pub(crate) fn publish(&self, shared: &Shared, lane: &Arc<Lane>) -> Publishing {
        let transport = shared.transport.clone();
        let (lane, payload) = (lane.clone(), self.payload.clone());
        Box::pin(async move { transport.publish(&lane.topic, payload).await })
    }
}

/// The header of a frame of this node.
pub(crate) fn head(
    shared: &Shared,
    lane: &Lane,
    kind: FrameKind,
    seq: u64,
    count: u32,
) -> FrameHead {
    FrameHead {
        version: shared.emit_version(),
        kind,
        origin: shared.me,
        lane: lane.id,
        seq,
        count,
    }
}

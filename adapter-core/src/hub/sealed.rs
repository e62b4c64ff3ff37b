//! A frame that has its numbers, and its way to the broker.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    lane::{Batch, Lane, Waiter},
    shared::Shared,
};
use crate::{
    error::{ErrorKind, Outcome, Result},
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
    /// Some attempt that has ended may have reached the broker.
    pub(crate) maybe_sent: bool,
    /// The attempt on its way was handed to the transport; false without such an attempt.
    pub(crate) handed_over: Arc<AtomicBool>,
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
            handed_over: Arc::default(),
            last_error: ErrorKind::LinkDown,
            void: false,
        }
    }

    /// A notice that withdraws `count` numbers from `seq`.
    pub(crate) fn void(payload: Bytes, seq: u64, count: u32) -> Self {
        Self {
            payload,
            seq,
            count,
            bytes: 0,
            since: Instant::now(),
            waiters: Vec::new(),
            maybe_sent: false,
            handed_over: Arc::default(),
            last_error: ErrorKind::LinkDown,
            void: true,
        }
    }

    /// Begins an attempt.
    pub(crate) fn publish(&mut self, shared: &Shared, lane: &Arc<Lane>) -> Publishing {
        let transport = shared.transport.clone();
        let (lane, payload) = (lane.clone(), self.payload.clone());
        self.handed_over = Arc::default();
        let handed_over = self.handed_over.clone();
        Box::pin(async move {
            handed_over.store(true, Relaxed);
            transport.publish(&lane.topic, payload).await
        })
    }

    /// The attempt on its way has failed.
    pub(crate) fn failed(&mut self, kind: ErrorKind) {
        self.handed_over = Arc::default();
        self.maybe_sent |= kind.outcome() == Outcome::Unknown;
        self.last_error = kind;
    }

    /// The attempt on its way, if there is one, was dropped before its outcome was known, for what happened to another frame.
    pub(crate) fn abandoned(&mut self, kind: ErrorKind) {
        if std::mem::take(&mut self.handed_over).load(Relaxed) {
            self.maybe_sent = true;
            self.last_error = kind;
        }
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

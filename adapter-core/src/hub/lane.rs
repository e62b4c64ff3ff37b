//! The queue of one lane: envelopes appended straight into the next frame, bounded, with back-pressure.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    error::{Error, ErrorKind, Result},
    id::NodeId,
    transport::{BufferLimits, Topic},
    wire::{Envelope, FrameBuf, LaneId, Payload, Wire},
};

/// Envelopes per frame. More gains nothing measurable and makes one lost frame cost more.
const MAX_ENVELOPES: u32 = 256;

/// Tells a waiting caller what became of its frame.
pub(crate) type Waiter = oneshot::Sender<Result<(), ErrorKind>>;

/// What became of an envelope that was offered to the lane.
#[derive(Debug)]
pub(crate) enum Push {
    /// It is in the lane.
    Queued,
    /// It is in the lane; the receiver learns what became of it.
    Confirm(oneshot::Receiver<Result<(), ErrorKind>>),
    /// There is no room now.
    Full,
}

/// Envelopes that will travel in one frame.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) buf: FrameBuf,
    /// Bytes of the envelopes, as the lane's bound counts them.
    pub(crate) bytes: usize,
    pub(crate) since: Instant,
    pub(crate) waiters: Vec<Waiter>,
}

#[derive(Debug, Default)]
struct State {
    pending: VecDeque<Batch>,
    /// Envelopes and bytes that are pending or on their way.
    envelopes: usize,
    bytes: usize,
    /// Envelopes ever taken, and ever settled (accepted or given up).
    taken: u64,
    settled: u64,
    tail_wanted: bool,
    closed: bool,
}

/// The sending side of one topic.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) topic: Topic,
    pub(crate) id: LaneId,
    wire: Arc<dyn Wire>,
    limits: BufferLimits,
    frame_bytes: usize,
    max_payload: usize,
    state: Mutex<State>,
    /// Wakes the writer.
    wake: Notify,
    /// Wakes callers that wait for room or for the lane to settle.
    settled: Notify,
}

impl Lane {
    pub(crate) fn new(
        topic: Topic,
        wire: Arc<dyn Wire>,
        limits: BufferLimits,
        frame_bytes: usize,
        max_payload: usize,
    ) -> Self {
        Self {
            id: LaneId::of(&topic),
            topic,
            wire,
            limits,
            // Room for the envelope that closes a frame, so that only a lone envelope can exceed the broker's limit.
            frame_bytes: frame_bytes.min(max_payload / 4 * 3),
            max_payload,
            state: Mutex::default(),
            wake: Notify::new(),
            settled: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lane numbers its frames: only what touches sockets is owed to every node. Answers and membership
    /// have their own time-outs.
    pub(crate) const fn is_sequenced(&self) -> bool {
        matches!(self.topic, Topic::Namespace(_))
    }

    /// Offers one envelope. Never waits.
    pub(crate) fn push(
        &self,
        only: Option<NodeId>,
        envelope: &Envelope,
        confirm: bool,
    ) -> Result<Push> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::new(
                ErrorKind::Closed,
                "publish",
                "the cluster was shut down or the namespace closed",
            ));
        }
        if state.envelopes >= self.limits.messages || state.bytes >= self.limits.bytes {
            return Ok(Push::Full);
        }
        let size = size_hint(envelope);
        let fits = |batch: &Batch| {
            batch.buf.count() < MAX_ENVELOPES && batch.buf.len() + size <= self.frame_bytes
        };
        if !state.pending.back().is_some_and(fits) {
            state.pending.push_back(Batch {
                buf: self.wire.begin(),
                bytes: 0,
                since: Instant::now(),
                waiters: Vec::new(),
            });
        }
        let Some(batch) = state.pending.back_mut() else {
            return Ok(Push::Full);
        };
        let before = batch.buf.len();
        let appended = self.wire.append(&mut batch.buf, only, envelope);
        let too_large = batch.buf.len() > self.max_payload;
        if appended.is_err() || too_large {
            if too_large || batch.buf.is_empty() {
                state.pending.pop_back();
            }
            return Err(appended.err().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::TooLarge,
                    "publish",
                    format!(
                        "the message takes {size} bytes, the broker takes {} at most",
                        self.max_payload
                    ),
                )
            }));
        }
        let added = batch.buf.len() - before;
        batch.bytes += added;
        let push = if confirm {
            let (tx, rx) = oneshot::channel();
            batch.waiters.push(tx);
            Push::Confirm(rx)
        } else {
            Push::Queued
        };
        state.envelopes += 1;
        state.bytes += added;
        state.taken += 1;
        drop(state);
        self.wake.notify_one();
        Ok(push)
    }

    /// Waits until something settled since the future was made.
    pub(crate) fn settled(&self) -> tokio::sync::futures::Notified<'_> {
        self.settled.notified()
    }

    /// Waits until everything taken so far was accepted or given up.
    pub(crate) async fn flush(&self) {
        let goal = self.lock().taken;
        loop {
            let settled = self.settled();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if self.lock().settled >= goal {
                return;
            }
            settled.await;
        }
    }

    /// Asks the writer to tell peers where the lane stands.
    pub(crate) fn want_tail(&self) {
        self.lock().tail_wanted = true;
        self.wake.notify_one();
    }

    /// Takes nothing more; the writer ends when what was taken is settled.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    // What follows is for the writer.

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn take_batch(&self) -> Option<Batch> {
        self.lock().pending.pop_front()
    }

    pub(crate) fn take_tail_wanted(&self) -> bool {
        std::mem::take(&mut self.lock().tail_wanted)
    }

    pub(crate) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.closed && state.pending.is_empty()
    }

    /// Frees the room of a frame that was accepted or given up. `bytes` counts its envelopes only.
    pub(crate) fn settle(&self, envelopes: u32, bytes: usize) {
        let mut state = self.lock();
        state.envelopes = state.envelopes.saturating_sub(envelopes as usize);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.settled += u64::from(envelopes);
        drop(state);
        self.settled.notify_waiters();
    }

    /// Takes the batches that have waited longer than `max_age`.
    pub(crate) fn take_expired(&self, now: Instant, max_age: Duration) -> Vec<Batch> {
        let mut state = self.lock();
        let mut expired = Vec::new();
        while state
            .pending
            .front()
            .is_some_and(|batch| now.duration_since(batch.since) >= max_age)
        {
            expired.extend(state.pending.pop_front());
        }
        expired
    }

    /// When the oldest pending batch was begun.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.lock().pending.front().map(|batch| batch.since)
    }
}

/// About how many bytes an envelope takes: its payload, and room names at a guess.
fn size_hint(envelope: &Envelope) -> usize {
    match envelope {
        Envelope::Broadcast { payload, .. } | Envelope::BroadcastWithAck { payload, .. } => {
            128 + payload_len(payload)
        }
        Envelope::Ack {
            result: Ok(payload),
            ..
        } => 64 + payload_len(payload),
        Envelope::Join { rooms, .. }
        | Envelope::Leave { rooms, .. }
        | Envelope::RoomsAnswer { rooms, .. } => {
            128 + rooms.iter().map(|r| r.len() + 4).sum::<usize>()
        }
        Envelope::SocketsAnswer { sockets, .. } => 64 + 16 * sockets.len(),
        _ => 128,
    }
}

fn payload_len(payload: &Payload) -> usize {
    let attachments = payload.attachments.iter().flatten().map(Bytes::len);
    payload.data.len() + attachments.sum::<usize>()
}

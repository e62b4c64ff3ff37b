//! The queue of one lane: envelopes appended straight into the next frame, bounded, with back-pressure.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::sealed::{Publishing, Sealed};
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

/// The lane's only batch, taken by a caller instead of by the writer, which sleeps: the caller publishes it from its own
/// task and hands it over with [`Lane::started`].
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) batch: Batch,
    pub(crate) writer: Sleeper,
}

/// The sleeping writer.
#[derive(Debug)]
pub(crate) struct Sleeper {
    pub(crate) waker: Waker,
    /// The count of its turns when it fell asleep.
    turn: u64,
}

/// What the writer finds at the beginning of a turn.
pub(crate) enum Turn {
    /// It may publish.
    Free,
    /// It may publish behind this frame, which a caller has published.
    Started(Sealed, Publishing),
    /// A caller is publishing at this moment; it will wake the writer.
    Busy,
}

/// Publishing from a caller's task.
#[derive(Default)]
enum Inline {
    #[default]
    None,
    Claimed,
    Started(Sealed, Publishing),
}

/// The writer, seen from outside.
#[derive(Debug, Default)]
struct Sleep {
    /// `None` while the writer is awake; it looks at everything before it sleeps.
    waker: Option<Waker>,
    /// Nothing is on its way and nothing keeps the writer from publishing.
    idle: bool,
    /// Counts the writer's turns, and how often it looked in vain while a caller was publishing.
    turn: u64,
    /// There is something to look at.
    woken: bool,
}

#[derive(Default)]
struct State {
    pending: VecDeque<Batch>,
    writer: Sleep,
    inline: Inline,
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
pub(crate) struct Lane {
    pub(crate) topic: Topic,
    pub(crate) id: LaneId,
    wire: Arc<dyn Wire>,
    limits: BufferLimits,
    frame_bytes: usize,
    max_payload: usize,
    /// The number of the next envelope. Only who may publish takes numbers: the writer or the owner of a claim.
    next_seq: AtomicU64,
    state: Mutex<State>,
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
            frame_bytes: frame_bytes.min(max_payload / 4 * 3),
            max_payload,
            next_seq: AtomicU64::new(1),
            state: Mutex::default(),
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
        let push = self.append(&mut state, only, envelope, confirm)?;
        Self::wake(state);
        Ok(push)
    }

    /// Offers one envelope. Never waits. With nothing on its way, the caller gets it back to publish it at once.
    pub(crate) fn push_or_claim(
        &self,
        only: Option<NodeId>,
        envelope: &Envelope,
        confirm: bool,
    ) -> Result<(Push, Option<Claim>)> {
        let mut state = self.lock();
        let push = self.append(&mut state, only, envelope, confirm)?;
        if state.writer.idle
            && state.pending.len() == 1
            && let Some(waker) = state.writer.waker.clone()
            && let Some(batch) = state.pending.pop_front()
        {
            state.writer.idle = false;
            state.inline = Inline::Claimed;
            let turn = state.writer.turn;
            let writer = Sleeper { waker, turn };
            return Ok((push, Some(Claim { batch, writer })));
        }
        Self::wake(state);
        Ok((push, None))
    }

    /// Hands a claimed frame over to the writer; `settled` if its outcome is already there.
    pub(crate) fn started(
        &self,
        writer: Sleeper,
        sealed: Sealed,
        publishing: Publishing,
        settled: bool,
    ) {
        let mut state = self.lock();
        state.inline = Inline::Started(sealed, publishing);
        // Otherwise the outcome wakes it. One that came before now has woken it in vain.
        if settled || state.writer.turn != writer.turn {
            drop(state);
            writer.waker.wake();
        }
    }

    fn append(
        &self,
        state: &mut State,
        only: Option<NodeId>,
        envelope: &Envelope,
        confirm: bool,
    ) -> Result<Push> {
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
        let added = match state.pending.back_mut().filter(|batch| fits(batch)) {
            // The hint may have been too low; what does not fit behind others may fit alone.
            Some(batch) => self.encode(batch, only, envelope).ok(),
            None => None,
        };
        let added = match added {
            Some(added) => added,
            None => {
                let mut batch = Batch {
                    buf: self.wire.begin(),
                    bytes: 0,
                    since: Instant::now(),
                    waiters: Vec::new(),
                };
                let added = self.encode(&mut batch, only, envelope)?;
                state.pending.push_back(batch);
                added
            }
        };
        let Some(batch) = state.pending.back_mut() else {
            return Ok(Push::Full);
        };
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
        Ok(push)
    }

    /// Puts an envelope behind those of a batch and returns how many bytes it takes. A batch that it does not fit into
    /// stays as it was.
    fn encode(
        &self,
        batch: &mut Batch,
        only: Option<NodeId>,
        envelope: &Envelope,
    ) -> Result<usize> {
        let before = batch.buf.len();
        self.wire.append(&mut batch.buf, only, envelope)?;
        let added = batch.buf.len() - before;
        if batch.buf.len() > self.max_payload {
            batch.buf.undo(before);
            return Err(Error::new(
                ErrorKind::TooLarge,
                "publish",
                format!(
                    "the message takes {added} bytes, the broker takes {} at most",
                    self.max_payload
                ),
            ));
        }
        batch.bytes += added;
        Ok(added)
    }

    fn wake(mut state: MutexGuard<'_, State>) {
        state.writer.woken = true;
        if let Some(writer) = state.writer.waker.take() {
            drop(state);
            writer.wake();
        }
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
        let mut state = self.lock();
        state.tail_wanted = true;
        Self::wake(state);
    }

    /// Takes nothing more; the writer ends when what was taken is settled.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        Self::wake(state);
    }

    /// The next `count` numbers; 0 on a lane that does not number its envelopes.
    pub(crate) fn take_numbers(&self, count: u32) -> u64 {
        if self.is_sequenced() {
            self.next_seq.fetch_add(u64::from(count), Relaxed)
        } else {
            0
        }
    }

    // What follows is for the writer.

    /// Begins a turn of the writer; until it sleeps, nobody else publishes.
    pub(crate) fn begin_turn(&self) -> Turn {
        let mut state = self.lock();
        state.writer = Sleep {
            turn: state.writer.turn + 1,
            ..Sleep::default()
        };
        match std::mem::take(&mut state.inline) {
            Inline::None => Turn::Free,
            Inline::Started(sealed, publishing) => Turn::Started(sealed, publishing),
            Inline::Claimed => {
                state.inline = Inline::Claimed;
                Turn::Busy
            }
        }
    }

    /// Sleeps until there is something to do. While the writer is `idle`, callers may publish.
    pub(crate) fn poll_woken(&self, cx: &Context<'_>, idle: bool) -> Poll<()> {
        let mut state = self.lock();
        if state.writer.woken || matches!(state.inline, Inline::Started(..)) {
            return Poll::Ready(());
        }
        let claimed = matches!(state.inline, Inline::Claimed);
        let writer = &mut state.writer;
        // What has woken the writer may be the outcome of the frame that a caller is about to hand over, and nothing else
        // would wake it for that; so the caller learns that the writer has looked.
        writer.turn += u64::from(claimed);
        writer.idle = idle && !claimed;
        match &mut writer.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => writer.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Sets the number of the next envelope, before the writer's first turn.
    pub(crate) fn continue_from(&self, number: u64) {
        self.next_seq.store(number, Relaxed);
    }

    /// The number of the next envelope.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_seq.load(Relaxed)
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

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lane({})", self.topic)
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

#[cfg(test)]
mod tests;

//! The bounded buffer between a transport's reader and the core.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::sync::Notify;

/// Something a subscription tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A payload, whole and unchanged.
    Message(Bytes),
    /// The subscription is registered with the broker again after the link was down. What follows is new; what was
    /// missed is what the value says.
    Resumed(Continuity),
    /// So many payloads were dropped at this place because a buffer between the broker and the core was full.
    Lagged(u64),
}

/// What happened to the payloads published while a subscription was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Continuity {
    /// None is missing; `replayed` of them follow now, in order.
    Unbroken {
        /// How many payloads come back. Where the broker cannot tell, about so many, and not 0 if any may: the core waits
        /// for them.
        replayed: u64,
    },
    /// Some are gone for good.
    Lost {
        /// How many, where the broker tells.
        count: Option<u64>,
        /// Why.
        cause: LossCause,
    },
    /// The transport cannot know; the core finds out from the sequence numbers.
    Unknown,
}

impl Continuity {
    /// Some are gone for good, and nobody knows how many.
    pub const fn lost(cause: LossCause) -> Self {
        Self::Lost { count: None, cause }
    }

    /// What two resumptions in a row, without a payload between them, come to.
    fn and(self, later: Self) -> Self {
        match (self, later) {
            (Self::Unbroken { replayed: a }, Self::Unbroken { replayed: b }) => Self::Unbroken {
                replayed: a.saturating_add(b),
            },
            (Self::Lost { count: a, .. }, Self::Lost { count: b, cause }) => Self::Lost {
                count: a.zip(b).map(|(a, b)| a.saturating_add(b)),
                cause,
            },
            (lost @ Self::Lost { .. }, Self::Unbroken { .. })
            | (Self::Unbroken { .. }, lost @ Self::Lost { .. }) => lost,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
        }
    }
}

/// Why payloads are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossCause {
    /// The link was down and the broker keeps nothing for absent subscribers.
    LinkDown,
    /// A buffer was full.
    Overflow,
    /// The broker had trimmed its log past our position.
    Trimmed,
    /// The broker's log was deleted, emptied or rolled back.
    Reset,
}

/// How much a subscription may hold for a slow reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BufferLimits {
    /// Payloads. Default 65,536.
    pub messages: usize,
    /// Bytes of payload. Default 16 MiB: half of what makes Redis cut a slow subscriber.
    pub bytes: usize,
}

impl Default for BufferLimits {
    fn default() -> Self {
        Self {
            messages: 65_536,
            bytes: 16 << 20,
        }
    }
}

impl BufferLimits {
    /// Sets both limits; at least one payload always fits.
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Event>,
    messages: usize,
    bytes: usize,
    /// Payloads dropped since the last one that fitted.
    dropped: u64,
    reader: Option<Waker>,
    ended: bool,
    dropped_reader: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    limits: BufferLimits,
    /// Woken when there is room again or the reader is gone.
    room: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of one subscription, in order. A [`Stream`] that ends when the transport is closed.
///
/// Dropping it ends the subscription.
pub struct Subscription {
    shared: Arc<Shared>,
}

impl Subscription {
    /// Makes a subscription and the end that the transport writes to.
    pub fn channel(limits: BufferLimits) -> (SubscriptionSender, Self) {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            limits,
            room: Notify::new(),
        });
        (
            SubscriptionSender {
                shared: shared.clone(),
            },
            Self { shared },
        )
    }

    /// The next event; `None` once the transport is closed and everything was read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let (event, was_full) = {
            let mut state = self.shared.lock();
            let Some(event) = state.queue.pop_front() else {
                if state.dropped > 0 {
                    return Poll::Ready(Some(Event::Lagged(std::mem::take(&mut state.dropped))));
                }
                if state.ended {
                    return Poll::Ready(None);
                }
                if !state
                    .reader
                    .as_ref()
                    .is_some_and(|w| w.will_wake(cx.waker()))
                {
                    state.reader = Some(cx.waker().clone());
                }
                return Poll::Pending;
            };
            let mut was_full = false;
            if let Event::Message(payload) = &event {
                was_full = state.messages >= self.shared.limits.messages
                    || state.bytes >= self.shared.limits.bytes / 2;
                state.messages -= 1;
                state.bytes -= payload.len();
            }
            (event, was_full)
        };
        if was_full {
            self.shared.room.notify_waiters();
        }
        Poll::Ready(Some(event))
    }
}

impl Stream for Subscription {
    type Item = Event;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_recv(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dropped_reader = true;
        state.queue = VecDeque::new();
        (state.messages, state.bytes) = (0, 0);
        drop(state);
        self.shared.room.notify_waiters();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Subscription")
            .field("messages", &state.messages)
            .field("bytes", &state.bytes)
            .finish_non_exhaustive()
    }
}

/// The transport's end of a subscription.
///
/// All methods but [`push_wait`](Self::push_wait) return at once, so they may be called from a client's reader.
#[derive(Clone)]
pub struct SubscriptionSender {
    shared: Arc<Shared>,
}

impl SubscriptionSender {
    /// Hands over one payload, or drops and counts it when the buffer is full. Returns whether it fitted.
    pub fn push(&self, payload: Bytes) -> bool {
        let mut state = self.shared.lock();
        if state.dropped_reader || state.ended {
            return false;
        }
        if !Self::fits(&state, self.shared.limits, payload.len()) {
            state.dropped += 1;
            return false;
        }
        Self::append(state, Event::Message(payload));
        true
    }

    /// Hands over one payload, waiting for room: for transports that pull from the broker and can simply stop reading.
    /// Returns `false` if the subscription is gone.
    ///
    /// # Cancel safety
    /// Dropping the future drops the payload.
    pub async fn push_wait(&self, payload: Bytes) -> bool {
        loop {
            let room = self.shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let state = self.shared.lock();
                if state.dropped_reader || state.ended {
                    return false;
                }
                if Self::fits(&state, self.shared.limits, payload.len()) {
                    Self::append(state, Event::Message(payload));
                    return true;
                }
            }
            room.await;
        }
    }

    /// Tells that the subscription is registered with the broker again.
    ///
    /// A resumption that follows another one in the buffer becomes part of it, so that a reader that stands still while
    /// the link comes and goes does not collect them without bound. What was dropped between the two is told after them.
    pub fn resumed(&self, continuity: Continuity) {
        let mut state = self.shared.lock();
        if state.ended || state.dropped_reader {
            return;
        }
        match state.queue.back_mut() {
            Some(Event::Resumed(earlier)) => *earlier = earlier.and(continuity),
            _ => Self::append(state, Event::Resumed(continuity)),
        }
    }

    /// Counts payloads that were dropped before they got here, for example by the client crate.
    pub fn lagged(&self, count: u64) {
        let mut state = self.shared.lock();
        state.dropped = state.dropped.saturating_add(count);
        if let Some(reader) = state.reader.take() {
            drop(state);
            reader.wake();
        }
    }

    /// Ends the subscription after what is buffered.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        state.ended = true;
        let reader = state.reader.take();
        drop(state);
        self.shared.room.notify_waiters();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether the reader dropped the subscription.
    pub fn is_closed(&self) -> bool {
        self.shared.lock().dropped_reader
    }

    fn fits(state: &State, limits: BufferLimits, len: usize) -> bool {
        state.messages == 0
            || (state.messages < limits.messages && state.bytes + len <= limits.bytes)
    }

    fn append(mut state: MutexGuard<'_, State>, event: Event) {
        if state.dropped > 0 {
            let lagged = Event::Lagged(std::mem::take(&mut state.dropped));
            state.queue.push_back(lagged);
        }
        if let Event::Message(payload) = &event {
            state.messages += 1;
            state.bytes += payload.len();
        }
        state.queue.push_back(event);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl fmt::Debug for SubscriptionSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionSender").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> Event {
        Event::Message(Bytes::copy_from_slice(&[n]))
    }

    #[tokio::test]
    async fn overflow_drops_counts_and_tells_where() {
        let (tx, mut rx) = Subscription::channel(BufferLimits::new(2, 100));
        let pushed: Vec<bool> = (0..4)
            .map(|n| tx.push(Bytes::copy_from_slice(&[n])))
            .collect();
        assert_eq!(pushed, [true, true, false, false]);
        assert_eq!(rx.recv().await, Some(message(0)));
        tx.push(Bytes::copy_from_slice(&[4]));
        assert_eq!(rx.recv().await, Some(message(1)));
        assert_eq!(rx.recv().await, Some(Event::Lagged(2)));
        assert_eq!(rx.recv().await, Some(message(4)));
    }

    #[tokio::test]
    async fn resumptions_that_nobody_reads_become_one() {
        let lost = |count, cause| Continuity::Lost { count, cause };
        let unbroken = |replayed| Continuity::Unbroken { replayed };
        let (down, reset) = (LossCause::LinkDown, LossCause::Reset);
        let table = [
            (unbroken(2), unbroken(3), unbroken(5)),
            (
                lost(Some(2), down),
                lost(Some(3), reset),
                lost(Some(5), reset),
            ),
            (lost(None, down), lost(Some(3), reset), lost(None, reset)),
            (lost(Some(2), down), unbroken(3), lost(Some(2), down)),
            (unbroken(3), lost(Some(2), down), lost(Some(2), down)),
            (Continuity::Unknown, unbroken(3), Continuity::Unknown),
            (lost(None, down), Continuity::Unknown, Continuity::Unknown),
        ];
        for (earlier, later, both) in table {
            let (tx, mut rx) = Subscription::channel(BufferLimits::new(1, 100));
            tx.push(Bytes::from_static(&[0]));
            tx.push(Bytes::from_static(&[1]));
            tx.resumed(earlier);
            tx.push(Bytes::from_static(&[2]));
            tx.resumed(later);
            assert_eq!(rx.recv().await, Some(message(0)));
            assert_eq!(rx.recv().await, Some(Event::Lagged(1)));
            assert_eq!(rx.recv().await, Some(Event::Resumed(both)));
            assert_eq!(rx.recv().await, Some(Event::Lagged(1)));
        }
    }

    #[tokio::test]
    async fn bytes_are_bounded_but_one_payload_always_fits() {
        let (tx, mut rx) = Subscription::channel(BufferLimits::new(10, 4));
        assert!(tx.push(Bytes::from_static(&[0; 9])));
        assert!(!tx.push(Bytes::from_static(&[0; 1])));
        assert_eq!(
            rx.recv().await,
            Some(Event::Message(Bytes::from_static(&[0; 9])))
        );
        assert_eq!(rx.recv().await, Some(Event::Lagged(1)));
    }

    #[tokio::test]
    async fn push_wait_waits_for_room_and_ends_with_the_reader() {
        let (tx, mut rx) = Subscription::channel(BufferLimits::new(1, 100));
        assert!(tx.push_wait(Bytes::from_static(&[0])).await);
        let waiting = tokio::spawn({
            let tx = tx.clone();
            async move { tx.push_wait(Bytes::from_static(&[1])).await }
        });
        assert_eq!(rx.recv().await, Some(message(0)));
        assert!(waiting.await.unwrap());
        let waiting = tokio::spawn(async move { tx.push_wait(Bytes::from_static(&[2])).await });
        drop(rx);
        assert!(!waiting.await.unwrap());
    }

    #[tokio::test]
    async fn ends_after_what_is_buffered() {
        let (tx, mut rx) = Subscription::channel(BufferLimits::default());
        tx.push(Bytes::from_static(&[1]));
        tx.end();
        assert_eq!(rx.recv().await, Some(message(1)));
        assert_eq!(rx.recv().await, None);
    }
}

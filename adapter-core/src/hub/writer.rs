//! The writer of one lane: numbers frames, keeps a few on their way, resends what has no known outcome, in order.

use std::{collections::VecDeque, future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    lane::{Lane, Turn, Waiter},
    numbers::Numbers,
    sealed::{Publishing, Sealed, head},
    shared::Shared,
};
use crate::{
    config::OutagePolicy,
    error::{Error, ErrorKind, Outcome, Result},
    events::ClusterEvent,
    transport::{Receipt, Topic},
    wire::FrameKind,
};

/// How often an idle lane repeats where it stands after its last frame: a lost last frame is found by the next one, and
/// a lost notice by the one after it.
const TAILS: u32 = 3;
/// Longest wait for the broker to take a tail notice.
const TAIL_TIMEOUT: Duration = Duration::from_secs(2);
/// Ranges of numbers whose withdrawal was refused; of more, the oldest is forgotten.
const MAX_WITHDRAWN: usize = 64;
/// Waits between attempts while the link is up but refuses frames.
const RETRY_FLOOR: Duration = Duration::from_millis(50);
const RETRY_CEILING: Duration = Duration::from_secs(1);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    live: watch::Receiver<bool>,
    cancel: CancellationToken,
    /// Where the numbers of the lane's topic stand; held while this writer runs.
    numbers: Arc<Mutex<Numbers>>,
    /// Not settled, lowest number first; never more than `in_flight`.
    window: VecDeque<Sealed>,
    /// One future per front element of the window.
    publishing: FuturesOrdered<Publishing>,
    /// Withdrawals that the broker refused as it refused the frames, lowest number first.
    withdrawn: VecDeque<Sealed>,
    /// Up to this number, peers are not to wait for any that they do not have.
    begins_after: u64,
    failures: u32,
    retry_at: Option<Instant>,
    tails_left: u32,
    tail_at: Instant,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lane: Arc<Lane>,
        live: watch::Receiver<bool>,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            shared,
            lane,
            live,
            cancel,
            numbers: Arc::default(),
            window: VecDeque::new(),
            publishing: FuturesOrdered::new(),
            withdrawn: VecDeque::new(),
            begins_after: 0,
            failures: 0,
            retry_at: None,
            tails_left: 0,
            tail_at: Instant::now(),
        }
    }

    /// Goes on with these numbers, once the writer that has them now has ended.
    pub(crate) fn with_numbers(mut self, numbers: Arc<Mutex<Numbers>>) -> Self {
        self.numbers = numbers;
        self
    }

    /// Runs until the lane is closed and settled, or `cancel`.
    pub(crate) async fn run(mut self) {
        let (numbers, cancel) = (self.numbers.clone(), self.cancel.clone());
        let mut numbers = tokio::select! {
            biased;
            () = cancel.cancelled() => return self.give_up_everything(),
            numbers = numbers.lock() => numbers,
        };
        self.lane.continue_from(numbers.last + 1);
        self.begins_after = numbers.withdrawn;
        self.withdrawn.extend(self.beginning());
        self.write().await;
        numbers.last = self.lane.next_number() - 1;
    }

    /// What withdraws the numbers before the first one.
    fn beginning(&self) -> Vec<Sealed> {
        let mut voids = Vec::new();
        let mut first = 1;
        while first <= self.begins_after {
            let count = u32::try_from(self.begins_after - first + 1).unwrap_or(u32::MAX);
            let payload = self.notice(FrameKind::Void, first, count);
            voids.push(Sealed::void(payload, first, count));
            first += u64::from(count);
        }
        voids
    }

    async fn write(&mut self) {
        let lane = self.lane.clone();
        let cancel = self.cancel.clone();
        let mut has_reader = true;
        loop {
            let busy = self.begin_turn();
            self.expire();
            let live = *self.live.borrow_and_update();
            if !has_reader && !live {
                // Nobody will say when the topic delivers again: better a loss told twice than a writer that never ends.
                self.window.retain(|sealed| !sealed.void);
            }
            if live && !busy {
                self.publish_more();
                if self.window.is_empty() {
                    self.publish_tail_if_due().await;
                }
            }
            if self.window.is_empty() && !busy && lane.is_drained() {
                if live && (self.tails_left > 0 || !self.withdrawn.is_empty()) {
                    self.publish_tail().await;
                }
                return;
            }
            let wake_at = self.next_wake(live);
            let idle = live && !busy && self.window.is_empty() && self.retry_at.is_none();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(result) = self.publishing.next(), if !self.publishing.is_empty() => {
                    self.settle_front(result);
                }
                () = poll_fn(|cx| lane.poll_woken(cx, idle)) => {}
                changed = self.live.changed(), if has_reader => {
                    // Without the reader the namespace is gone; what the lane still holds goes out all the same.
                    has_reader = changed.is_ok();
                    self.retry_at = None;
                }
                () = sleep_until(wake_at) => {}
            }
        }
        self.give_up_everything();
    }

    /// Takes over a frame that a caller has published. Returns whether a caller is just about to publish one.
    fn begin_turn(&mut self) -> bool {
        match self.lane.begin_turn() {
            Turn::Free => false,
            Turn::Busy => true,
            Turn::Started(sealed, publishing) => {
                self.window.push_back(sealed);
                self.publishing.push_back(publishing);
                false
            }
        }
    }

    /// Fills the window: first what must be sent again, then what is waiting.
    fn publish_more(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        self.retry_at = None;
        if self.failures == 0 {
            // The broker takes something again. Peers wait a moment for withdrawals before they report a gap.
            self.window.extend(self.withdrawn.drain(..));
        }
        for sealed in self.window.iter_mut().skip(self.publishing.len()) {
            if sealed.maybe_sent {
                self.shared.counters.frames_resent.inc();
            }
            let publishing = sealed.publish(&self.shared, &self.lane);
            self.publishing.push_back(publishing);
        }
        while self.window.len() < self.shared.config.in_flight {
            let Some(batch) = self.lane.take_batch() else {
                return;
            };
            let mut sealed = Sealed::new(&self.shared, &self.lane, batch);
            let publishing = sealed.publish(&self.shared, &self.lane);
            self.window.push_back(sealed);
            self.publishing.push_back(publishing);
        }
    }

    /// The outcome of the lowest frame on its way.
    fn settle_front(&mut self, result: Result<Receipt>) {
        let error = match result {
            Ok(_) => {
                self.failures = 0;
                if let Some(sealed) = self.window.pop_front() {
                    self.accepted(sealed);
                }
                return;
            }
            Err(error) => error,
        };
        debug!(topic = %self.lane.topic, ?error, "frame not accepted");
        let kind = error.kind();
        // What follows it in the window may have been sent too, and must be sent again behind it to keep the order;
        // receivers drop what they have already seen.
        self.publishing = FuturesOrdered::new();
        if let Some(front) = self.window.front_mut() {
            front.failed(kind);
        }
        for sealed in &mut self.window {
            sealed.abandoned(kind);
        }
        if error.outcome() == Outcome::Rejected || kind == ErrorKind::TooLarge {
            match self.window.pop_front() {
                Some(front) if front.void => self.withdraw_later(front),
                front => {
                    if let Some(void) = front.and_then(|front| self.give_up(front, kind)) {
                        self.window.push_front(void);
                    }
                }
            }
        }
        let wait = (RETRY_FLOOR * 2u32.saturating_pow(self.failures.min(8))).min(RETRY_CEILING);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + wait.mul_f64(0.5 + fastrand::f64() / 2.0));
    }

    fn accepted(&mut self, sealed: Sealed) {
        let counters = &self.shared.counters;
        counters.frames_published.inc();
        self.tails_left = if self.lane.is_sequenced() { TAILS } else { 0 };
        self.tail_at = Instant::now() + self.shared.config.heartbeat;
        if sealed.void {
            return;
        }
        counters.envelopes_published.add(u64::from(sealed.count));
        self.lane.settle(sealed.count, sealed.bytes);
        for waiter in sealed.waiters {
            let _ = waiter.send(Ok(()));
        }
    }

    /// Gives a frame up. It is told as unsent and its numbers are withdrawn, by the frame returned, so that peers do not
    /// report the same loss; unless some attempt may have arrived: then only the peers can tell, and a tail makes them.
    fn give_up(&mut self, mut sealed: Sealed, kind: ErrorKind) -> Option<Sealed> {
        let (count, bytes) = (sealed.count, sealed.bytes);
        let waiters = std::mem::take(&mut sealed.waiters);
        if sealed.maybe_sent {
            self.settle(count, bytes, waiters, in_doubt(kind));
            if self.lane.is_sequenced() {
                self.tails_left = TAILS;
                self.tail_at = Instant::now();
            }
            return None;
        }
        self.unsent(count, bytes, waiters, kind);
        if !self.lane.is_sequenced() {
            return None;
        }
        sealed.payload = self.notice(FrameKind::Void, sealed.seq, count);
        sealed.void = true;
        Some(sealed)
    }

    /// Keeps a withdrawal for when the broker takes frames again: without it, peers report what was told already.
    fn withdraw_later(&mut self, mut void: Sealed) {
        if let Some(last) = self.withdrawn.back()
            && last.seq + u64::from(last.count) == void.seq
            && let Some(count) = last.count.checked_add(void.count)
        {
            (void.seq, void.count) = (last.seq, count);
            void.payload = self.notice(FrameKind::Void, void.seq, count);
            self.withdrawn.pop_back();
        }
        self.withdrawn.push_back(void);
        if self.withdrawn.len() > MAX_WITHDRAWN {
            self.withdrawn.pop_front();
        }
        self.tails_left = TAILS;
        self.tail_at = Instant::now() + self.shared.config.heartbeat;
    }

    /// A frame without envelopes.
    fn notice(&self, kind: FrameKind, seq: u64, count: u32) -> Bytes {
        let head = head(&self.shared, &self.lane, kind, seq, count);
        self.shared.wire.seal(self.shared.wire.begin(), head)
    }

    /// Frees the room of what was given up and tells those who wait for it.
    fn settle(&self, count: u32, bytes: usize, waiters: Vec<Waiter>, kind: ErrorKind) {
        self.lane.settle(count, bytes);
        for waiter in waiters {
            let _ = waiter.send(Err(kind));
        }
    }

    fn unsent(&self, count: u32, bytes: usize, waiters: Vec<Waiter>, kind: ErrorKind) {
        self.settle(count, bytes, waiters, kind);
        if let Topic::Namespace(namespace) = &self.lane.topic {
            self.shared.counters.envelopes_unsent.add(u64::from(count));
            warn!(%namespace, count, reason = ?kind, "messages not sent");
            self.shared.emit(ClusterEvent::Unsent {
                namespace: namespace.clone(),
                count: u64::from(count),
                reason: kind,
            });
        }
    }

    fn max_age(&self) -> Duration {
        match self.shared.config.outage {
            OutagePolicy::Buffer { max_age } => max_age,
            OutagePolicy::FailFast | OutagePolicy::Block { .. } => self.shared.config.retry_for,
        }
    }

    /// Gives up what has waited too long, but never a withdrawal: it keeps peers from reporting what was told already.
    fn expire(&mut self) {
        if !self.publishing.is_empty() {
            return;
        }
        let now = Instant::now();
        let max_age = self.max_age();
        for sealed in std::mem::take(&mut self.window) {
            if sealed.void || now.duration_since(sealed.since) < max_age {
                self.window.push_back(sealed);
            } else {
                let kind = sealed.last_error;
                let void = self.give_up(sealed, kind);
                self.window.extend(void);
            }
        }
        for batch in self.lane.take_expired(now, max_age) {
            let (count, bytes) = (batch.buf.count(), batch.bytes);
            self.unsent(count, bytes, batch.waiters, ErrorKind::LinkDown);
        }
    }

    fn next_wake(&self, live: bool) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let max_age = self.max_age();
        let sealed = self.window.iter().find(|sealed| !sealed.void);
        let oldest = sealed.map(|sealed| sealed.since);
        let oldest = oldest
            .or_else(|| self.lane.oldest())
            .and_then(|since| since.checked_add(max_age));
        // A frame on its way is not given up before its outcome is known.
        let expiry = oldest.filter(|_| self.publishing.is_empty());
        let retry = self.retry_at.filter(|_| live);
        let tail = (live && self.tails_left > 0 && self.window.is_empty()).then_some(self.tail_at);
        [expiry, retry, tail]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(far)
    }

    async fn publish_tail_if_due(&mut self) {
        let due = self.tails_left > 0 && self.tail_at <= Instant::now();
        let wanted = self.lane.take_tail_wanted();
        if due || wanted {
            let published = self.publish_tail().await;
            self.tail_at = Instant::now() + self.shared.config.heartbeat;
            self.tails_left = match published {
                true => self.tails_left - u32::from(due),
                // Peers may not know of a loss yet, and nothing else need follow.
                false => self.tails_left.max(1),
            };
        }
    }

    /// Tells peers the number of the next envelope, and before that which numbers are withdrawn. Only sent with nothing on
    /// its way: it must not overtake a frame that is sent again, or peers would report it lost.
    /// Returns whether the broker has it.
    async fn publish_tail(&mut self) -> bool {
        if !self.lane.is_sequenced() {
            return true;
        }
        while let Some(void) = self.withdrawn.front() {
            let payload = void.payload.clone();
            if !self.publish_notice(payload).await {
                return false;
            }
            self.withdrawn.pop_front();
        }
        // Each time: who asks may not have been there the first time.
        for void in self.beginning() {
            if !self.publish_notice(void.payload).await {
                return false;
            }
        }
        let tail = self.notice(FrameKind::Tail, self.lane.next_number(), 0);
        self.publish_notice(tail).await
    }

    /// Returns whether the broker has it.
    async fn publish_notice(&mut self, payload: Bytes) -> bool {
        let publish = self.shared.transport.publish(&self.lane.topic, payload);
        let published = matches!(timeout(TAIL_TIMEOUT, publish).await, Ok(Ok(_)));
        if !published {
            debug!(topic = %self.lane.topic, "tail notice not sent");
        }
        published
    }

    /// The end before everything was sent. What is on its way may arrive all the same, so it is not called unsent; peers
    /// that miss it tell so.
    fn give_up_everything(&mut self) {
        self.begin_turn();
        self.publishing = FuturesOrdered::new();
        for mut sealed in std::mem::take(&mut self.window) {
            if sealed.void {
                continue;
            }
            sealed.abandoned(ErrorKind::Interrupted);
            let (count, bytes) = (sealed.count, sealed.bytes);
            if sealed.maybe_sent {
                self.settle(count, bytes, sealed.waiters, ErrorKind::Interrupted);
            } else {
                self.unsent(count, bytes, sealed.waiters, ErrorKind::Closed);
            }
        }
        while let Some(batch) = self.lane.take_batch() {
            let (count, bytes) = (batch.buf.count(), batch.bytes);
            self.unsent(count, bytes, batch.waiters, ErrorKind::Closed);
        }
    }
}

/// What to tell of a frame that may have been sent: never a kind that says it was not.
fn in_doubt(kind: ErrorKind) -> ErrorKind {
    match kind.outcome() {
        Outcome::Unknown => kind,
        Outcome::NotSent | Outcome::Rejected => ErrorKind::Interrupted,
    }
}

/// The error a caller gets for a frame that failed for `kind`.
pub(crate) fn publish_error(kind: ErrorKind) -> Error {
    let message = match kind {
        ErrorKind::LinkDown => "the link to the broker is down",
        ErrorKind::TooLarge => "the broker does not take messages of this size",
        ErrorKind::Rejected => "the broker refused the message",
        ErrorKind::Full => "the lane stayed full until the deadline",
        ErrorKind::Closed => "the cluster was shut down",
        ErrorKind::Unauthorized => "the broker does not allow this node to publish",
        _ => "no confirmation from the broker; the message may have been delivered",
    };
    Error::new(kind, "publish", message)
}

#[cfg(test)]
mod model;

//! The load: one task per node that emits all the time, writes down every attempt before it and what became of it after it.

use std::{
    future::{Future, poll_fn, ready},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use socketioxide::{BroadcastError, SocketError, SocketIo};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::sleep,
};

use crate::{
    cases::cluster::stage::kind_of,
    check::{Failure, Verdict},
    ledger::{Attempt, Entry, Ledger},
    node::Adapter,
    payload::Id,
};

/// The namespaces of the load, each a lane of every node.
pub(super) const LANES: [&str; 2] = ["/", "/side"];
const LANE_COUNT: u64 = LANES.len() as u64;
/// The event that carries the load.
pub(super) const EVENT: &str = "load";
/// Bytes of a payload beyond its head, at most, where no case wants larger ones.
pub(super) const FILLER: usize = 200;

/// Reads back what a publisher sent; `None` if it is not whole, or not from one.
pub(super) fn read(payload: &[u8]) -> Option<Entry> {
    let id = Id::read(payload)?;
    let lanes = LANES.len() as u32;
    Some(Entry {
        publisher: id.publisher / lanes,
        lane: id.publisher % lanes,
        number: id.number,
    })
}

/// What the publisher is to do.
#[derive(Debug, Clone, Copy)]
struct Orders {
    /// Emit, pause, emit…
    steady: bool,
    /// How many it has been told in all to emit without a pause.
    at_once: u64,
    filler: usize,
    over: bool,
}

/// What it has done so far.
#[derive(Debug, Default)]
struct Tally {
    attempted: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
    /// Of the orders to emit without a pause.
    done_at_once: AtomicU64,
    longest_call_ms: AtomicU64,
    broken: Mutex<Option<String>>,
}

/// Emits on behalf of one node. Dropping it ends the task.
pub(super) struct Publisher {
    number: u32,
    orders: watch::Sender<Orders>,
    tally: Arc<Tally>,
    task: JoinSet<()>,
}

impl Publisher {
    /// Starts the task, which waits for orders. Up to `window` calls are made at the same time.
    pub(super) fn start(
        number: u32,
        ledger: &Arc<Ledger>,
        io: &SocketIo<Adapter>,
        window: usize,
        pause: Duration,
    ) -> Self {
        let (orders, received) = watch::channel(Orders {
            steady: false,
            at_once: 0,
            filler: FILLER,
            over: false,
        });
        let tally = Arc::<Tally>::default();
        let desk = Desk {
            number,
            ledger: ledger.clone(),
            io: io.clone(),
            window,
            pause,
            orders: received,
            tally: tally.clone(),
            calls: FuturesUnordered::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(desk.work());
        Self {
            number,
            orders,
            tally,
            task,
        }
    }

    /// Begins or ceases to emit all the time.
    pub(super) fn steady(&self, steady: bool) {
        self.orders.send_modify(|orders| orders.steady = steady);
    }

    /// Emits so many more as fast as it can.
    pub(super) fn at_once(&self, count: u64) {
        self.orders.send_modify(|orders| orders.at_once += count);
    }

    /// Sets the size of payloads from now on.
    pub(super) fn filler(&self, filler: usize) {
        self.orders.send_modify(|orders| orders.filler = filler);
    }

    /// Whether everything ordered at once has been attempted, and ended one way or the other.
    pub(super) fn is_done(&self) -> bool {
        self.tally.done_at_once.load(Relaxed) == self.orders.borrow().at_once
    }

    /// How many it has attempted.
    pub(super) fn attempted(&self) -> u64 {
        self.tally.attempted.load(Relaxed)
    }

    /// How many were accepted.
    pub(super) fn accepted(&self) -> u64 {
        self.tally.accepted.load(Relaxed)
    }

    /// How many were not accepted.
    pub(super) fn failed(&self) -> u64 {
        self.tally.failed.load(Relaxed)
    }

    /// How long the longest call took, in milliseconds.
    pub(super) fn longest_call_ms(&self) -> u64 {
        self.tally.longest_call_ms.load(Relaxed)
    }

    /// The latest attempts, one per lane.
    pub(super) fn latest(&self) -> impl Iterator<Item = Entry> + use<> {
        let (next, publisher) = (self.attempted(), self.number);
        let latest = next.saturating_sub(LANE_COUNT)..next;
        latest.map(move |number| entry(publisher, number))
    }

    /// Fails if an emit failed in a way that no fault explains.
    pub(super) fn check(&self) -> Verdict {
        let broken = &self.tally.broken;
        let broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.clone().map_or(Ok(()), |why| Err(Failure(why)))
    }

    /// Ends it once all calls have ended.
    pub(super) async fn end(&mut self) {
        self.orders.send_modify(|orders| orders.over = true);
        while self.task.join_next().await.is_some() {}
    }
}

fn entry(publisher: u32, number: u64) -> Entry {
    Entry {
        publisher,
        lane: (number % LANE_COUNT) as u32,
        number,
    }
}

type Outcome = (Entry, Instant, bool, Result<(), BroadcastError>);
type Call = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The task.
struct Desk {
    number: u32,
    ledger: Arc<Ledger>,
    io: SocketIo<Adapter>,
    window: usize,
    pause: Duration,
    orders: watch::Receiver<Orders>,
    tally: Arc<Tally>,
    calls: FuturesUnordered<Call>,
}

impl Desk {
    async fn work(mut self) {
        let mut at_once = 0;
        loop {
            let orders = *self.orders.borrow_and_update();
            if orders.over {
                break;
            }
            let hurry = at_once < orders.at_once;
            if !hurry && !orders.steady {
                tokio::select! {
                    changed = self.orders.changed() => if changed.is_err() { break },
                    Some(outcome) = self.calls.next(), if !self.calls.is_empty() => self.conclude(outcome),
                }
                continue;
            }
            while self.calls.len() >= self.window {
                self.next_outcome().await;
            }
            at_once += u64::from(hurry);
            self.attempt(orders.filler, hurry).await;
            match hurry {
                true => yield_now().await,
                false => sleep(self.pause).await,
            }
            while let Some(Some(outcome)) = self.calls.next().now_or_never() {
                self.conclude(outcome);
            }
        }
        while !self.calls.is_empty() {
            self.next_outcome().await;
        }
    }

    async fn next_outcome(&mut self) {
        if let Some(outcome) = self.calls.next().await {
            self.conclude(outcome);
        }
    }

    /// Emits once. The first poll is what fixes its place in the order.
    async fn attempt(&mut self, filler: usize, hurry: bool) {
        let number = self.tally.attempted.load(Relaxed);
        let entry = entry(self.number, number);
        self.ledger.attempts(entry);
        self.tally.attempted.store(number + 1, Relaxed);
        let id = Id {
            publisher: self.number * LANES.len() as u32 + entry.lane,
            number,
        };
        let filler = filler / 2 + fastrand::Rng::with_seed(number).usize(..=filler / 2);
        let payload = id.payload(filler);
        let start = Instant::now();
        let Some(operators) = self.io.of(LANES[entry.lane as usize]) else {
            // The server has been closed.
            self.ledger.concludes(entry, Attempt::NotSent);
            self.tally.failed.fetch_add(1, Relaxed);
            self.tally.done_at_once.fetch_add(u64::from(hurry), Relaxed);
            return;
        };
        let mut call: Call = Box::pin(async move {
            let outcome = operators.emit(EVENT, &payload).await;
            (entry, start, hurry, outcome)
        });
        let polled = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        self.calls.push(match polled {
            Poll::Pending => call,
            Poll::Ready(outcome) => Box::pin(ready(outcome)),
        });
    }

    fn conclude(&self, (entry, start, hurry, outcome): Outcome) {
        let attempt = attempt(outcome).unwrap_or_else(|failure| {
            let broken = &self.tally.broken;
            let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
            broken.get_or_insert(failure.to_string());
            Attempt::Unknown
        });
        self.ledger.concludes(entry, attempt);
        let count = match attempt {
            Attempt::Accepted => &self.tally.accepted,
            _ => &self.tally.failed,
        };
        count.fetch_add(1, Relaxed);
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tally.longest_call_ms.fetch_max(took, Relaxed);
        self.tally.done_at_once.fetch_add(u64::from(hurry), Relaxed);
    }
}

/// What an emit came to for the other nodes. What they did not get is told first: an error about sockets of this node says
/// that the cluster has taken it. They are closed one after the other when a node leaves amid its load.
fn attempt(outcome: Result<(), BroadcastError>) -> Verdict<Attempt> {
    let is_closed = |error: &SocketError| matches!(error, SocketError::Closed);
    match outcome {
        Ok(()) => Ok(Attempt::Accepted),
        Err(BroadcastError::Socket(errors)) if errors.iter().all(is_closed) => {
            Ok(Attempt::Accepted)
        }
        Err(error) => kind_of(error).map(|kind| kind.outcome().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_closes_is_no_failure_of_the_cluster_but_a_full_one_is_told() {
        let closed = || vec![SocketError::Closed, SocketError::Closed];
        let outcome = attempt(Err(BroadcastError::Socket(closed())));
        assert!(matches!(outcome, Ok(Attempt::Accepted)));
        let mut full = closed();
        full.push(SocketError::InternalChannelFull);
        assert!(attempt(Err(BroadcastError::Socket(full))).is_err());
    }
}
